"""`rlstages export`."""

from __future__ import annotations

from pathlib import Path

from rlstages.errors import require
from rlstages.storage.checkpoints import make_parent


def export_policy(run: Path, out: Path, form: str) -> None:
    """Write a run's final policy as a stable-baselines3 zip or as safetensors."""
    require(not out.exists(), f"{out} is there already; give another --out.")
    ending = {"sb3": ".zip", "safetensors": ".safetensors"}[form]
    require(out.suffix == ending, f"--out is {out.name}; for this format give a name that ends in {ending}.")
    make_parent(out)
    from rlstages.policies import load_learner

    learner = load_learner(run)
    if form == "sb3":
        learner.model.save(out)
        name = type(learner.model).__name__
        also = "; rlstages must be installed to load it" if learner.agent.normalize_observations else ""
        print(f"{out}: load it with stable_baselines3.{name}.load({str(out.name)!r}){also}")
    else:
        print(f"{out}: sha256 {learner.save_policy(out)[:12]}")
