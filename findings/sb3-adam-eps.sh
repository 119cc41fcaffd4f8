#!/bin/sh
# stable-baselines3 2.9.2: any optimizer_kwargs changes Adam's eps, too.
#
# Expected: PPO's policy builds Adam with eps=1e-5, and optimizer_kwargs, documented as "additional keyword arguments",
#   add to that. weight_decay=0.0 is Adam's own default, so asking for it should change nothing.
# Happens: the 1e-5 is set only where no optimizer_kwargs were given. With weight_decay=0.0 or fused=True, Adam gets
#   torch's own 1e-8, without a word.
# Matters: a comparison of "the same PPO with weight decay", or "but fused", compares two step sizes as well. Below, the
#   same seed ends with other weights, and with the same ones again once eps=1e-5 is given beside the other argument.
#
# Output seen:
#   no optimizer_kwargs:        eps=1e-05
#   weight_decay=0.0:           eps=1e-08, weights differ by at most 0.076 after 4 rollouts
#   fused=True:                 eps=1e-08, weights differ by at most 0.076 after 4 rollouts
#   weight_decay=0.0, eps=1e-5: eps=1e-05, weights differ by at most 0 after 4 rollouts
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet stable-baselines3==2.9.2 torch==2.13.0 gymnasium==1.4.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from stable_baselines3 import PPO


def trained(**policy_kwargs):
    torch.set_num_threads(1)
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=256, seed=0, device="cpu", policy_kwargs=policy_kwargs)
    model.learn(1024)
    weights = torch.cat([p.detach().ravel() for p in model.policy.parameters()])
    return model.policy.optimizer.defaults["eps"], weights


eps, weights = trained()
print(f"no optimizer_kwargs:        eps={eps:.0e}")
cases = {
    "weight_decay=0.0": dict(weight_decay=0.0),
    "fused=True": dict(fused=True),
    "weight_decay=0.0, eps=1e-5": dict(weight_decay=0.0, eps=1e-5),
}
seen = [eps]
apart = []
for name, kwargs in cases.items():
    other, moved = trained(optimizer_kwargs=kwargs)
    seen.append(other)
    apart.append(float((weights - moved).abs().max()))
    print(f"{name + ':':<27} eps={other:.0e}, weights differ by at most {apart[-1]:.2g} after 4 rollouts")
assert seen == [1e-5, 1e-8, 1e-8, 1e-5], seen
assert apart[0] > 0 and apart[2] == 0, apart
PYTHON
