"""Trainings take turns in a process, and its random generators stay where the caller had them."""

import logging
import os
import random
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from building import Recorder, agent, cloning, curriculum, echo, learner_for, payloads, tuning
from refusing import refused

from rlstages import Environment, Expert, load_policy, resume, train
from rlstages.events import StageFinished, StageStarted
from rlstages.play.saved_policies import evaluate
from rlstages.reproducibility import one_at_a_time, random_state
from rlstages.training.start import check


def drawn():
    """The next number of each global generator."""
    return random.random(), float(np.random.random()), float(torch.rand(()))


@pytest.fixture
def untouched():
    """A check that the generators are where they were, and the number of threads too."""
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(7)
    state, threads = random_state(), torch.get_num_threads()

    def compare():
        np.testing.assert_equal(random_state(), state)
        assert torch.get_num_threads() == threads and torch.initial_seed() == 7

    return compare


def digests(path):
    return [end.digest for end in payloads(path, StageFinished)]


def tiny(engine="torch"):
    return curriculum(cloning(), tuning(), engine=engine)


@pytest.mark.slow
def test_draws_between_trainings_differ(here):
    found = []
    for trial in range(3):
        found.append(drawn())
        train(tiny(), seed=0, out=str(trial))

    assert len({number for numbers in found for number in numbers}) == 9
    assert digests("0") == digests("1") == digests("2")


def test_whatever_is_done_with_a_run_leaves_the_generators(here, untouched):
    train(tiny(), out="run", watch=lambda learner: "enough" if learner.global_step else None)
    untouched()
    resume("run")
    untouched()
    load_policy("run")
    untouched()
    evaluate(here / "run", 4, 0)
    untouched()
    check(tiny(), None, False)
    untouched()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_a_run_that_fails_leaves_the_generators(here, untouched, error):
    def fail(event):
        if isinstance(event.payload, StageStarted) and event.stage_index == 1:
            raise error

    fail.close = lambda: None

    with pytest.raises(error):
        train(tiny(), out="run", trackers=[fail])
    untouched()
    with refused("import-failed", where="stage 'tune': nowhere", name="nowhere"):
        train(curriculum(tuning(environment=Environment("nowhere:Env"))), out="other")
    untouched()
    # Nobody's turn is left over.
    assert resume("run").outcome == "reached"


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_two_threads_train_one_after_another_as_each_would_alone(here, caplog, engine):
    def go(place, seed):
        train(tiny(engine), seed=seed, out=place)

    for seed in (0, 1):
        go(f"alone{seed}", seed)
    threads = [threading.Thread(target=go, args=(f"both{seed}", seed)) for seed in (0, 1)]
    with caplog.at_level(logging.WARNING, "rlstages.reproducibility"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert digests("alone0") == digests("both0") != digests("alone1") == digests("both1") != []
    (said,) = caplog.messages
    assert said.startswith("train() waits for train() in another thread")


def test_a_policy_is_loaded_in_another_thread_when_the_training_is_over(here, caplog):
    train(tiny(), out="run")
    order = []
    thread = threading.Thread(target=lambda: order.append(load_policy("run")))

    def begin(event):
        if isinstance(event.payload, StageStarted) and event.stage_index == 0:
            thread.start()
            thread.join(0.3)
            order.append("training")

    begin.close = lambda: None
    train(tiny(), seed=1, out="other", trackers=[begin])
    thread.join()

    assert order[0] == "training" and len(order) == 2
    assert caplog.messages == [m for m in caplog.messages if m.startswith("load_policy() waits for train()")] != []


def nest(env):
    train(tiny(), out="nested")


def ask(env):
    """An expert that asks another run's policy, which its user loads and scores."""
    policy = load_policy("before")
    evaluate(Path("before"), 2, 0, [echo()])
    return lambda seen: policy.predict(seen, deterministic=True)[0]


def test_a_training_in_the_midst_of_another_is_refused(here):
    with refused("expert-invalid", where="stage 'clone': test_reproducibility:nest"):
        train(curriculum(cloning(expert=Expert(nest)), tuning()), out="run")

    with refused("call-misplaced", name="resume()"):
        train(tiny(), out="other", watch=lambda learner: resume("run"))
    assert not (here / "nested").exists()


@pytest.mark.slow
def test_a_policy_may_be_loaded_and_scored_in_the_midst_of_a_training(here):
    train(tiny(), seed=3, out="before")
    with_a_policy = curriculum(cloning(expert=Expert(ask, episodes=4)), tuning())

    train(with_a_policy, out="run")

    class Looking(Recorder):
        def __call__(self, event):
            super().__call__(event)
            load_policy("before")

    train(with_a_policy, out="looked at", trackers=[Looking()])
    assert digests("run") == digests("looked at") != []


def test_a_child_of_a_training_process_may_train(here):
    """A fork takes the lock along, but not the thread that would let go of it."""
    found = []

    def begin(event):
        if not found:
            child = os.fork()
            if child == 0:
                with one_at_a_time("train()", inside=False):
                    os._exit(5)
            found.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    begin.close = lambda: None
    train(tiny(), out="run", trackers=[begin])

    assert found == [5]


def test_making_a_learner_moves_the_generators_and_a_turn_puts_them_back(untouched):
    with one_at_a_time("a test"):
        learner_for(echo(), agent(), seed=1)
        moved = drawn()

    untouched()
    assert moved != drawn()
