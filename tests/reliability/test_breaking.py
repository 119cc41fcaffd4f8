"""Kill, full disk and broken disk at every file-system call of a save and of an event append: always resumable."""

import collections
import json
import subprocess
import sys
from pathlib import Path

import pytest
from breaking import BEFORE, MODES
from building import surroundings

BREAKING = Path(__file__).with_name("breaking.py")


def cases(tmp_path, every, kinds, modes, timeout):
    command = [sys.executable, str(BREAKING), str(tmp_path), str(every), ",".join(kinds), ",".join(modes)]
    ended = subprocess.run(
        command, env=surroundings(tmp_path), capture_output=True, text=True, timeout=timeout, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3_000:]
    found = [json.loads(line) for line in ended.stdout.splitlines()]
    counts = collections.Counter(case["kind"] for case in found)
    print(f"{len(found)} strikes ({dict(counts)}), {sum(case['right'] for case in found)} ended as an undisturbed run")
    return found


def wrong(found):
    return [case for case in found if not case["right"]]


def test_some_strikes_leave_a_run_that_goes_on(tmp_path):
    found = cases(tmp_path, 8, ["append", "save"], ["kill", "full"], 120)
    assert len(found) >= 4 and not wrong(found), wrong(found)[:3]


@pytest.mark.soak
@pytest.mark.slow
def test_every_strike_leaves_a_run_that_goes_on(tmp_path):
    found = cases(tmp_path, 1, BEFORE, MODES, 3_600)
    assert len(found) >= 300 and not wrong(found), wrong(found)[:3]
    killed = [case for case in found if case["done"].get("signal") == 9]
    refused = [case for case in found if case["done"].get("answer", {}).get("said")]
    assert len(killed) >= 50 and len(refused) >= 100
    assert any("did not confirm" in case["done"]["answer"]["said"] for case in refused)
