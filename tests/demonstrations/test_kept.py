"""The demonstrations that fine-tuning goes on with: found again, taken over from another run, refused without any."""

import shutil

import numpy as np
import pytest
from building import CONTRARY, cloning, curriculum, echo, mostly_slow, payloads, tuning
from refusing import refused

from rlstages import RewardThreshold, SuccessThreshold, resume, train
from rlstages.cli.comparing import load_plan
from rlstages.demonstrations.kept import demonstrated_transitions, kept_demonstrations
from rlstages.events import DemonstrationsReady, RolloutFinished
from rlstages.play.saved_policies import load_learner
from rlstages.storage.checkpoints import checkpoint_names, read_checkpoint, sha256
from rlstages.storage.record import read_record
from rlstages.storage.run_directory import INHERITED, clear_unborn, read_events
from rlstages.training.preflight import preflight

NEVER = RewardThreshold(1e9)
CLONE = cloning(episodes=4, max_epochs=1, evaluation_episodes=0)


def needy(name="tune", environment=None, **settings):
    given = {"until": NEVER, "max_steps": 900, "on_timeout": "advance", "demonstration_loss": 0.5}
    return tuning(name, environment, **{**given, "evaluation_episodes": 0, **settings})


def pausing(rollouts):
    """Pauses a run between two steps, after so many rollouts."""
    left = [rollouts]

    def take(event):
        left[0] -= isinstance(event.payload, RolloutFinished)

    take.close = lambda: None
    return {"trackers": [take], "watch": lambda learner: "enough" if left[0] <= 0 else None}


def end(path):
    state = read_checkpoint(path / "checkpoints" / checkpoint_names(path / "checkpoints")[-1])
    return {key: value for key, value in state.items() if key not in ("seconds", "saves", "events_bytes", "notes")}


def losses(path):
    return [rollout.train.get("demonstration_loss") for rollout in payloads(path, RolloutFinished)]


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_a_run_that_stops_in_the_stage_ends_with_the_same_bits(engine, here):
    plan = curriculum(CLONE, needy(demonstration_steps=600), engine=engine, normalize_observations=True)
    train(plan, out="whole")

    train(plan, out="run", **pausing(5))
    assert len(losses("run")) == 5
    resume("run", **pausing(3))
    resume("run")

    assert losses("run") == losses("whole") and losses("run")[4] is not None
    np.testing.assert_equal(end(here / "run"), end(here / "whole"))


def test_the_term_is_over_all_that_the_last_cloning_stage_kept(here):
    second = cloning("again", echo(steps=5), episodes=6, best=3, held_out=0.5, max_epochs=1, evaluation_episodes=0)
    train(curriculum(CLONE, needy("a"), second, needy("b", echo(steps=5))), out="run", **pausing(16))

    first, last = payloads("run", DemonstrationsReady)
    kept = kept_demonstrations(here / "run")
    learner = load_learner(here / "run")
    spaces = learner.policy.observation_space, learner.action_space
    observations, actions = demonstrated_transitions(here / "run", *spaces)

    assert kept.digest == last.digest != first.digest
    assert len(actions) == len(observations) == 3 * 5
    np.testing.assert_array_equal(observations.argmax(axis=1), actions)


def test_a_stage_that_was_gone_back_to_finds_them_again(here):
    collapsing = {"on_collapse": "return", "critic_fit_steps": 0, "max_steps": 4_000, "exploration": 0.5}
    plan = curriculum(
        cloning(episodes=30, max_epochs=8, evaluation_episodes=0),
        needy("echo", until=SuccessThreshold(0.8, window=16), max_steps=20_000, critic_fit_steps=0),
        needy("contrary", CONTRARY, demonstration_loss=0.0, anchor_kl=0.0, **collapsing),
        n_epochs=8,
    )
    train(plan, out="run")

    ways = [
        (event.stage_name, "demonstration_loss" in event.payload.train)
        for event in read_events(here / "run")
        if isinstance(event.payload, RolloutFinished) and event.payload.phase == "training"
    ]
    visits = [way for way, before in zip(ways, [None, *ways], strict=False) if way != before]
    assert visits[:3] == [("echo", True), ("contrary", False), ("echo", True)]


@pytest.mark.parametrize("engine", mostly_slow(["torch", "numpy"], 1))
def test_a_run_takes_over_the_demonstrations_of_the_one_it_starts_from_and_goes_on_without_it(engine, here):
    train(curriculum(CLONE, engine=engine), out="first")
    plan = curriculum(needy(), engine=engine)
    train(plan, out="whole", initial="first")
    train(plan, out="run", initial="first", **pausing(4))
    shutil.rmtree("first")
    resume("run")

    assert all(loss is not None for loss in losses("run")[2:])
    np.testing.assert_equal(end(here / "run"), end(here / "whole"))
    record = read_record(here / "run")
    assert record.demonstrations == sha256((here / "run" / INHERITED).read_bytes())
    # And so does a run that starts from that one.
    train(plan, out="third", initial="run", **pausing(1))
    assert read_record(here / "third").demonstrations == record.demonstrations


def test_nothing_is_taken_over_that_no_stage_needs(here):
    train(curriculum(CLONE), out="first")
    for stages in ([needy(demonstration_loss=0.0)], [CLONE, needy()]):
        out = f"run-{len(stages)}"
        train(curriculum(*stages), out=out, initial="first", watch=lambda learner: "enough")
        assert read_record(here / out).demonstrations is None and not (here / out / INHERITED).exists()


def test_a_stage_without_demonstrations_is_refused_before_anything_is_written(here):
    plan = curriculum(needy(), CLONE)
    for check in (preflight, lambda plan: train(plan, out="run")):
        with refused("stage-order", where="stage 'tune'"):
            check(plan)
    train(curriculum(needy(demonstration_loss=0.0)), out="plain")
    with refused("stage-order", where="stage 'tune'"):
        train(plan, out="run", initial="plain")

    assert [path.name for path in here.iterdir()] == ["plain"]


def test_demonstrations_that_have_changed_are_refused(here):
    train(curriculum(CLONE), out="first")
    file = next((here / "first" / "demonstrations").iterdir())
    kept = file.read_bytes()
    file.write_bytes(kept[:-1] + b"x")
    with refused("file-damaged", where="first/demonstrations/00-clone.safetensors"):
        train(curriculum(needy()), out="run", initial="first")
    assert not (here / "run").exists()
    file.write_bytes(kept)
    train(curriculum(needy()), out="run", initial="first", **pausing(3))
    (here / "run" / INHERITED).unlink()

    with refused("file-damaged", where="run/demonstrations/inherited.safetensors"):
        resume("run")


def test_demonstrations_that_do_not_fit_the_spaces_are_refused(here):
    train(curriculum(CLONE), out="first")

    with refused(
        "demonstrations-invalid", where="first/demonstrations/00-clone.safetensors, episode 0", name="observations"
    ):
        train(curriculum(needy(environment=echo(acts="multidiscrete"))), out="run", initial="first")


@pytest.mark.parametrize(
    ("environment", "policy"),
    mostly_slow(
        [
            (echo(sees="image"), "CnnPolicy"),
            (echo(sees="dict"), "MultiInputPolicy"),
            (echo(sees="discrete"), "MlpPolicy"),
            (echo(acts="multibinary"), "MlpPolicy"),
            (echo(acts="box"), "MlpPolicy"),
            (echo(acts="multidiscrete"), "MlpPolicy"),
        ],
        4,
    ),
    ids=str,
)
def test_any_observations_and_actions_that_are_cloned_are_gone_on_with(environment, policy, here):
    clone = cloning(environment=environment, episodes=3, max_epochs=1, evaluation_episodes=0)

    train(curriculum(clone, needy(environment=environment), policy=policy, n_epochs=1), out="run", **pausing(4))

    assert losses("run")[:2] == [None, None] and all(np.isfinite(losses("run")[2:]))


def test_a_comparison_refuses_a_curriculum_that_lacks_them_of_itself(here):
    (here / "own.py").write_text(
        "from rlstages import *\n"
        "def curriculum(weight: float = 0.0):\n"
        "    stage = FineTuning('tune', Environment('toys:Always'), until=SuccessThreshold(0.5, window=4),\n"
        "                       max_steps=50_000, demonstration_loss=weight)\n"
        "    return Curriculum('own', agent=Agent(), stages=[stage])\n"
    )
    assert list(load_plan("own.py", {}, None, [], seeds=[0]).arms) == ["staged"]
    for given, own, where in (({"weight": "0.1"}, [], ""), ({}, ["more: weight=0.1"], "arm 'more': ")):
        with refused("stage-order", where=f"{where}stage 'tune'"):
            load_plan("own.py", given, None, own, seeds=[0])


def test_a_run_that_died_while_it_was_made_is_cleared_away_and_nothing_else(here):
    train(curriculum(CLONE), out="first")
    train(curriculum(needy()), out="run", initial="first", watch=lambda learner: "enough")
    for name in ("run.json", "events.jsonl"):
        (here / "run" / name).unlink()
    (here / "mine" / "demonstrations").mkdir(parents=True)
    for path in ("run", "mine"):
        clear_unborn(here / path)

    assert not (here / "run").exists() and (here / "mine" / "demonstrations").exists()
