"""Packages of examples/ as pip installs them, for tests of what other packages add."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def install(name, tmp_path_factory):
    """Return a folder with an example package as pip installs it."""
    source, place = tmp_path_factory.mktemp("source") / name, tmp_path_factory.mktemp("site")
    shutil.copytree(EXAMPLES / name, source)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", place, source]
    subprocess.run(command, check=True, capture_output=True)
    return place


def place_beside(name, installed, tmp_path, monkeypatch):
    """Return a folder with an example's curriculum, from which the installed package can be imported."""
    shutil.copy(EXAMPLES / name / "curriculum.py", tmp_path)
    monkeypatch.syspath_prepend(installed)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(installed), os.environ.get("PYTHONPATH")])))
    return tmp_path
