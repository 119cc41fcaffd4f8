"""Python says when it unpickles: nothing that is done with a run by default does."""

import subprocess
import sys

import pytest
from building import surroundings

ALL = """
import sys
found = []
sys.addaudithook(lambda event, arguments: found.append(arguments) if event == "pickle.find_class" else None)
import contextlib, io
from pathlib import Path
from runs import make_run
from rlstages import load_demonstrations, load_policy, resume
from rlstages.cli.exporting import export_policy
from rlstages.cli.showing import evaluate_policy, show_run

path = Path("run")
with contextlib.redirect_stdout(io.StringIO()):
    make_run(path)
    resume(path)
    show_run(path, False)
    load_policy(path)
    load_demonstrations(path / "demonstrations" / "00-clone.safetensors")
    evaluate_policy(path, None, {}, 2, 0, True, False)
    export_policy(path, Path("a.safetensors"), "safetensors")
    export_policy(path, Path("a.zip"), "sb3")
assert not found, found
from stable_baselines3 import PPO
PPO.load("a.zip", device="cpu")
assert found, "the watch must work"
"""


@pytest.mark.slow
def test_nothing_is_unpickled_in_a_run_and_what_is_done_with_it(tmp_path):
    here = surroundings(tmp_path)
    path = ":".join([str(__file__).rpartition("/")[0], here["PYTHONPATH"]])
    ended = subprocess.run(
        [sys.executable, "-c", ALL],
        cwd=tmp_path,
        env={**here, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3_000:]
