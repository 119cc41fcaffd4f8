"""Whole runs by this version and by an earlier one, which must end with the same bits and tell the same.

    python benchmarks/unchanged.py --before 7b1f3a2
    python benchmarks/unchanged.py --before 7b1f3a2 rooms cartpole --engines auto --most-steps 21000

For every curriculum, seed and engine both versions train in a process of one thread. Compared are the digests of the
policies that the stages end with, and the event logs line by line, but for times. `--but` names kinds of events that
are not compared, and `--but-fields` fields, wherever they are, or in one kind of event as `Kind.field`. Of the first
event, which holds what was asked for and the versions of packages, only the engine is compared. A run that differs is
shown with the fields of its first lines that do, and the exit code is 1. `--keep DIR` makes runs of the earlier version
once, and takes them from there the next time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import product, zip_longest
from pathlib import Path
from typing import Any

from whole_run import HERE, importing, taken_out

CURRICULA = ["rooms", "cartpole", "pointmaze", "minigrid-multiroom", "minigrid-doorkey", "lunarlander"]
TIMES = {"time", "seconds", "steps_per_second"}
CHILD = """
import sys
from dataclasses import replace
from rlstages import load_curriculum, train
name, seed, engine, most, out = sys.argv[1:]
plan = load_curriculum(name)
stages = plan.stages
if most:
    stages = [
        replace(s, max_steps=min(s.max_steps, int(most)), on_timeout="advance") if hasattr(s, "max_steps") else s
        for s in stages
    ]
train(replace(plan, agent=replace(plan.agent, engine=engine), stages=stages), seed=int(seed), out=out)
"""


def main() -> None:
    """Run, compare, and say what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=CURRICULA, help="of built-in curricula; all by default")
    parser.add_argument("--before", required=True, metavar="COMMIT")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--engines", nargs="+", default=["numpy", "torch"], choices=["auto", "numpy", "torch"])
    parser.add_argument("--most-steps", type=int, metavar="N", help="of each stage, for a shorter look")
    parser.add_argument("--but", nargs="+", default=[], metavar="KIND", help="events that are not compared")
    parser.add_argument("--but-fields", nargs="+", default=[], metavar="FIELD", help="what is not compared either")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="of the runs of the earlier version")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    most = str(options.most_steps or "")
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(options.jobs) as pool:
        place = Path(temporary)
        kept = (options.keep or place / "kept").resolve() / "-".join(filter(None, [options.before, most]))
        kept.mkdir(parents=True, exist_ok=True)
        variables = {
            "before": importing(taken_out(options.before, place), place / "before-path"),
            "after": importing(HERE, place / "after-path"),
        }

        def compared(case: tuple[str, int, str]) -> list[str]:
            name, seed, engine = case
            logs = []
            for version, folder in (("before", kept), ("after", place)):
                out = folder / f"{name}-{seed}-{engine}-{version}"
                if not (out / "done").exists():
                    shutil.rmtree(out, ignore_errors=True)
                    command = [sys.executable, "-c", CHILD, name, str(seed), engine, most, str(out)]
                    ended = subprocess.run(
                        command, env=variables[version], cwd=place, check=False, capture_output=True, text=True
                    )
                    if ended.returncode:
                        return [f"{version}: {(ended.stderr.strip().splitlines() or ['no output'])[-1]}"]
                    (out / "done").touch()
                logs.append(told(out, set(options.but), set(options.but_fields)))
            return differences(*logs)

        cases = list(product(options.names, options.seeds, options.engines))
        changed = 0
        for (name, seed, engine), found in zip(cases, pool.map(compared, cases), strict=True):
            changed += bool(found)
            print(f"{name}, seed {seed}, {engine}: {'the same' if not found else 'CHANGED'}", flush=True)
            for line in found[:8]:
                print(f"  {line}", flush=True)
    print(f"{len(cases) - changed} of {len(cases)} runs are the same.")
    sys.exit(1 if changed else 0)


def told(run: Path, but: set[str], fields: set[str]) -> list[dict[str, Any]]:
    """Return the events of a run, but for times and what is not compared."""

    def without(data: Any, names: set[str]) -> Any:
        if isinstance(data, list):
            return [without(item, names) for item in data]
        if not isinstance(data, dict):
            return data
        return {key: without(value, names) for key, value in data.items() if key not in names}

    rows = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    rows = [{"type": row["type"], "engine": row["engine"]} if row["type"] == "RunStarted" else row for row in rows]
    rows = [row for row in rows if row["type"] not in but]
    own = [{field.partition(".")[2] for field in fields if field.startswith(f"{row['type']}.")} for row in rows]
    return [without(row, TIMES | fields | names) for row, names in zip(rows, own, strict=True)]


def differences(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[str]:
    """Return where two event logs differ, one line for each event that does."""
    found = []
    for number, (old, new) in enumerate(zip_longest(before, after, fillvalue={}), 1):
        fields = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        if fields:
            shown = ", ".join(f"{key} {old.get(key)!r} -> {new.get(key)!r}" for key in fields)
            found.append(f"event {number} ({old.get('type', 'none')}): {shown[:300]}")
    return found


if __name__ == "__main__":
    main()
