"""Who shows a task: a function, another run, a trained model."""

import numpy as np
import pytest
import torch
from building import cloning, curriculum, echo, tuning
from refusing import refused
from stable_baselines3 import A2C, PPO

from rlstages import Environment, Expert, SuccessThreshold, load_policy, train
from rlstages.environments.make import make_environment
from rlstages.play.experts import showing
from rlstages.play.recording import record

ALWAYS = Environment("toys:Always")


@pytest.fixture
def model(here):
    made = PPO("MlpPolicy", make_environment(echo()), n_steps=8, batch_size=8, device="cpu", seed=3)
    made.save(here / "model.zip")
    return made


def finished_run(**settings):
    until = SuccessThreshold(0.5, window=4, max_episodes=120)
    train(curriculum(tuning("easy", ALWAYS, until=until, critic_fit_steps=0), **settings), out="run")


def test_a_function_is_given_the_environment_and_gives_the_actions(here):
    env = make_environment(echo())
    observation, _ = env.reset(seed=0)

    assert showing(Expert("toys:tell"))(env)(observation) == observation.argmax()


def test_a_run_acts_as_its_agent_does(here):
    finished_run(action_mode="deterministic")
    env = make_environment(ALWAYS)
    policy = load_policy("run")

    act = showing(Expert("run"))(env)

    for observation in np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32):
        assert act(observation) == policy.predict(observation, deterministic=True)[0]


def test_a_run_that_samples_shows_by_sampling(here):
    finished_run()
    act = showing(Expert("run"))(make_environment(ALWAYS))

    assert len({int(act(np.zeros(3, np.float32))) for _ in range(60)}) > 1


def test_a_model_is_loaded_only_when_its_file_is_trusted(model, here):
    with refused("untrusted", where="model.zip"):
        showing(Expert("model.zip"))

    act = showing(Expert("model.zip"), trust_pickle=True)(make_environment(echo()))

    for observation in np.eye(3, dtype=np.float32):
        assert act(observation) == model.predict(observation, deterministic=True)[0]


def test_an_untrusted_model_is_not_even_opened(here):
    (here / "bad.zip").write_bytes(b"not a zip at all")

    with refused("untrusted", where="bad.zip"):
        showing(Expert("bad.zip"))
    with refused("expert-invalid", where="bad.zip"):
        showing(Expert("bad.zip"), trust_pickle=True)


def test_a_model_of_another_algorithm_says_which(here):
    A2C("MlpPolicy", make_environment(echo()), device="cpu").save(here / "a2c.zip")

    assert callable(showing(Expert("a2c.zip", algorithm="A2C"), trust_pickle=True)(make_environment(echo())))
    with refused("name-unknown", where="Expert", name="algorithm"):
        showing(Expert("a2c.zip", algorithm="APO"), trust_pickle=True)


def test_a_model_that_is_not_there_is_named(here):
    with refused("file-missing", where="gone.zip"):
        showing(Expert("gone.zip"), trust_pickle=True)


@pytest.mark.parametrize("kind", ["run", "model.zip"])
def test_loading_an_expert_draws_no_random_number(kind, model, here):
    finished_run()
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(2), np.random.rand(2)

    torch.manual_seed(5)
    np.random.seed(5)
    showing(Expert(kind), trust_pickle=True)

    assert torch.equal(torch.rand(2), expected[0])
    assert np.array_equal(np.random.rand(2), expected[1])


def test_an_image_run_sees_images_as_the_environment_shows_them(here):
    environment = echo(sees="image")
    plan = curriculum(cloning(environment=environment, episodes=2, max_epochs=1), policy="CnnPolicy")
    train(plan, out="run")
    who = Expert("run", episodes=2)

    shown = record(environment, who, showing(who))

    assert shown.episodes[0].observations.shape == (9, 36, 36, 3)


def test_a_run_is_cloned_from_a_model(model, here):
    plan = curriculum(cloning(expert=Expert("model.zip", episodes=4), max_epochs=2))

    with refused("untrusted", where="stage 'clone': model.zip"):
        train(plan, out="run")
    assert not (here / "run").exists()
    assert train(plan, out="run", trust_pickle=True).outcome == "reached"
