"""`rlstages compare` and `rlstages sweep`: what they refuse, what they print, and going on after a kill."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from building import surroundings
from comparing import CURRICULUM
from refusing import told

from rlstages.cli.comparing import load_plan
from rlstages.experiments.compare.budget import settle_steps
from rlstages.experiments.compare.curve import read_curve
from rlstages.experiments.compare.directory import claim_comparison, read_plan, write_plan
from rlstages.storage.record import read_record
from rlstages.storage.run_directory import read_events

HERE = Path(__file__).parents[1]
SOURCE = "small_curriculum.py"
WRONG = {
    "seeds in words": (["--seeds", "five"], ("option-invalid", "", "--seeds")),
    "no seed": (["--seeds", "3:3"], ("option-invalid", "", "--seeds")),
    "a seed twice": (["--seeds", "1,1"], ("comparison-invalid", "", "seeds")),
    "a seed too large": (["--seeds", "7,4294967296"], ("setting-range", "", "seed")),
    "a negative seed": (["--seeds", "-1:3"], ("setting-range", "", "seed")),
    "seeds that no memory holds": (["--seeds", "0:99999999999"], ("setting-range", "", "seed")),
    "seeds that no life is long enough for": (["--seeds", "0:4294967295"], ("option-invalid", "", "--seeds")),
    "a parameter twice": (["-p", "episodes=3", "-p", "episodes=4"], ("option-invalid", "", "episodes")),
    "a parameter of an arm twice": (["--arm", "a: episodes=3 episodes=4"], ("option-invalid", "", "--arm")),
    "an unknown arm": (["--arms", "staged,scrach"], ("name-unknown", "", "arm")),
    "one arm": (["--arms", "staged"], ("comparison-invalid", "", "arms")),
    "an arm of nothing": (["--arm", "short"], ("option-invalid", "", "--arm")),
    "an arm of an unknown parameter": (
        ["--arm", "short: depth=3"],
        ("setting-unknown", "arm 'short': small_curriculum.py", "depth"),
    ),
    "an arm that is there": (["--arm", "scratch: episodes=3"], ("name-taken", "", "arm")),
    "an arm that is one already": (["--arm", "same: max_steps=20000"], ("comparison-invalid", "arm 'same'", "")),
    "an arm that cannot be": (
        ["--arm", "tiny: max_steps=10"],
        ("setting-conflict", "arm 'tiny': small_curriculum.py, line 10: stage 'short'", "max_steps"),
    ),
    "an arm twice": (["--arm", "a: episodes=3", "--arm", "b: episodes=3"], ("comparison-invalid", "arm 'b'", "")),
    "on nothing": (["--on", "slurm"], ("option-invalid", "", "--on")),
}


@pytest.fixture
def source(here, monkeypatch):
    (here / SOURCE).write_text(CURRICULUM)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))
    return SOURCE


@pytest.mark.parametrize("what", WRONG)
def test_a_mistake_is_one_sentence(what, rlstages, source, here):
    arguments, wrong = WRONG[what]

    outcome = rlstages("compare", source, "--track", "none", *arguments)

    assert outcome.code == 2 and told(outcome.error) == wrong, outcome.err
    assert outcome.err.startswith("error: ") and outcome.err.count("\n") == 1
    assert {path.name for path in here.iterdir()} <= {SOURCE, "__pycache__"}


def test_the_commands_of_all_runs_can_be_printed(rlstages, source, here):
    options = ["--seeds", "0:2", "--arms", "staged,scratch", "--arm", "few shown: episodes=3", "--out", "cmp"]
    options += ["--track", "none"]

    own_steps = rlstages("compare", source, "--dry-run", *options)
    all_steps = rlstages("compare", source, "--steps", "2000", "--dry-run", *options)

    assert own_steps.code == all_steps.code == 0, own_steps.err + all_steps.err
    first, second = (re.search(r"cmp/plan-[0-9a-f]{16}\.json", said.out)[0] for said in (own_steps, all_steps))
    assert first != second and set(map(str, Path().glob("cmp/*.json"))) == {
        first,
        second,
        "cmp/comparison.json",
    }
    assert all_steps.out.splitlines() == [
        f"rlstages compare-run {second} --run {run} --steps 2000 --trust-imports"
        for run in ("staged/0", "staged/1", "scratch/0", "scratch/1", "'few shown/0'", "'few shown/1'")
    ]
    assert own_steps.out.splitlines()[:-1] == [
        f"rlstages compare-run {first} --run staged/{seed} --trust-imports" for seed in (0, 1)
    ]
    assert own_steps.out.splitlines()[-1].startswith("# ")


def test_a_directory_of_something_else_is_left_alone(rlstages, source, here):
    (here / "mine").mkdir()
    (here / "mine" / "thesis.tex").touch()

    for more in ([], ["--dry-run"]):
        outcome = rlstages("compare", source, "--seeds", "0:2", "--arms", "staged,scratch", "--out", "mine", *more)

        assert outcome.code == 2 and told(outcome.error) == ("out-taken", "mine", "")
    assert [path.name for path in (here / "mine").iterdir()] == ["thesis.tex"]


def test_a_single_run_is_made_by_its_plain_command(rlstages, source, here):
    common = ["--track", "none", "--episodes", "8", "--out", "cmp", "--steps", "900", "--dry-run"]
    printed = rlstages("compare", source, *common, "--seeds", "0", "--arms", "staged,clone-only")
    staged, clone_only = printed.out.splitlines()

    outcome = rlstages(*clone_only.split()[1:])

    assert outcome.code == 0, outcome.err
    assert read_curve(here / "cmp" / "clone-only-s0").final(900) is not None
    left = rlstages("compare", source, *common, "--seeds", "0", "--arms", "staged,clone-only")
    assert left.out == f"{staged}\n"
    other = rlstages("compare", source, *common, "-p", "episodes=7")
    assert other.code == 2 and told(other.error) == ("out-taken", "cmp", "digest")


def test_a_plan_is_only_taken_as_it_was_written_and_its_code_only_where_that_is_trusted(rlstages, source, here):
    plan = load_plan(source, {"episodes": "12"}, ["staged", "scratch"], ["few: episodes=3"], seeds=[0], steps=900)
    claim_comparison(here / "cmp", plan)
    file = write_plan(here / "cmp", plan)

    for run, wrong in (
        ("stages/0", ("name-unknown", file.name, "--run")),
        ("staged", ("option-invalid", "", "--run")),
        ("staged/²", ("option-invalid", "", "--run")),
        ("staged/4294967296", ("setting-range", "", "seed")),
    ):
        outcome = rlstages("compare-run", file, "--run", run, "--trust-imports")
        assert outcome.code == 2 and told(outcome.error) == wrong, outcome.err
    strange = rlstages("compare-run", file, "--run", "staged/0")
    assert strange.code == 2 and told(strange.error) == ("untrusted", file.name, "")
    assert read_plan(file, trust_imports=True) == plan == write_and_read(here / "moved" / "cmp", file)
    file.write_text(file.read_text().replace('"episodes": 3', '"episodes": 4'))
    changed = rlstages("compare-run", file, "--run", "staged/0", "--trust-imports")
    assert changed.code == 2 and told(changed.error) == ("file-damaged", file.name, "")
    assert {path.name for path in (here / "cmp").iterdir()} == {"comparison.json", "lock", file.name}


def write_and_read(other, file):
    """Read a plan from another directory, to which its curriculum's file has moved with it."""
    other.mkdir(parents=True)
    shutil.copy(file, other)
    return read_plan(other / file.name, trust_imports=True)


@pytest.mark.slow
def test_fewer_steps_than_a_comparison_has_are_refused(rlstages, source, here):
    plan = load_plan(source, {}, ["staged", "scratch"], [], seeds=[0], episodes=8, steps=6_000)
    claim_comparison(here / "cmp", plan)
    settle_steps(here / "cmp", 6_000)
    common = ["--track", "none", "--episodes", "8", "--out", "cmp", "--steps", "3000", "--seeds", "0"]

    for more in ([], ["--arms", "staged,no-curriculum"], ["--dry-run"]):
        outcome = rlstages("compare", source, *common, *more)

        assert outcome.code == 2 and told(outcome.error)[2] == "--steps", outcome.err
    one = ["--run", "scratch/0", "--steps", "3000", "--trust-imports"]
    outcome = rlstages("compare-run", write_plan(here / "cmp", plan), *one)
    assert outcome.code == 2 and told(outcome.error)[2] == "--steps", outcome.err
    assert [path.name for path in (here / "cmp").glob("*-s0")] == []


def start(arguments, where):
    return subprocess.Popen(
        [sys.executable, "-m", "rlstages", *arguments],
        cwd=where,
        env=surroundings(where),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
def test_a_comparison_that_is_killed_goes_on_and_ends_as_one_that_is_not(source, here):
    common = ["compare", source, "--seeds", "0:2", "--arms", "staged,scratch,clone-only", "--episodes", "16"]
    common += ["--track", "none", "--jobs", "2", "--steps", "3000", "--out"]
    quiet = start([*common, "quiet"], here)
    told, _ = quiet.communicate(timeout=300)
    assert quiet.returncode == 0, told

    for looks in (2, 30, 60):
        process = start([*common, "broken"], here)
        deadline = time.monotonic() + 300
        while sum(len(read_curve(run).rows) for run in here.glob("broken/*-s?")) < looks:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    last = start([*common, "broken"], here)
    told, _ = last.communicate(timeout=300)
    assert last.returncode == 0, told
    first, second = (json.loads((here / name / "compare.json").read_text()) for name in ("quiet", "broken"))
    assert first["arms"] == second["arms"] and first["verdict"] == second["verdict"]


@pytest.mark.slow
def test_the_whole_from_one_command(source, here):
    arguments = ["compare", source, "--seeds", "0:2", "--arms", "staged,scratch", "--episodes", "16", "--track", "none"]
    process = start([*arguments, "--out", "cmp"], here)
    told, _ = process.communicate(timeout=300)

    assert process.returncode == 0, told
    assert "How many steps 'staged' needs: 2 runs" in told and "Every arm for" in told
    found = json.loads((here / "cmp" / "compare.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    own = [run["own_cost"] for run in found["arms"][0]["runs"]]
    assert found["version"] == 1 and found["steps"] == max(own)
    with (here / "cmp" / "compare.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    finals = [row for row in rows if row["why"] == "final"]
    assert {(row["arm"], row["seed"]) for row in finals} == {(a, s) for a in ("staged", "scratch") for s in "01"}
    assert found["verdict"]["headline"] in (here / "cmp" / "compare.html").read_text()
    again = start([*arguments, "--out", "cmp"], here)
    told, _ = again.communicate(timeout=300)
    assert again.returncode == 0 and "runs," not in told.partition("staged")[0]


@pytest.mark.slow
def test_a_run_that_fails_is_reported_and_the_others_are_compared(source, here):
    arguments = [
        "compare",
        source,
        "--seeds",
        "0:2",
        "--arms",
        "staged,clone-only",
        "--episodes",
        "8",
        "--track",
        "none",
    ]
    arguments += ["--steps", "1000", "--out", "cmp"]
    plan = load_plan(source, {}, ["staged", "clone-only"], [], seeds=[0, 1], episodes=8)
    claim_comparison(here / "cmp", plan)
    # A file where the run directory belongs.
    (here / "cmp" / "clone-only-s1").write_text("in the way")

    process = start(arguments, here)
    told, _ = process.communicate(timeout=300)

    assert process.returncode == 1, told
    assert re.search(r"clone-only, seed 1: failed: error: .*clone-only-s1", told)
    assert "Not finished, and left out of all scores: clone-only, seed 1" in " ".join(told.split())
    assert (here / "cmp" / "compare.html").is_file()


def test_a_sweep_refuses_what_it_cannot_make(rlstages, source):
    for arguments, code, name in (
        (["-p", "episodes=3,,4"], "option-invalid", "-p"),
        (["-p", "depth=3"], "setting-unknown", "depth"),
        (["-p", "episodes=3,3"], "name-taken", ""),
        (["-p", "episodes=3", "-p", "episodes=4"], "option-invalid", "episodes"),
        (["--seeds", "x"], "option-invalid", "--seeds"),
        (["--seeds", "4294967296"], "setting-range", "seed"),
        (["--out", source], "file-unusable", ""),
        (["--out", source, "--dry-run"], "file-unusable", ""),
    ):
        outcome = rlstages("sweep", source, *arguments)
        assert outcome.code == 2 and told(outcome.error)[::2] == (code, name), outcome.err


def test_the_commands_of_a_sweep_are_ordinary_ones(rlstages, source, here):
    outcome = rlstages("sweep", source, "--seeds", "0:2", "-p", "episodes=3,4", "--track", "none", "--dry-run")

    assert outcome.out.splitlines() == [
        f"rlstages train {source} -p episodes={shown} --seed {seed} "
        f"--out runs/sweep-small_curriculum/small-episodes-{shown}-s{seed} --go-on --track none"
        for shown in (3, 4)
        for seed in (0, 1)
    ]
    # The runs are to find what they belong to.
    (file,) = (path for path in here.glob("runs/**/*") if path.is_file() and path.name != "lock")
    said = json.loads(file.read_text())
    assert file.name == "sweep.json" and re.fullmatch("sweep-small-[0-9a-f]{8}", said["group"])
    rlstages("sweep", source, "--seeds", "0:3", "--track", "none", "--dry-run")
    assert json.loads(file.read_text()) == said


OWN_ENVIRONMENT = """
import toys


class Mine(toys.Echo):
    pass
"""


def test_a_sweep_does_not_keep_runs_that_were_made_with_other_code(rlstages, source, here):
    own = CURRICULUM.replace("def curriculum", f"{OWN_ENVIRONMENT}\n\ndef curriculum").replace('"toys:Echo"', "Mine")
    (here / source).write_text(own)
    sweep = ["sweep", source, "--seeds", "0", "-p", "episodes=16", "--track", "none", "--dry-run"]
    (command,) = rlstages(*sweep).out.splitlines()
    assert rlstages(*command.split()[1:]).code in (0, 3)
    assert rlstages(*sweep).out.split() == []

    (here / source).write_text(own.replace("    pass", "    again = True"))

    outcome = rlstages(*sweep)
    assert outcome.code == 2 and told(outcome.error)[::2] == ("run-changed", ""), outcome.err


NAMED = """
from rlstages import *


def curriculum(note: str = "") -> Curriculum:
    echo = Environment("toys:Echo", steps=4)
    stage = FineTuning("tune", echo, until=RewardThreshold(1.0), max_steps=90_000)
    return Curriculum("named", agent=Agent("PPO"), stages=[stage])
"""


def test_runs_of_a_sweep_have_directories_of_their_own_however_long_their_values(rlstages, source, here):
    (here / source).write_text(NAMED)
    start = "long" * 30
    sweep = ["sweep", source, "--seeds", "0", "--track", "none", "--dry-run", "-p"]

    lines = rlstages(*sweep, f"note={start}a,{start}b").out.splitlines()

    places = [re.search(r"--out (\S+)", line)[1] for line in lines]
    assert len(set(places)) == 2 and all(len(Path(place).name) <= 103 for place in places)
    assert rlstages(*sweep, f"note={start}b").out.splitlines() == lines[1:]
    alike = rlstages(*sweep, "note=a/b,a-b")
    assert alike.code == 2 and told(alike.error)[::2] == ("name-taken", ""), alike.err


@pytest.mark.slow
def test_a_sweep_goes_on_with_what_is_there(source, here):
    arguments = [
        "sweep",
        source,
        "--seeds",
        "0:2",
        "-p",
        "episodes=12,16",
        "--track",
        "none",
        "--out",
        "sweep",
        "--jobs",
        "2",
    ]
    process = start(arguments, here)
    deadline = time.monotonic() + 120
    while not list(here.glob("sweep/*/events.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

    again = start(arguments, here)
    told, _ = again.communicate(timeout=300)

    assert again.returncode == 0, told
    with (here / "sweep" / "sweep.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["episodes"], row["seed"]) for row in rows] == [("12", "0"), ("12", "1"), ("16", "0"), ("16", "1")]
    assert all(row["outcome"] in ("reached", "missed") for row in rows)
    for row in rows:
        record = read_record(here / "sweep" / row["run"])
        assert record.seed == int(row["seed"]) and list(read_events(here / "sweep" / row["run"]))


def test_going_on_needs_a_place_and_the_same_run(rlstages, source, here):
    quick = ["-p", "max_steps=900", "-p", "episodes=16", "--track", "none"]
    assert told(rlstages("train", source, "--go-on").error) == ("option-invalid", "", "--go-on")
    assert rlstages("train", source, *quick, "--out", "r", "--go-on").code in (0, 3)

    other = rlstages("train", source, *quick, "--out", "r", "--seed", "1", "--go-on")

    assert other.code == 2 and told(other.error) == ("out-taken", "r", "")
    assert rlstages("train", source, *quick, "--out", "r", "--go-on").code in (0, 3)
