"""Whole runs in processes of their own: stopped, killed and resumed, and written by a newcomer."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from building import COMMAND, descendants, is_alive, lines, payloads, rlstages, surroundings

from rlstages.events import EpochFinished, Evaluated, RolloutFinished, RunFinished, StageFinished, StageStarted
from rlstages.storage.run_directory import read_events

LADDER = """
from rlstages import *

def curriculum(vectorize: str = "in-process"):
    longer, shorter = (Environment("toys:Echo", steps=n, vectorize=vectorize) for n in (8, 6))
    half, most = (SuccessThreshold(share, window=60) for share in (0.5, 0.9))
    return Curriculum(
        "ladder",
        agent=Agent("PPO", n_envs=4, n_steps=16, batch_size=32, n_epochs=2, network=(16,), learning_rate=3e-3),
        stages=[
            BehaviorCloning("clone", longer, expert=Expert("toys:tell", episodes=12), max_epochs=12, batch_size=16,
                            patience=12, learning_rate=2e-3, evaluation_episodes=8),
            FineTuning("first", longer, until=half, max_steps=20_000, critic_fit_steps=640, evaluation_episodes=8),
            FineTuning("second", shorter, until=most, max_steps=20_000, evaluation_episodes=8),
        ],
    )
"""
# Every step is saved, so that what a kill may cost is known.
ALWAYS_SAVED = "from rlstages.training import trainer; trainer.CHECKPOINT_SECONDS = 0.0"


class Session:
    """A command in a process group of its own, watched through the run's event log."""

    def __init__(self, *arguments, cwd, run):
        command = [sys.executable, "-c", f"{ALWAYS_SAVED}\n{COMMAND}", *arguments, "--track", "none"]
        self.run = cwd / run
        self.known = len(lines(self.run))
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=surroundings(cwd),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_for(self, wanted, seconds=120):
        """Wait until the log holds a line of this session that is wanted."""
        deadline = time.monotonic() + seconds
        while not any(wanted(line) for line in lines(self.run)[self.known :]):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def interrupt(self):
        os.killpg(self.process.pid, signal.SIGINT)
        return self.end()

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.communicate()
        return len(lines(self.run))

    def end(self, seconds=240):
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err


def is_epoch(number):
    return lambda line: line["type"] == "EpochFinished" and line["epoch"] >= number


def is_rollout(stage, phase, steps=0):
    return lambda line: (
        (line["type"], line["stage_name"], line.get("phase")) == ("RolloutFinished", stage, phase)
        and (line["stage_steps"] >= steps)
    )


def is_end(stage):
    return lambda line: (line["type"], line["stage_name"]) == ("StageFinished", stage)


def has_a_whole_history(run):
    """Every stage once and in order, no epoch and no rollout twice, and steps that never go back."""
    events = list(read_events(run))
    steps = [event.global_step for event in events]
    assert steps == sorted(steps)
    for kind in (StageStarted, StageFinished):
        assert [e.stage_name for e in events if isinstance(e.payload, kind)] == ["clone", "first", "second"]
    epochs = [payload.epoch for payload in payloads(run, EpochFinished)]
    assert epochs == list(range(1, len(epochs) + 1))
    for stage in ("first", "second"):
        inside = [e.payload for e in events if isinstance(e.payload, RolloutFinished) and e.stage_name == stage]
        taken = [payload.stage_steps for payload in inside]
        assert taken == sorted(set(taken))
        fits = [payload.phase for payload in inside].count("critic fit")
        assert 2 <= fits <= 10 if stage == "first" else fits == 0
    assert len(payloads(run, Evaluated)) == 4
    assert [payload.outcome for payload in payloads(run, StageFinished)] == ["completed", "reached", "reached"]
    assert payloads(run, RunFinished)[-1].outcome == "reached"


def plan(where):
    (where / "ladder.py").write_text(LADDER)
    return "ladder.py"


MOMENTS = [
    is_epoch(3),
    is_epoch(7),
    is_end("clone"),
    is_rollout("first", "critic fit", 128),
    is_rollout("first", "training"),
    is_rollout("first", "confirming"),
    is_end("first"),
    is_rollout("second", "training", 128),
]


@pytest.mark.slow
@pytest.mark.parametrize(("vectorize", "moments"), [("in-process", MOMENTS), ("subprocess", MOMENTS[3:5])])
def test_a_run_that_is_killed_again_and_again_has_the_history_of_one_that_was_not(vectorize, moments, tmp_path):
    arguments = ["train", plan(tmp_path), "--out", "run", "-p", f"vectorize={vectorize}"]
    kept = []
    for moment in moments:
        session = Session(*arguments, cwd=tmp_path, run="run")
        session.wait_for(moment)
        left = session.kill()
        arguments = ["resume", "run"]
        kept.append((left, lines(tmp_path / "run")[:left]))

    code, out, err = Session(*arguments, cwd=tmp_path, run="run").end()

    assert code == 0, err
    assert "The curriculum is done." in out
    has_a_whole_history(tmp_path / "run")
    whole = lines(tmp_path / "run")
    for left, before in kept:
        # A kill costs what came after the last step, and nothing before it.
        same = next((n for n, (one, two) in enumerate(zip(before, whole, strict=False)) if one != two), left)
        assert left - same <= 4


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_run(tmp_path):
    session = Session("train", plan(tmp_path), "--out", "run", "-p", "vectorize=subprocess", cwd=tmp_path, run="run")
    session.wait_for(is_rollout("first", "critic fit"))
    workers = descendants(session.process.pid)
    assert len(workers) >= 8

    session.kill()

    deadline = time.monotonic() + 20
    while any(is_alive(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("vectorize", "moment"),
    [
        ("in-process", is_epoch(2)),
        ("in-process", is_rollout("first", "critic fit")),
        ("subprocess", is_rollout("first", "training")),
    ],
    ids=["cloning", "critic fit", "training with workers"],
)
def test_ctrl_c_finishes_the_step_saves_and_exits_with_130(moment, vectorize, tmp_path):
    arguments = ["train", plan(tmp_path), "--out", "run", "-p", f"vectorize={vectorize}"]
    session = Session(*arguments, cwd=tmp_path, run="run")
    session.wait_for(moment)

    code, out, err = session.interrupt()

    assert code == 130
    assert err == ""
    assert "Go on: rlstages resume run" in out
    assert payloads(tmp_path / "run", RunFinished)[-1].outcome == "interrupted"
    left = lines(tmp_path / "run")
    code, out, err = Session("resume", "run", cwd=tmp_path, run="run").end()
    assert code == 0, err
    assert lines(tmp_path / "run")[: len(left)] == left
    has_a_whole_history(tmp_path / "run")


NEWCOMER = '''
"""A task of one's own, in one file."""

import gymnasium as gym
import numpy as np

from rlstages import Agent, BehaviorCloning, Curriculum, Environment, Expert, FineTuning, SuccessThreshold


class Thermostat(gym.Env):
    """Heat or wait; the room must end near the temperature that is asked for."""

    observation_space = gym.spaces.Box(-50.0, 50.0, (2,), np.float64)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, leak=0.5):
        self.leak = leak

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.room = 0, 10.0
        self.wanted = self.np_random.uniform(15.0, 25.0)
        return self._look(), {}

    def step(self, action):
        self.time += 1
        self.room += 2.0 * action - self.leak
        off = abs(self.room - self.wanted)
        return self._look(), -off / 10, False, self.time == 25, {"off": off}

    def _look(self):
        return np.array([self.room, self.wanted])


class OnlyTheDifference(gym.ObservationWrapper):
    def __init__(self, env):
        super().__init__(env)
        self.observation_space = gym.spaces.Box(-50.0, 50.0, (1,), np.float64)

    def observation(self, observation):
        return observation[:1] - observation[1:]


def heater(env):
    return lambda observation: int(observation[0] < 0)


def is_warm(info, episode_return, length):
    return info["off"] < 2.5


def curriculum(workers: bool = False, leak: float = 0.9):
    form = "subprocess" if workers else "auto"

    def room(**physics):
        return Environment(Thermostat, wrappers=[OnlyTheDifference], success=is_warm, vectorize=form, **physics)

    return Curriculum(
        "thermostat",
        agent=Agent("PPO", n_envs=4, n_steps=32, batch_size=64, network=(16,), learning_rate=3e-3,
                    normalize_observations=True),
        stages=[
            BehaviorCloning("copy", room(), expert=Expert(heater, episodes=10), until=SuccessThreshold(0.6)),
            FineTuning("draughty", room(leak=leak), until=SuccessThreshold(0.8), max_steps=60_000,
                       critic_fit_steps=1_024),
        ],
    )
'''


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["false", "true"])
def test_a_newcomers_file_trains_without_a_change_to_ours(workers, tmp_path):
    (tmp_path / "my_thermostat.py").write_text(NEWCOMER)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    trained = rlstages(
        "train", "my_thermostat.py", "-p", f"workers={workers}", "--out", "run", "--track", "none", cwd=tmp_path
    )
    scored = rlstages("evaluate", tmp_path / "run", "--episodes", "20", "--json", cwd=elsewhere)

    assert trained.returncode == 0, trained.stderr
    assert [payload.outcome for payload in payloads(tmp_path / "run", StageFinished)] == ["reached", "reached"]
    assert scored.returncode == 0, scored.stderr
    assert all(row["success"] > 0.5 for row in json.loads(scored.stdout)["scores"])


@pytest.mark.slow
def test_a_newcomers_script_trains_when_it_is_run(tmp_path):
    ending = textwrap.dedent(
        """
        if __name__ == "__main__":
            from rlstages import train

            result = train(curriculum(workers=True), out="run")
            print(result.outcome, list(result.stages))
        """
    )
    (tmp_path / "my_script.py").write_text(NEWCOMER + ending)

    done = subprocess.run(
        [sys.executable, "my_script.py"],
        cwd=tmp_path,
        env=surroundings(tmp_path),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.stdout == "reached ['copy', 'draughty']\n", done.stderr
