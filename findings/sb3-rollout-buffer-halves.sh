#!/bin/sh
# stable-baselines3 2.9.2: after train(), half of a rollout buffer is in another order than the other half.
#
# Expected: a callback may read model.rollout_buffer between two rollouts; all its arrays have shape (n_steps, n_envs).
# Happens: training joins the two axes in place, environment after environment, but only in observations, actions,
#   values, log_probs, advantages and returns. rewards and episode_starts stay as they were, step after step. With one
#   environment nobody notices. With several, flatten() of one array no longer belongs to flatten() of the other.
# Matters: what pairs returns with rewards or with starts of episodes is right in on_rollout_end, and wrong, without a
#   word, in on_rollout_start and after learn(). Below, the same two arrays of one rollout, whose values nothing has
#   changed, are correlated otherwise once training has been over them.
#
# Output seen:
#   before train(): observations (4, 3, 3), returns (4, 3), rewards (4, 3)
#   after train():  observations (12, 3), returns (12, 1), rewards (4, 3)
#   correlation of returns and rewards, both flattened: 0.77 before, 0.28 after
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet stable-baselines3==2.9.2 torch==2.13.0 gymnasium==1.4.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

torch.set_num_threads(1)
seen = []


def look(buffer):
    shapes = [np.shape(getattr(buffer, name)) for name in ("observations", "returns", "rewards")]
    together = float(np.corrcoef(buffer.returns.flatten(), buffer.rewards.flatten())[0, 1])
    seen.append((shapes, together))


class Look(BaseCallback):
    def _on_step(self):
        return True

    def _on_rollout_end(self):
        look(self.model.rollout_buffer)


model = PPO("MlpPolicy", make_vec_env("Pendulum-v1", 3, seed=0), n_steps=4, batch_size=12, seed=0, device="cpu")
model.learn(12, callback=Look())
look(model.rollout_buffer)
for when, (shapes, _) in zip(("before train():", "after train(): "), seen):
    print(when, ", ".join(f"{name} {shape}" for name, shape in zip(("observations", "returns", "rewards"), shapes)))
print(f"correlation of returns and rewards, both flattened: {seen[0][1]:.2f} before, {seen[1][1]:.2f} after")
assert seen[0][0] == [(4, 3, 3), (4, 3), (4, 3)], seen
assert seen[1][0] == [(12, 3), (12, 1), (4, 3)], seen
assert abs(seen[0][1] - seen[1][1]) > 0.1, seen
PYTHON
