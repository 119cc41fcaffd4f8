#!/bin/sh
# gymnasium 1.4.0: what copy 0 of make_vec("CartPole-v1") starts from depends on how many copies there are.
#
# Expected: reset(seed=3) of a vector environment gives copy i the seed 3 + i, so copy 0 starts as the single
#   environment does with seed 3, and adding copies does not change it. SyncVectorEnv behaves so.
# Happens: without vectorization_mode, make_vec takes CartPole's own batched form, which draws the starts of all copies
#   from one generator, coordinate by coordinate. Other start states than the single environment, and all of them
#   change with num_envs. 5 of the 63 registered ids have such a form; MountainCar-v0 has none and keeps seeds per copy.
# Matters: "seed 3" of an evaluation with 8 copies and with 16 are other episodes; a paired comparison, or a replay of
#   one episode by its seed in a single environment, is silently wrong. Ask for vectorization_mode="sync".
#
# Output seen:
#   batched forms: CartPole-v0, CartPole-v1, phys2d/CartPole-v0, phys2d/CartPole-v1, phys2d/Pendulum-v0 (5 of 63 ids)
#   single environment     : starts at        [-0.0414 -0.0263  0.0301  0.0082]
#   SyncVectorEnv      of 2: copy 0 starts at [-0.0414 -0.0263  0.0301  0.0082]
#   SyncVectorEnv      of 4: copy 0 starts at [-0.0414 -0.0263  0.0301  0.0082]
#   CartPoleVectorEnv  of 2: copy 0 starts at [-0.0414  0.0301 -0.0406 -0.0021]
#   CartPoleVectorEnv  of 4: copy 0 starts at [-0.0414 -0.0406  0.0235 -0.0069]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet gymnasium==1.4.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import gymnasium as gym
import numpy as np


def first(num_envs, **mode):
    envs = gym.make_vec("CartPole-v1", num_envs=num_envs, **mode)
    start = envs.reset(seed=3)[0][0]
    print(f"{type(envs).__name__:<18} of {num_envs}: copy 0 starts at {np.round(start, 4)}")
    return start


batched = [name for name, spec in gym.registry.items() if spec.vector_entry_point is not None]
print(f"batched forms: {', '.join(batched)} ({len(batched)} of {len(gym.registry)} ids)")
single = gym.make("CartPole-v1").reset(seed=3)[0]
print(f"single environment     : starts at        {np.round(single, 4)}")
sync = [first(n, vectorization_mode="sync") for n in (2, 4)]
default = [first(n) for n in (2, 4)]
other = gym.make_vec("MountainCar-v0", num_envs=4)
assert (len(batched), len(gym.registry)) == (5, 63)
assert np.array_equal(other.reset(seed=3)[0][0], gym.make("MountainCar-v0").reset(seed=3)[0])
assert all(np.array_equal(start, single) for start in sync)
assert not any(np.allclose(start, single) for start in default)
assert not np.allclose(*default)
PYTHON
