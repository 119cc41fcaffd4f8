#!/bin/sh
# gymnasium 1.4.0: of the grid worlds of Toy Text, CliffWalking alone has no time limit.
#
# Expected: gym.make ends an episode of CliffWalking-v1 after some number of steps, as it does for FrozenLake-v1 (100)
#   and Taxi-v4 (200). A fall does not end one: it costs 100 and goes back to the start.
# Happens: the environment is registered without max_episode_steps. An episode goes on until the goal is found.
# Matters: a policy that walks against a wall, as untrained ones do that act deterministically, never ends its episode.
#   What waits for whole episodes (an evaluation, a monitor's mean return) then waits for good, and the mean of the
#   episodes that did end is one of the lucky ones. Give max_episode_steps to gym.make.
#
# Output seen:
#   CliffWalking-v1: None, FrozenLake-v1: 100, Taxi-v4: 200
#   5,000 steps against the wall: 0 episodes of CliffWalking-v1, 50 episodes of FrozenLake-v1
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet gymnasium==1.4.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import gymnasium as gym

names = ["CliffWalking-v1", "FrozenLake-v1", "Taxi-v4"]
limits = {name: gym.spec(name).max_episode_steps for name in names}
print(", ".join(f"{name}: {limit}" for name, limit in limits.items()))
ends = {}
# Left from the start, in both.
for name, left, settings in ((names[0], 3, {}), (names[1], 0, {"is_slippery": False})):
    env = gym.make(name, **settings)
    env.reset(seed=0)
    ends[name] = 0
    for _ in range(5_000):
        _, _, ended, cut, _ = env.step(left)
        if ended or cut:
            ends[name] += 1
            env.reset()
print("5,000 steps against the wall:", ", ".join(f"{ends[name]} episodes of {name}" for name in names[:2]))
assert limits == {names[0]: None, names[1]: 100, names[2]: 200}, limits
assert ends == {names[0]: 0, names[1]: 50}, ends
PYTHON
