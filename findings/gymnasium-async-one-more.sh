#!/bin/sh
# gymnasium 1.4.0: AsyncVectorEnv makes one environment more than it is asked for, in the calling process.
#
# Expected: AsyncVectorEnv([make] * n) makes n environments, each in a process of its own, as its documentation says. The
#   calling process makes none, so that what an environment needs (a licence, a port, a window, a simulator's threads) is
#   needed n times, and only there.
# Happens: the calling process first makes one more from the first function, to read its spaces, and closes it before the
#   workers start. Giving observation_mode a space of one's own does not change that.
# Matters: an environment that may exist once on a machine, or that leaves threads or a GPU context behind when it is
#   closed, fails or is forked in that state, although each worker alone would do. A file or counter that an environment
#   writes when it is made counts n + 1. Whoever chose processes because making is slow or unsafe pays for it in the
#   training process all the same. SyncVectorEnv makes n.
#
# Output seen:
#   AsyncVectorEnv of 3: made 4, of these 1 in the calling process
#   AsyncVectorEnv of 3, space given: made 4, of these 1 in the calling process
#   SyncVectorEnv of 3: made 3, of these 3 in the calling process
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet gymnasium==1.4.0 numpy==2.4.6
cat > "$folder/made.py" <<'PYTHON'
import os
from pathlib import Path

import gymnasium as gym

LOG = Path(__file__).with_name("log")


class Noted(gym.Env):
    """Writes down in which process it is made."""

    observation_space = gym.spaces.Discrete(2)
    action_space = gym.spaces.Discrete(2)

    def __init__(self):
        with LOG.open("a") as file:
            file.write(f"{os.getpid()}\n")

    def reset(self, *, seed=None, options=None):
        return 0, {}

    def step(self, action):
        return 0, 0.0, False, False, {}


def made(what, make):
    """Return how many were made, and how many of them here."""
    LOG.write_text("")
    envs = make([Noted] * 3)
    envs.reset(seed=0)
    envs.close()
    processes = [int(line) for line in LOG.read_text().split()]
    here = processes.count(os.getpid())
    print(f"{what}: made {len(processes)}, of these {here} in the calling process")
    return len(processes), here


if __name__ == "__main__":
    space = gym.spaces.Discrete(2)
    given = (gym.spaces.MultiDiscrete([2, 2, 2]), space)
    found = [
        made("AsyncVectorEnv of 3", gym.vector.AsyncVectorEnv),
        made(
            "AsyncVectorEnv of 3, space given",
            lambda makers: gym.vector.AsyncVectorEnv(makers, observation_mode=given),
        ),
        made("SyncVectorEnv of 3", gym.vector.SyncVectorEnv),
    ]
    assert found == [(4, 1), (4, 1), (3, 3)], found
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/made.py"
