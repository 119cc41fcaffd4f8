"""What the directory of a comparison or a sweep says of the runs in it."""

import json
import re
import subprocess
import sys

import pytest
from building import surroundings
from refusing import refused

from rlstages.storage.groups import COMPARISON, SWEEP, Membership, found, is_unused, membership_of


def group_in(directory, file):
    return json.loads((directory / file).read_text())["group"]


@pytest.mark.parametrize(("file", "tag", "kind"), [(COMPARISON, "few-shown", "compare"), (SWEEP, None, "sweep")])
def test_runs_of_a_directory_are_one_group_of_their_own(tmp_path, file, tag, kind):
    for name in ("one", "other"):
        found(tmp_path / name, file, {"version": 1}, "compare-rooms")
    group = group_in(tmp_path / "one", file)

    assert re.fullmatch("compare-rooms-[0-9a-f]{8}", group)
    assert group != group_in(tmp_path / "other", file)
    assert membership_of(tmp_path / "one" / "few-shown-s12") == Membership(group, tag, kind)
    assert membership_of(tmp_path / "rooms-s0") is None


def test_a_file_of_before_gets_a_group_once_and_keeps_all_else(tmp_path):
    old = {"version": 1, "name": "rooms", "episodes": 200, "more": [1]}
    (tmp_path / COMPARISON).write_text(json.dumps(old))

    found(tmp_path, COMPARISON, {"version": 1, "name": "other"}, "compare-rooms")
    group = group_in(tmp_path, COMPARISON)
    found(tmp_path, COMPARISON, {}, "compare-rooms")

    assert json.loads((tmp_path / COMPARISON).read_text()) == {**old, "group": group}


@pytest.mark.parametrize("text", ["{", "[]", '{"group": 3}', '{"group": ""}', '{"group": "a\\nb"}', "{}"])
def test_a_file_that_names_no_group_gives_none(tmp_path, text):
    (tmp_path / COMPARISON).write_text(text)

    assert membership_of(tmp_path / "staged-s0") is None


def test_a_tag_is_no_longer_than_weights_and_biases_takes(tmp_path):
    found(tmp_path, COMPARISON, {}, "compare")

    assert membership_of(tmp_path / ("a" * 80 + "-s0")).tag == "a" * 64
    assert membership_of(tmp_path / "mine").tag is None


def test_a_place_that_is_a_file_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()

    with refused("file-unusable", where="file"):
        found(tmp_path / "file", SWEEP, {}, "sweep")
    with refused("file-unusable", where="file"):
        is_unused(tmp_path / "file", SWEEP)


def test_what_a_process_left_that_was_killed_while_it_made_the_file_is_no_obstacle(tmp_path):
    (tmp_path / "lock").touch()
    (tmp_path / f".writing-{COMPARISON}").touch()
    assert is_unused(tmp_path, COMPARISON) and is_unused(tmp_path / "none", COMPARISON)

    (tmp_path / "thesis.tex").touch()

    assert not is_unused(tmp_path, COMPARISON)


AT_ONCE = """
import multiprocessing, sys
from pathlib import Path
from comparing import small_plan
from rlstages.experiments.compare.directory import claim_comparison

PROCESSES, ROUNDS = 6, 4
processes = multiprocessing.get_context("fork")
plan, gate = small_plan(), processes.Barrier(PROCESSES)


def work():
    for number in range(ROUNDS):
        gate.wait()
        claim_comparison(Path(str(number)), plan)


all_of_them = [processes.Process(target=work) for _ in range(PROCESSES)]
for one in all_of_them:
    one.start()
for one in all_of_them:
    one.join(60)
sys.exit(sum(one.exitcode != 0 for one in all_of_them))
"""


@pytest.mark.slow
def test_processes_that_begin_a_comparison_at_the_same_moment_all_do(tmp_path):
    variables = surroundings(tmp_path)

    ended = subprocess.run([sys.executable, "-c", AT_ONCE], cwd=tmp_path, env=variables, capture_output=True, text=True)

    assert ended.returncode == 0, ended.stderr
    groups = {group_in(tmp_path / str(number), COMPARISON) for number in range(4)}
    assert len(groups) == 4
