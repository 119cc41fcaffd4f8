"""Export of a run's final policy to a file: `rlstages.export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlstages.errors import InputError, require
from rlstages.learners.learner import save_weights
from rlstages.play.saved_policies import load_learner, model_in_own_units
from rlstages.reproducibility import one_at_a_time
from rlstages.storage.checkpoints import make_parent

Form = Literal["sb3", "safetensors"]
ENDINGS: dict[str, Form] = {".zip": "sb3", ".safetensors": "safetensors"}


@dataclass(frozen=True)
class Exported:
    """An exported policy.

    Attributes:
        path: Path of the file.
        form: `"sb3"` for a model of stable-baselines3, or `"safetensors"` for the weights of its policy.
        algorithm: Class of stable-baselines3 whose `load` reads the model.
        digest: SHA-256 of the weights in a safetensors file, or `None` for a model.
        needs_rlstages: Whether a model can be loaded only if rlstages is installed.
    """

    path: Path
    form: Form
    algorithm: str
    digest: str | None
    needs_rlstages: bool


@one_at_a_time("the export of a policy")
def export(run: Path | str, out: Path | str, form: Form | None = None) -> Exported:
    """Write a run's final policy to a file. The exported policy acts in the environment's own units.

    Args:
        run: Run directory.
        out: File to write, with the ending `.zip` or `.safetensors`.
        form: Form of the file. By default it follows from the ending.

    Raises:
        InputError: If the file exists, its ending does not fit the form, or no stage of the run has ended.
    """
    run, out = Path(run), Path(out)
    require(not out.exists(), f"{out} is there already; give another --out.", "out-taken", out)
    written = ENDINGS.get(out.suffix)
    endings = " or ".join(ending for ending, what in ENDINGS.items() if form in (None, what))
    if written is None or form not in (None, written):
        wanted = "" if form is None else f"for --format {form} "
        sentence = f"--out is {out.name}; {wanted}give a name that ends in {endings}."
        raise InputError(sentence, "option-invalid", name="--out", value=out.name)
    make_parent(out)
    learner = load_learner(run)
    model = model_in_own_units(learner)
    digest = None
    if written == "sb3":
        model.save(out)
    else:
        digest = save_weights(model.policy.state_dict(), out)
    needs = written == "sb3" and learner.agent.normalize_observations
    return Exported(out, written, type(model).__name__, digest, needs)
