"""What every run of a comparison may spend: it is settled once, grows, and never falls."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from building import surroundings
from comparing import placed
from hypothesis import given
from hypothesis import strategies as st
from outcomes import STEPS, outcome
from refusing import refused

from rlstages import InputError
from rlstages.experiments.compare import worker
from rlstages.experiments.compare.budget import settle_steps, settled_steps, steps_of
from rlstages.experiments.compare.comparison import next_jobs, prepare_comparison
from rlstages.experiments.compare.curve import Curve, Row, read_curve, write_curve
from rlstages.experiments.compare.directory import claim_comparison, run_path
from rlstages.experiments.compare.results import read_results
from rlstages.experiments.compare.verdict import judge


def needing(directory, plan, needs):
    """Let the first arm's runs have needed so many steps."""
    for seed, own_cost in zip(plan.seeds, needs, strict=True):
        path = run_path(directory, plan.reference, seed)
        path.mkdir()
        write_curve(path, Curve(own_cost=own_cost))


def test_fewer_steps_than_were_settled_are_refused_wherever_they_are_asked_for(tmp_path):
    plan = placed(tmp_path, steps=6_000, seeds=(0,))
    settle_steps(tmp_path, 6_000)
    less = replace(plan, steps=3_000)

    for ask in (
        lambda: steps_of(tmp_path, less),
        lambda: settle_steps(tmp_path, 3_000),
        lambda: prepare_comparison(tmp_path, less),
        lambda: next_jobs(tmp_path, less),
        lambda: worker.run_arm(tmp_path, less, "scratch", 0, 3_000),
    ):
        with refused("option-invalid", name="--steps"):
            ask()
    assert not run_path(tmp_path, "scratch", 0).exists()
    assert steps_of(tmp_path, plan) == 6_000 and steps_of(tmp_path, replace(plan, steps=7_000)) == 7_000


def test_the_steps_of_a_comparison_stay_where_seeds_are_dropped_and_grow_where_more_are_needed(tmp_path):
    plan = placed(tmp_path, seeds=(0, 1, 2))
    assert steps_of(tmp_path, plan) is None
    needing(tmp_path, plan, (3_000, 6_000, 7_000))
    two = replace(plan, seeds=(0, 1))

    assert steps_of(tmp_path, two) == 6_000
    settle_steps(tmp_path, 6_000)

    assert steps_of(tmp_path, replace(plan, seeds=(0,))) == 6_000
    assert steps_of(tmp_path, plan) == 7_000
    claim_comparison(tmp_path, plan)


def test_a_comparison_of_before_is_as_long_as_its_final_runs(tmp_path):
    plan = outcome(tmp_path, {"staged": [0.9, 0.8], "scratch": [0.1, 0.2]}).plan
    assert "steps" not in json.loads((tmp_path / "comparison.json").read_text())
    claim_comparison(tmp_path, plan)

    assert settled_steps(tmp_path) == steps_of(tmp_path, replace(plan, steps=None, seeds=(0,))) == STEPS
    with refused("option-invalid", name="--steps"):
        steps_of(tmp_path, replace(plan, steps=STEPS - 1))


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=6))
def test_what_is_settled_is_the_most_of_what_was_asked_for(tmp_path_factory, asked):
    directory = tmp_path_factory.mktemp("cmp")
    placed(directory)
    for steps in asked:
        try:
            settle_steps(directory, steps)
        except InputError:
            assert steps < settled_steps(directory)

    assert settled_steps(directory) == max(asked)


@pytest.mark.slow
def test_processes_that_settle_at_the_same_time_agree(tmp_path):
    placed(tmp_path)
    code = "import sys; from pathlib import Path; from rlstages.experiments.compare.budget import settle_steps; "
    code += "sys.stdin.read(1); settle_steps(Path(sys.argv[1]), 5_000)"
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, env=surroundings(tmp_path)) for _ in range(4)]
    for process in processes:
        process.communicate(b"1", timeout=300)

    assert [process.returncode for process in processes] == [0] * 4 and settled_steps(tmp_path) == 5_000


def test_a_damaged_number_of_steps_is_refused(tmp_path):
    placed(tmp_path)
    said = json.loads((tmp_path / "comparison.json").read_text())
    for damage, code in (
        ({**said, "steps": "x"}, "setting-type"),
        ({**said, "steps": 0}, "setting-range"),
        ([3], "file-damaged"),
    ):
        (tmp_path / "comparison.json").write_text(json.dumps(damage))
        with refused(code, where="comparison.json"):
            settled_steps(tmp_path)


def test_steps_that_do_not_pay_for_the_demonstrations_are_told_of(tmp_path, monkeypatch):
    for name in ("WANDB_RUN_GROUP", "WANDB_TAGS"):
        monkeypatch.setenv(name, "")
    plan = placed(tmp_path, seeds=(0,), shown=200)
    for arm in plan.arms:
        worker.run_arm(tmp_path, plan, arm, 0, 300)

    caveats = judge(read_results(tmp_path, plan, 300, {})).caveats

    (told,) = [caveat for caveat in caveats if caveat.startswith("Costs are not equal")]
    assert "of 300 steps, runs of staged and clone-only spent up to 800." in told and "--steps 800 or more" in told


def test_what_the_last_rollout_and_a_wave_overspend_is_not_told_of(tmp_path):
    plan = outcome(tmp_path, {"staged": [0.9, 0.8], "scratch": [0.1, 0.2]}).plan
    # A rollout has 64 steps, and a wave of four copies 32.
    for over, told in ((96, False), (97, True)):
        path = run_path(tmp_path, "staged", 1)
        curve = read_curve(path)
        rows = [row for row in curve.rows if row.why != "final"]
        (end,) = [row for row in curve.rows if row.why == "final"]
        write_curve(path, replace(curve, rows=(*rows, Row(STEPS + over, "final", end.scores, STEPS))))

        caveats = judge(read_results(tmp_path, plan, STEPS, {})).caveats

        assert any(f"runs of staged spent up to {STEPS + over:,}" in caveat for caveat in caveats) == told
