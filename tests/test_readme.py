"""Every block of code in the README does what the README says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rlstages import load_curriculum
from rlstages.training.preflight import preflight

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def curriculum_blocks() -> list[str]:
    return [block for block in blocks("python") if "def curriculum" in block]


def commands() -> list[list[str]]:
    lines = [line for block in blocks("console") for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("rlstages ")]


def run(arguments: list[str], where: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from rlstages.cli import main; sys.argv[0] = 'rlstages'; main()"
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=600, check=False)


def test_there_are_blocks_to_run() -> None:
    assert len(curriculum_blocks()) == 2
    assert len(commands()) >= 5


@pytest.mark.parametrize("number", range(2))
def test_a_curriculum_of_the_readme_passes_all_checks(number: int, tmp_path: Path) -> None:
    file = tmp_path / f"readme_curriculum_{number}.py"
    file.write_text(curriculum_blocks()[number], encoding="utf-8")

    preflight(load_curriculum(str(file)))


def test_the_first_curriculum_is_about_fifteen_lines() -> None:
    lines = [line for line in curriculum_blocks()[0].splitlines() if line.strip()]

    assert len(lines) <= 18


def test_the_plain_lines_are_what_make_does() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for given, expected in (("$(VENV)", ".venv"), ("$(PYTHON)", "python3"), ("$(CONSTRAINTS)", "constraints.txt")):
        makefile = makefile.replace(given, expected)
    makefile = makefile.replace("$(EXTRAS)", "dev").replace(" --quiet", "")
    plain = next(block for block in blocks("console") if "-m venv" in block)

    for line in plain.splitlines():
        assert f"\t{line}\n" in makefile, line


@pytest.mark.slow
def test_the_commands_of_the_readme_work_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "my_rooms.py").write_text(curriculum_blocks()[0], encoding="utf-8")
    for command in commands():
        ended = run(command[1:], tmp_path)
        assert ended.returncode == 0, (command, ended.stdout[-2000:], ended.stderr[-2000:])
    assert (tmp_path / "runs" / "mine.zip").is_file()
    snippet = next(block for block in blocks("python") if "load_policy" in block)
    told = subprocess.run([sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Discrete(" in told.stdout


@pytest.mark.slow
def test_the_newcomers_curriculum_trains_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "line.py").write_text(curriculum_blocks()[1], encoding="utf-8")

    ended = run(["train", "line.py", "--out", "r", "--track", "none"], tmp_path)

    assert ended.returncode == 0, (ended.stdout[-2000:], ended.stderr[-2000:])
    assert "The curriculum is done." in ended.stdout
