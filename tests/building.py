"""Small curricula, learners and runs, shared by several test modules."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import toys
from gymnasium import spaces
from gymnasium.envs.classic_control import cartpole

from rlstages import (
    Agent,
    BehaviorCloning,
    Curriculum,
    Environment,
    Expert,
    FineTuning,
    RewardThreshold,
    SuccessThreshold,
)
from rlstages.environments.autoreset import Autoreset, autoreset_of
from rlstages.environments.make import make_environment, make_vec_env
from rlstages.learners.learner import Learner
from rlstages.storage.run_directory import read_events

TESTS = Path(__file__).parent
VECTOR_CARTPOLE = "gymnasium.envs.classic_control.cartpole:CartPoleVectorEnv"
RESETS_ITSELF = autoreset_of(getattr(cartpole, "CartPoleVectorEnv", None)) is Autoreset.NEXT_STEP
"""Whether gymnasium's own vector environments do, as they do since its version 1."""
QUICK = {"n_envs": 4, "n_steps": 16, "batch_size": 32, "n_epochs": 4, "network": (16,), "learning_rate": 1e-2}
CONTRARY, UNREACHED = Environment("toys:Contrary"), RewardThreshold(1e9)
HALF = SuccessThreshold(0.5, window=8, max_episodes=120)


def mostly_slow(cases, quick=0):
    """Return cases for `parametrize`, of which the first so many are part of the fast suite."""
    kept, rest = list(cases)[:quick], list(cases)[quick:]
    return kept + [pytest.param(*(c if type(c) is tuple else (c,)), marks=pytest.mark.slow) for c in rest]


def echo(**kwargs):
    return Environment("toys:Echo", **kwargs)


def agent(**settings):
    return Agent(settings.pop("algorithm", "PPO"), **{**QUICK, **settings})


def cloning(name="clone", environment=None, **settings):
    if "demonstrations" not in settings:
        settings.setdefault("expert", Expert("toys:tell", episodes=settings.pop("episodes", 12)))
    given = {"max_epochs": 3, "batch_size": 16, "learning_rate": 1e-2, "evaluation_episodes": 4}
    return BehaviorCloning(name, environment or echo(), **{**given, **settings})


def tuning(name="tune", environment=None, **settings):
    given = {"until": HALF, "max_steps": 4_000, "critic_fit_steps": 128, "evaluation_episodes": 4}
    return FineTuning(name, environment or echo(), **{**given, **settings})


def curriculum(*stages, name="tiny", **settings):
    more = {key: settings.pop(key) for key in ("held_out", "retention_share") if key in settings}
    return Curriculum(name, agent=agent(**settings), stages=list(stages), **more)


def pathological(**settings):
    """What is learned in either stage is forgotten in the other, and the second one's gate never opens."""
    settings = {"on_collapse": "return", "max_steps": 3_000, "on_timeout": "advance", **settings}
    return curriculum(
        tuning("echo", echo(), until=SuccessThreshold(0.8, window=16), max_steps=60_000, critic_fit_steps=0),
        tuning("contrary", CONTRARY, until=UNREACHED, critic_fit_steps=0, **settings),
        n_epochs=8,
        normalize_rewards=True,
    )


def learner_for(environment, who=None, seed=0):
    """Return a learner with the spaces of an environment, as its policy sees them."""
    env = make_vec_env(environment, 1, 0, 0)
    env.close()
    return Learner(who or agent(), env.observation_space, env.action_space, seed)


def environment_spaces(environment):
    env = make_environment(environment)
    env.close()
    return env.observation_space, env.action_space


def payloads(path, kind=None):
    found = [event.payload for event in read_events(Path(path))]
    return found if kind is None else [payload for payload in found if isinstance(payload, kind)]


class Recorder:
    """A tracker that keeps what it was told."""

    def __init__(self):
        self.events, self.closed = [], 0

    def __call__(self, event):
        self.events.append(event)

    def close(self):
        self.closed += 1

    def payloads(self, kind):
        return [event.payload for event in self.events if isinstance(event.payload, kind)]


def surroundings(home, **more):
    """The variables of a process of its own: it finds the toys, and leaves the home directory alone."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    return {**kept, "HOME": str(home), "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


COMMAND = "import sys; from rlstages.cli import main; sys.argv[0] = 'rlstages'; main()"


def rlstages(*arguments, cwd, before="", timeout=300):
    """Run the command line in a process of its own, after the statements `before`."""
    command = [sys.executable, "-c", before + "\n" + COMMAND, *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=surroundings(cwd), capture_output=True, text=True, timeout=timeout, check=False
    )


def lines(path):
    """The whole lines of a run's event log, as they are now."""
    file = Path(path) / "events.jsonl"
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_bytes().split(b"\n")[:-1]]


DISCRETE_VECTOR = (spaces.Box(-1.0, 1.0, (3,), "float32"), toys.ACTIONS["discrete"])


def descendants(pid):
    """The processes below a process."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, file.read_text().split()):
            found += [child, *descendants(child)]
    return found


def is_alive(pid):
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Stop:
    """Interrupts the run, as Ctrl-C does, at an event of a kind."""

    def __init__(self, kind, number=1):
        self.kind, self.left = kind, number

    def __call__(self, event):
        if isinstance(event.payload, self.kind):
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(signal.SIGINT)

    def close(self):
        pass
