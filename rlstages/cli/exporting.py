"""`rlstages export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rlstages.cli.compiler import leave_compiler_out

if TYPE_CHECKING:
    from rlstages.play.exporting import Form


def export_policy(run: Path, out: Path, form: Form | None) -> None:
    """Write a run's final policy, and print how to load the file."""
    leave_compiler_out()
    from rlstages.play.exporting import export

    done = export(run, out, form)
    if done.digest is None:
        also = "; rlstages must be installed to load it" if done.needs_rlstages else ""
        print(f"{out}: load it with stable_baselines3.{done.algorithm}.load({str(out)!r}){also}")
    else:
        print(f"{out}: sha256 {done.digest[:12]}")
