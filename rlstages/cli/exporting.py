"""`rlstages export`."""

from __future__ import annotations

from pathlib import Path

from rlstages.errors import require
from rlstages.storage.checkpoints import make_parent

ENDINGS = {".zip": "sb3", ".safetensors": "safetensors"}


def export_policy(run: Path, out: Path, form: str | None) -> None:
    """Write a run's final policy as a stable-baselines3 zip or as safetensors, as `form` or the ending says."""
    require(not out.exists(), f"{out} is there already; give another --out.")
    written = ENDINGS.get(out.suffix)
    endings = " or ".join(ending for ending, what in ENDINGS.items() if form in (None, what))
    require(
        written is not None and form in (None, written),
        f"--out is {out.name}; {'' if form is None else f'for --format {form} '}give a name that ends in {endings}.",
    )
    make_parent(out)
    from rlstages.cli.compiler import leave_compiler_out
    from rlstages.learners.learner import save_weights
    from rlstages.play.saved_policies import load_learner, model_in_own_units
    from rlstages.reproducibility import one_at_a_time

    leave_compiler_out()
    with one_at_a_time("the export of a policy"):
        learner = load_learner(run)
        model = model_in_own_units(learner)
    if written == "sb3":
        model.save(out)
        name = type(model).__name__
        also = "; rlstages must be installed to load it" if learner.agent.normalize_observations else ""
        print(f"{out}: load it with stable_baselines3.{name}.load({str(out)!r}){also}")
    else:
        print(f"{out}: sha256 {save_weights(model.policy.state_dict(), out)[:12]}")
