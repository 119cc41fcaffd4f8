"""The policies that runs left behind."""

import numpy as np
import pytest
import torch
from building import cloning, curriculum, echo, tuning
from refusing import refused

from rlstages import Environment, Expert, SuccessThreshold, load_policy, train
from rlstages.environments.make import make_environment
from rlstages.environments.seeding import Purpose, episode_seed
from rlstages.learners.learner import read_policy
from rlstages.play.saved_policies import evaluate, final_policy_file, load_learner

ALWAYS = Environment("toys:Always")
SURE = SuccessThreshold(0.5, window=4, max_episodes=120)


@pytest.fixture
def run(here):
    plan = curriculum(
        cloning(episodes=20, max_epochs=10),
        tuning("easy", ALWAYS, until=SURE, critic_fit_steps=0),
        held_out=[echo(steps=4), ALWAYS],
        normalize_observations=True,
    )
    assert train(plan, out="run", seed=2).outcome == "reached"
    return here / "run"


def test_a_runs_policy_is_that_of_its_last_stage_and_can_be_asked_at_once(run):
    policy = load_policy(run)

    assert final_policy_file(run) == run / "policies" / "01-easy.safetensors"
    kept = read_policy(final_policy_file(run))
    assert all(torch.equal(value, kept[name]) for name, value in policy.state_dict().items())
    assert not policy.training
    assert policy.predict(np.zeros(3, np.float32))[0] in range(3)


def test_a_run_is_scored_in_each_environment_once_held_out_ones_included(run):
    scores = evaluate(run, episodes=10, seed=5)

    assert [environment for environment, _ in scores] == [echo(), ALWAYS, echo(steps=4)]
    assert [score.episodes for _, score in scores] == [10, 10, 10]
    assert scores[1][1].success == 1.0
    assert scores[2][1].steps == 40


def test_a_score_is_of_as_many_episodes_as_asked_for_counted_by_their_start(run):
    uneven = Environment("toys:Uneven")
    agent = load_learner(run).agent
    sim = make_environment(uneven).unwrapped
    lengths = [sim.length_of(episode_seed(5, 0, Purpose.EVALUATION, 0, 0) + copy) for copy in range(agent.n_envs)]

    for asked in range(1, agent.n_envs + 1):
        assert evaluate(run, asked, 5, [uneven])[0][1].steps == sum(lengths[:asked])
    assert lengths != sorted(lengths)


def test_a_score_can_be_had_again_and_depends_on_its_seed(run):
    first, same, other = (evaluate(run, 10, seed, [Environment("toys:Uneven")])[0][1] for seed in (1, 1, 2))

    assert first == same
    assert first != other


def test_no_episode_is_no_score(run):
    with refused("setting-range", name="episodes"):
        evaluate(run, episodes=0, seed=0)


def test_what_is_no_run_or_has_no_policy_yet_is_refused(run, here):
    with refused("file-missing", where="nowhere"):
        load_policy("nowhere")
    (run / "events.jsonl").write_text("")
    with refused("run-unready", where="run"):
        load_policy(run)
    (run / "run.json").write_text("{}")
    with refused("file-damaged", where="run.json"):
        load_policy(run)


def test_a_loaded_learner_has_the_runs_agent(run):
    learner = load_learner(run)

    assert learner.agent.normalize_observations
    assert "features_extractor.standardizers.obs_.mean" in learner.weights()


def test_a_run_may_be_the_expert_of_another(run, here):
    plan = curriculum(cloning(expert=Expert(run, episodes=4), max_epochs=1))

    assert train(plan, out="second").outcome == "reached"
