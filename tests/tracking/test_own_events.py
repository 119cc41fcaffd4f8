"""A kind of event that another package adds: every tracker shows it, and none of them knows of it."""

import io
import json
import sys

import following
import pytest
import wandb_file
from building import curriculum, tuning
from refusing import refused
from test_tensorboard_tracker import follow, scalars

from rlstages.events import Event, RolloutFinished, RunStarted, Warned
from rlstages.tracking.console import console_tracker

MODULE = """
from dataclasses import dataclass
from typing import ClassVar

from rlstages.events import Payload
from rlstages.events.payload import LeftFile


@dataclass(frozen=True)
class Searched(Payload):
    axis: ClassVar[str] = "search/round"
    stands_out: ClassVar[bool] = True

    found: int
    best: float | None
    file: str

    def scalars(self):
        return {"search/found": self.found, "search/best": self.best}

    def line(self, stage):
        return f"searched: {self.found} found, {stage.measure} {self.best}"

    def leaves(self):
        return LeftFile("map", self.file, "e" * 64, None, {"found": self.found})


@dataclass(frozen=True)
class Weighed(Payload):
    grams: float
    every: int

    def scalars(self):
        return {"scales/grams": self.grams}

    def line(self, stage):
        return f"{self.grams} g"

    def often(self, stage):
        return self.every
"""
ENTRIES = "[rlstages.events]\nSearched = searching:Searched\nWeighed = searching:Weighed\n"
PLAN = curriculum(tuning("one"))


@pytest.fixture
def searching(tmp_path, monkeypatch):
    """Install a package with kinds of events, for this process and those that it starts."""
    about = tmp_path / "site" / "searching-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: searching\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRIES)
    (tmp_path / "site" / "searching.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "searching", raising=False)
    import searching

    return searching


def story(searching):
    rollout = RolloutFinished("training", 64, 8, 1.0, 0.5, 8.0, 0.5, 0.9, {}, 1e3, "waiting")
    payloads = [
        rollout,
        searching.Searched(2, 0.25, "maps/a.txt"),
        *(searching.Weighed(float(grams), 3) for grams in range(9)),
        searching.Weighed(100.0, 0),
        searching.Searched(5, float("nan"), "maps/b.txt"),
    ]
    told = [Event(payload, 64 + number, 0, "one", 1e9 + 4 * number) for number, payload in enumerate(payloads)]
    return [Event(RunStarted("abcd1234", PLAN, 0, {}), 0, time=1e9), *told]


@pytest.mark.parametrize("terminal", [False, True])
def test_the_console_prints_its_line(searching, terminal):
    stream = io.StringIO()
    tracker = console_tracker(PLAN, terminal=terminal, stream=stream)
    for event in story(searching):
        tracker(event)
    tracker.close()

    assert "searched: 2 found, success 0.25" in stream.getvalue()
    if not terminal:
        shown = [line for line in stream.getvalue().splitlines() if line.endswith(" g")]
        assert shown == [f"[1/1 one] {grams} g" for grams in (2.0, 5.0, 8.0, 100.0)], "of many that come often, some"


def test_tensorboard_has_its_numbers_on_its_own_axis(searching, tmp_path):
    follow(tmp_path, story(searching))
    found = scalars(tmp_path)

    assert found["search/found"] == [(1, 2.0), (2, 5.0)]
    assert found["search/best"] == [(1, 0.25)]
    assert found["scales/grams"][-1] == (64 + 11, 100.0)


def test_wandb_has_its_numbers_its_axis_and_its_file(searching, tmp_path):
    pytest.importorskip("wandb")
    run = tmp_path / "run"
    (run / "maps").mkdir(parents=True)
    for name in ("a", "b"):
        (run / "maps" / f"{name}.txt").write_text(name)

    assert following.follow(run, story(searching)) == []

    records = wandb_file.records(*following.logs(run))
    history = [wandb_file.items(r.history.item) for r in records if r.WhichOneof("record_type") == "history"]
    rows = [row for row in history if "search/found" in row]
    assert [(row["search/found"], row["search/round"], row["stage/name"]) for row in rows] == [
        (2, 1, "one"),
        (5, 2, "one"),
    ]
    assert "search/best" in rows[0] and "search/best" not in rows[1]
    defined = [r.metric for r in records if r.WhichOneof("record_type") == "metric"]
    axes = {m.glob_name: m.step_metric for m in defined if m.glob_name}
    assert (axes["search/*"], axes["scales/*"]) == ("search/round", "global_step")
    files = [r.artifact for r in records if r.WhichOneof("record_type") == "artifact"]
    assert [(one.name, one.type, json.loads(one.metadata)["found"]) for one in files] == [
        (f"{PLAN.name}-map", "map", 2),
        (f"{PLAN.name}-map", "map", 5),
    ]


def test_it_is_read_back_where_its_package_is_installed(searching):
    event = story(searching)[2]
    assert Event.from_data(json.loads(event.to_json())) == event


def test_a_kind_that_nobody_has_is_refused_by_its_name():
    data = {**json.loads(Event(Warned("a"), 0).to_json()), "type": "Seeked"}
    with refused("name-unknown", name="type"):
        Event.from_data(data)
