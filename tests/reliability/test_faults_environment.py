"""Whatever an environment does wrong stops the run or is said once; what is on disk stays good, and the run goes on.

`pytest tests/reliability/test_faults_environment.py` is the environment's part of the table in docs/faults.md.
"""

import faulthandler
import json
import time

import faulty
import numpy as np
import pytest
from building import agent, lines, payloads
from refusing import refused

from rlstages import Curriculum, Environment, FineTuning, SuccessThreshold, resume, train
from rlstages.environments.reports import EnvironmentFault
from rlstages.environments.seeding import Purpose, episode_seed
from rlstages.events import RolloutFinished, RunFinished, Warned
from rlstages.storage.checkpoints import checkpoint_names, read_checkpoint
from rlstages.training import trainer

COPY, EPISODE, STEP = 2, 3, 4
COPIES, ROLLOUT = 3, 8
TIMEOUT = 4.0
PLACE = f"at step {STEP} of its episode {EPISODE}"
slow = pytest.mark.slow


@pytest.fixture(autouse=True)
def ends_in_time():
    """End the process if a test does not end by itself: nothing here may hang."""
    faulthandler.dump_traceback_later(300, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def saves_often(monkeypatch):
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0.0)


def environment(fault, form, file, step=STEP, **more):
    where = "faulty:faulty/Batch-v0" if form == "batched" else "faulty:Faulty"
    seed = episode_seed(0, 0, Purpose.TRAINING, COPY, EPISODE)
    return Environment(
        where, fault=fault, seed=seed, step=step, while_there=str(file), vectorize=form, step_timeout=TIMEOUT, **more
    )


def curriculum(where, **settings):
    until = SuccessThreshold(0.9, window=400)
    stage = FineTuning("tune", where, until=until, max_steps=240, critic_fit_steps=0, evaluation_episodes=0)
    policy = "MultiInputPolicy" if where.kwargs.get("keys") else "MlpPolicy"
    return Curriculum(
        "faulty", agent=agent(n_envs=COPIES, n_steps=ROLLOUT, batch_size=12, policy=policy, **settings), stages=[stage]
    )


def stops(plan, file, *said, trace=""):
    """Train until the fault, look at what is left, and go on when its cause is gone."""
    with pytest.raises(EnvironmentFault) as caught:
        train(plan, out="run")
    sentence = str(caught.value)
    for words in said:
        assert words in sentence, sentence
    assert sentence.endswith("The last checkpoint is of step 48; 'rlstages resume run' goes on from there.")
    assert trace in caught.value.trace and bool(trace) == bool(caught.value.trace), caught.value.trace

    failed = payloads("run", RunFinished)
    assert [payload.outcome for payload in failed] == ["failed"]
    # The log holds no absolute path, so the environment's arguments differ.
    assert failed[0].reason.partition("): ")[2] in sentence
    left = lines("run")
    leaves_good_weights()

    file.unlink()
    result = resume("run")
    assert result.outcome == "missed"
    taken = [payload.stage_steps for payload in payloads("run", RolloutFinished)]
    assert taken == list(range(24, 241, 24))
    kept = [line for line in left if line["type"] != "RunFinished"]
    assert lines("run")[: len(kept)] == kept
    assert [payload.outcome for payload in payloads("run", RunFinished)] == ["missed"]


def leaves_good_weights(path="run"):
    from pathlib import Path

    checkpoints = Path(path) / "checkpoints"
    state = read_checkpoint(checkpoints / checkpoint_names(checkpoints)[-1])
    weights = state["learner"]["policy"]
    assert weights and all(np.isfinite(value).all() for value in weights.values())


NUMBERS = {
    "nan reward": f"copy {COPY} gave the reward nan {PLACE}.",
    "inf reward": f"copy {COPY} gave the reward inf {PLACE}.",
    "nan observation": f"copy {COPY} gave a number in the observation that is not finite {PLACE}.",
    "inf observation": f"copy {COPY} gave a number in the observation that is not finite {PLACE}.",
}
SHAPES = {
    "wrong shape": "gave the observation in the shape (2,), where its space is Box(3,) of float32",
    "one number": "gave the observation in the shape (1,), where its space is Box(3,) of float32",
    "words": "gave an array of <U5 in the shape (3,) as the observation, where its space is Box(3,) of float32",
    "no reward": "gave the reward None, which is no number",
    "no info": "gave the info None, which is no dictionary",
    "four values": "returned 4 values from step(), not an observation, a reward, terminated, truncated and an info",
}
FAST = {
    ("nan reward", "in-process"),
    ("inf observation", "in-process"),
    ("nan observation", "batched"),
    ("nan observation", "subprocess"),
    ("one number", "in-process"),
    ("raises", "subprocess"),
    ("is killed", "subprocess"),
}


def cells(faults, forms=("in-process", "subprocess")):
    found = [(fault, form) for fault in faults for form in forms]
    return [pytest.param(*cell, marks=() if cell in FAST else slow, id=" ".join(cell)) for cell in found]


@pytest.mark.parametrize(("fault", "form"), cells(NUMBERS, ["in-process", "subprocess", "batched"][:2]))
def test_numbers_that_are_not_finite(fault, form, here):
    file = faulty.marker(here)
    stops(curriculum(environment(fault, form, file), normalize_observations=True), file, "Faulty(", NUMBERS[fault])


@pytest.mark.parametrize(("fault", "form"), cells(["nan reward", "nan observation", "inf observation"], ["batched"]))
def test_numbers_that_are_not_finite_in_a_batch(fault, form, here):
    file = faulty.marker(here)
    stops(curriculum(environment(fault, form, file)), file, "Batch-v0(", NUMBERS[fault])


@pytest.mark.parametrize(("fault", "form"), cells(["nan observation"]))
@pytest.mark.parametrize(("step", "place"), [(6, "at step 6 of its episode 3"), (0, "at step 0 of its episode 3")])
def test_the_last_and_the_first_observation_of_an_episode(step, place, fault, form, here):
    file = faulty.marker(here)
    plan = curriculum(environment(fault, form, file, step=step))
    stops(plan, file, f"copy {COPY} gave a number in the observation that is not finite {place}.")


@pytest.mark.parametrize(("fault", "form"), cells(["nan observation", "wrong shape"]))
def test_a_part_of_a_dictionary_is_named(fault, form, here):
    file = faulty.marker(here)
    said = {"nan observation": "a number in speed that is not finite", "wrong shape": "gave speed in the shape (2,)"}
    stops(curriculum(environment(fault, form, file, keys=True)), file, f"copy {COPY} ", said[fault], PLACE)


@pytest.mark.parametrize(("fault", "form"), cells(SHAPES))
def test_what_does_not_fit(fault, form, here):
    file = faulty.marker(here)
    stops(curriculum(environment(fault, form, file)), file, f"copy {COPY} {SHAPES[fault]}", PLACE)


@pytest.mark.parametrize(("fault", "form"), cells(["nan success"]))
def test_a_success_that_is_neither_true_nor_false(fault, form, here):
    file = faulty.marker(here)
    said = f"whether copy {COPY} succeeded cannot be told (info['is_success'] is nan, neither true nor false"
    stops(curriculum(environment(fault, form, file, step=6)), file, said, "at step 6 of its episode 3")


@pytest.mark.parametrize(("fault", "form"), cells(["raises"], ["in-process", "subprocess", "batched"]))
@pytest.mark.parametrize(("step", "call"), [(STEP, "step"), (0, "reset")])
def test_an_environment_that_raises_shows_its_own_traceback(step, call, fault, form, here):
    file = faulty.marker(here)
    who = "its batch of copies" if form == "batched" else f"copy {COPY}"
    said = [f"{who} raised RuntimeError: the motor is stuck in {call}()"]
    if form != "batched":
        said.append(f"at step {STEP if step else 6} of its episode {EPISODE if step else EPISODE - 1}")
    trace = 'faulty.py", line'
    stops(curriculum(environment(fault, form, file, step=step)), file, *said, trace=trace)


@pytest.mark.parametrize(("fault", "form"), cells(["exits"]))
def test_an_environment_that_ends_the_program(fault, form, here):
    file = faulty.marker(here)
    stops(curriculum(environment(fault, form, file)), file, "called sys.exit(3) in step()", PLACE, trace="sys.exit(3)")


@pytest.mark.parametrize(("fault", "form"), cells(["is killed", "exits at once"], ["subprocess"]))
def test_a_worker_that_dies(fault, form, here):
    file = faulty.marker(here)
    how = {
        "is killed": "was ended by SIGKILL, as the system does when memory runs out",
        "exits at once": "ended its own process, with exit code 7",
    }
    stops(curriculum(environment(fault, form, file)), file, f"copy {COPY} {how[fault]}", PLACE)


@pytest.mark.parametrize(
    ("fault", "form"),
    [*cells(["hangs"], ["in-process", "subprocess", "batched"]), *cells(["hangs in C"], ["subprocess"])],
)
def test_an_environment_that_never_comes_back(fault, form, here):
    file = faulty.marker(here)
    who = "its batch of copies" if form == "batched" else f"copy {COPY}"
    said = f"{who} has not come back from step() within 4 seconds and was stopped"
    started = time.monotonic()
    with refused("environment-failed", kind=EnvironmentFault):
        train(curriculum(environment(fault, form, file)), out="first")
    assert time.monotonic() - started < 120, "what hangs does so for ten minutes"
    stops(
        curriculum(environment(fault, form, file)),
        file,
        said,
        "raise Environment(step_timeout=...)",
        *([] if form == "batched" else [PLACE]),
        trace="" if form == "subprocess" else "time.sleep(600)",
    )


DOUBTFUL = {
    "huge reward": "gives a reward beyond 1e+10, which spoils the critic (first seen: 1e+30, from copy 2 at step 4",
    "wrong type": "gives the observation in another type than its space's float32; it is converted "
    "(first seen: float64, from copy 2 at step 4",
    "far observation": "gives numbers in the observation far out of its space's bounds (first seen: ",
}


@pytest.mark.parametrize(("fault", "form"), cells(DOUBTFUL))
def test_what_is_doubtful_is_said_once_and_training_goes_on(fault, form, here):
    file = faulty.marker(here)
    plan = curriculum(environment(fault, form, file), normalize_rewards=fault == "huge reward")

    assert train(plan, out="run").outcome == "missed"

    (warned,) = payloads("run", Warned)
    assert DOUBTFUL[fault] in warned.message, warned.message
    assert f"copy {COPY} at step {STEP} of its episode {EPISODE}" in warned.message
    leaves_good_weights()


@pytest.mark.parametrize("form", ["in-process", pytest.param("subprocess", marks=slow)])
def test_a_warning_is_not_given_again_when_the_run_goes_on(form, here):
    file = faulty.marker(here)
    where = environment("far observation", form, file)
    train(curriculum(where), out="run")
    resume("run", max_steps=480)

    assert len(payloads("run", Warned)) == 1


@pytest.mark.parametrize("form", ["in-process", pytest.param("subprocess", marks=slow)])
def test_a_huge_reward_stops_the_update_before_it_spoils_the_weights(form, here):
    file = faulty.marker(here)
    from rlstages.learners.algorithms.on_policy.protocol import LossNotFinite

    with refused("loss-not-finite", kind=LossNotFinite):
        train(curriculum(environment("huge reward", form, file)), out="run")

    assert "a reward beyond 1e+10" in payloads("run", Warned)[0].message
    leaves_good_weights()
    file.unlink()
    assert resume("run").outcome == "missed"


def test_the_log_tells_why_a_run_stopped(here, capsys):
    from rlstages.cli.showing import show_run

    file = faulty.marker(here)
    with refused("environment-failed", kind=EnvironmentFault):
        train(curriculum(environment("raises", "in-process", file)), out="run")

    show_run(here / "run", False)
    assert "failed: Faulty(" in capsys.readouterr().out
    show_run(here / "run", True)
    shown = json.loads(capsys.readouterr().out)
    assert shown["outcome"] == "failed" and "the motor is stuck" in shown["reason"]
