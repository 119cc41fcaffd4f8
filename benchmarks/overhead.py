"""What staging costs: the share of a run's wall-clock that goes into checkpoints, events, trackers and evaluations.

    python benchmarks/overhead.py rooms --seed 0 --track offline

Rollouts and updates are what anyone pays who trains; confirmations are training's own episodes, played frozen. The rest
is the price of staging. Times are taken inside one run, around the calls; the last line is the size of a checkpoint.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from rlstages import load_curriculum, train
from rlstages.play.examiner import Examiner
from rlstages.play.retention import Retention
from rlstages.stages.fine_tuning.runner import FineTuningRunner
from rlstages.storage.run_directory import RunDirectory
from rlstages.training import session, trainer

spent: dict[str, float] = defaultdict(float)
calls: dict[str, int] = defaultdict(int)


def timed(kind: str, owner: Any, name: str) -> None:
    """Add the time spent in a method to a kind of cost."""
    inner = getattr(owner, name)

    @functools.wraps(inner)
    def around(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return inner(*args, **kwargs)
        finally:
            spent[kind] += time.perf_counter() - started
            calls[kind] += 1

    setattr(owner, name, around)


def main() -> None:
    """Train once and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--track", default="offline", choices=["auto", "online", "offline", "none"])
    options = parser.parse_args()
    timed("rollouts and updates", FineTuningRunner, "_train")
    timed("critic fit", FineTuningRunner, "_fit_critic")
    timed("confirmations", Examiner, "judge")
    timed("evaluations before and after stages", Examiner, "play")
    timed("scores in all environments between stages", Retention, "step")
    timed("checkpoints", trainer.Trainer, "save")
    timed("events and trackers", session.Session, "emit")
    timed("events, of these", RunDirectory, "append")
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory) / "run"
        started = time.perf_counter()
        result = train(load_curriculum(options.name), seed=options.seed, out=run, track=options.track, console=True)
        whole = time.perf_counter() - started
        newest = sorted(path for path in (run / "checkpoints").iterdir() if path.is_dir())[-1]
        size = sum(file.stat().st_size for file in newest.iterdir())
    print(f"\n{options.name}, seed {options.seed}: {result.outcome} in {whole:.1f} s")
    for kind, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"  {kind:40s} {seconds:8.2f} s  {100 * seconds / whole:5.2f} %  {calls[kind]:6d} calls")
    print(f"  a checkpoint: {size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
