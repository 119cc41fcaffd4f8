"""What W&B is given of a run, and that a second session gives it nothing twice."""

import dataclasses
import json
import os
import socket

import following
import pytest
import realistic
import wandb_file
import wandb_server
from following import follow

from rlstages.events import Event, RolloutFinished, RunStarted
from rlstages.privacy import without_paths
from rlstages.serialization import from_data, to_data
from rlstages.tracking.metrics import STEP_PREFIXES

pytest.importorskip("wandb")

CANARY = "canary-8d1f"


def is_rollout(event):
    return isinstance(event.payload, RolloutFinished)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory with an offline W&B run in it, its records, its events and the home directory it had."""
    home, directory = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("base") / "balance-s7"
    directory.mkdir()
    realistic.files(directory)
    plan, events = realistic.story()
    with pytest.MonkeyPatch.context() as patch:
        for key in [key for key in os.environ if key.startswith(("WANDB_", "XDG_"))]:
            patch.delenv(key)
        patch.setenv("HOME", str(home))
        patch.setenv("MY_SECRET", CANARY)
        before = dict(os.environ)
        said = follow(directory, events)
        assert dict(os.environ) == before
    assert said == []
    (file,) = following.logs(directory)
    records = wandb_file.records(file)
    return {"directory": directory, "home": home, "records": records, "plan": plan, "events": events}


def history(run):
    return [wandb_file.items(r.history.item) for r in run["records"] if r.WhichOneof("record_type") == "history"]


def artifacts(run):
    found = [r.artifact for r in run["records"] if r.WhichOneof("record_type") == "artifact"]
    return {a.name: (a.type, json.loads(a.metadata), a) for a in found if a.type != "run_table"}


def started(run):
    (record,) = [r.run for r in run["records"] if r.WhichOneof("record_type") == "run"]
    return record


def test_run_is_named_and_grouped(run):
    record = started(run)
    assert (record.run_id, record.display_name, record.run_group) == ("abcd1234", "balance-s7", "balance")
    assert record.project == "rlstages"
    assert record.host == "local"


def test_config_is_the_curriculum_without_paths(run):
    config = wandb_file.items(started(run).config.update)
    assert config["seed"] == 7
    shown = from_data(without_paths(to_data(run["plan"])))
    assert config["digest"] == shown.digest, "the same on every machine"
    assert config["versions"] == {"python": "3.11.7", "rlstages": "0.1.0"}
    stages = config["curriculum"]["stages"]
    assert [stage["name"] for stage in stages] == ["copy", "short", "again", "long"]
    assert stages[0]["demonstrations"] == "shown.npz"
    assert stages[1]["until"]["threshold"] == 100


def test_every_prefix_has_its_own_axis(run):
    defined = [r.metric for r in run["records"] if r.WhichOneof("record_type") == "metric"]
    axes = {m.glob_name: m.step_metric for m in defined if m.glob_name}
    steps = {f"{prefix}/*": "global_step" for prefix in STEP_PREFIXES}
    assert axes == {"clone/*": "clone/epoch", **steps}
    assert {m.name for m in defined if m.name and not m.expanded_from_glob} == {"global_step", "clone/epoch"}


def test_epochs_count_on_over_cloning_stages(run):
    rows = [row for row in history(run) if "clone/loss" in row]
    assert [row["clone/epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["stage/name"] for row in rows] == ["copy"] * 3 + ["again"] * 2
    assert rows[0]["clone/loss"] == 0.7


def test_steps_never_go_back_and_every_point_knows_its_stage(run):
    rows = history(run)
    steps = [row["global_step"] for row in rows]
    assert steps == sorted(steps)
    assert steps[-1] > 30_000
    places = [(row["stage/index"], row["stage/name"]) for row in rows]
    assert set(places) == {(0, "copy"), (1, "short"), (2, "again"), (3, "long")}


def test_rollouts_and_confirmations_are_logged(run):
    rows = history(run)
    returns = [row["rollout/return"] for row in rows if row.get("stage/name") == "long" and "rollout/return" in row]
    assert returns == [200, 250]
    rollout = next(row for row in rows if "rollout/return" in row)
    assert rollout["rollout/steps_per_second"] == 4096
    assert rollout["train/approx_kl"] == 0.01
    assert "train/broken" not in rollout
    confirmed = [row for row in rows if "eval/confirm_value" in row and row["stage/name"] == "short"]
    assert [row["eval/confirm_attempt"] for row in confirmed] == [1, 2, 3]
    assert confirmed[-1]["eval/confirm_bound"] < confirmed[-1]["eval/confirm_value"]
    assert "eval/confirm_bound" not in confirmed[1], "12 episodes allow no bound yet"


def test_table_of_stages_grows(run):
    tables = [row["stages"] for row in history(run) if "stages" in row]
    assert [table["nrows"] for table in tables] == [1, 2, 3, 4]
    (files,) = [p.parent for p in run["directory"].glob("wandb/offline-run-*/files")]
    table = json.loads((files / "files" / tables[-1]["path"]).read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    short = rows[1]
    assert [row["outcome"] for row in rows] == ["completed", "reached", "completed", "missed"]
    assert (short["kind"], short["steps"], short["seconds"]) == ("FineTuning", 39_576, 62.0)
    assert short["before"] < 30 < 90 < short["bound"] < short["after"]


def test_policies_and_demonstrations_are_artifacts_that_name_their_parents(run):
    found = artifacts(run)
    kinds = {name: kind for name, (kind, _, _) in found.items()}
    policies = {f"balance-{stage}-policy": "policy" for stage in ("copy", "short", "again", "long")}
    shown = {f"balance-{stage}-demonstrations": "demonstrations" for stage in ("copy", "again")}
    assert kinds == {**policies, **shown}
    about = found["balance-short-policy"][1]
    assert (about["digest"], about["parent"], about["stage"]) == ("1" * 64, "a" * 64, "short")
    assert about["verdict"]["met"] is True
    assert about["score"]["episodes"] == 40
    assert found["balance-copy-policy"][1]["parent"] == found["balance-copy-demonstrations"][1]["digest"] == "d" * 64
    (entry,) = found["balance-short-policy"][2].manifest.contents
    assert (entry.path, entry.size) == ("short.safetensors", 10 * len("policies/short.safetensors"))


def test_summary_ends_with_the_verdicts(run):
    found = {}
    for record in run["records"]:
        if record.WhichOneof("record_type") == "summary":
            found.update(wandb_file.items(record.summary.update))
    assert found["outcome"] == "missed"
    assert found["final/stages_reached"] == 3
    verdicts = found["verdicts"]
    assert {name: verdict["outcome"] for name, verdict in verdicts.items()} == {
        "copy": "completed",
        "short": "reached",
        "again": "completed",
        "long": "missed",
    }
    assert verdicts["long"]["bound"] < 250 < 400 == verdicts["long"]["threshold"]


def test_nothing_about_the_machine_is_in_the_records(run):
    assert len(run["records"]) > 50
    for record in run["records"]:
        text = str(record)
        assert CANARY not in text
        for path in (str(run["directory"]), str(run["home"]), "/home/", os.getcwd(), "private"):
            assert path not in text, record
        if len(socket.gethostname()) > 4:
            assert socket.gethostname() not in text


def test_files_are_named_from_the_run_directory(run):
    artifacts = [r.artifact for r in run["records"] if r.WhichOneof("record_type") == "artifact"]
    paths = [entry.local_path for artifact in artifacts for entry in artifact.manifest.contents]
    given = [path for path in paths if not path.startswith("/")]
    assert {path.partition("/")[0] for path in given} == {"policies", "demonstrations"}
    assert len(given) == 6
    if os.path.exists("/proc/self/cwd"):
        assert all(path.startswith("/proc/self/cwd/wandb/") for path in set(paths) - set(given))


def test_all_files_are_in_the_run_directory_and_no_logs_are_left(run):
    assert list(run["home"].rglob("*")) == []
    secrets = [p for p in run["directory"].rglob("*") if p.is_file() and CANARY.encode() in p.read_bytes()]
    assert secrets == []
    files = {p.name for p in run["directory"].glob("wandb/offline-run-*/files/*")}
    assert files == {"media"}, "no metadata, requirements or code"
    assert {p.name for p in run["directory"].glob("wandb/*")} - {"lock", "data"} == {
        following.logs(run["directory"])[0].parent.name
    }
    assert [p for p in run["directory"].rglob("*") if p.suffix == ".log" or p.name == "logs"] == []


def resumed(events, lost):
    """Return the events of a run that was killed in stage `again` and resumed; `lost` were written and taken back."""
    cut = next(i for i, event in enumerate(events) if event.stage_name == "again")
    start = Event(RunStarted("abcd1234", events[0].payload.curriculum, 7, {}, True), events[cut - 1].global_step)
    return events[: cut + lost], [*events[:cut], start, *events[cut:]]


@pytest.fixture
def server(monkeypatch):
    server = wandb_server.Server()
    monkeypatch.setenv("WANDB_API_KEY", wandb_server.KEY)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    yield server
    server.close()


def numbers(rows):
    """Return rows without what depends on the moment of logging."""
    own = ("_runtime", "_step", "stages")
    return [{key: value for key, value in row.items() if key not in own} for row in rows]


def test_a_resumed_run_is_written_anew_offline_in_one_folder(run, tmp_path):
    realistic.files(tmp_path)
    first, second = resumed(run["events"], lost=4)
    assert follow(tmp_path, first) == []
    assert follow(tmp_path, second) == []
    (file,) = following.logs(tmp_path)
    rows = history({"records": wandb_file.records(file)})
    assert numbers(rows) == numbers(history(run))
    assert [row["_step"] for row in rows] == list(range(len(rows)))


@pytest.mark.parametrize("lost", [4, *(pytest.param(lost, marks=pytest.mark.slow) for lost in (0, 6))])
def test_a_resumed_run_goes_on_online_without_a_point_twice(lost, run, tmp_path, server):
    realistic.files(tmp_path)
    first, second = resumed(run["events"], lost)
    follow(tmp_path, first, "online")
    known = server.runs["abcd1234"]
    before = known["sent"]
    assert (known["exit"], 30 < before < 46) == (1, True)
    follow(tmp_path, second, "online")
    rows = server.rows("abcd1234")
    assert numbers(rows) == numbers(history(run))
    assert [row["_step"] for row in rows] == list(range(len(rows)))
    assert known["sent"] == len(rows), "no point was sent twice"
    assert known["exit"] == 3
    assert list(tmp_path.glob("wandb/*run*")) == [], "W&B has all of it"


def test_uploading_again_changes_nothing_and_says_nothing_of_the_machine(run, tmp_path, server, monkeypatch):
    monkeypatch.setenv("MY_SECRET", CANARY)
    realistic.files(tmp_path)
    follow(tmp_path, run["events"], "online")
    known = server.runs["abcd1234"]
    points, versions, summary = known["sent"], list(server.artifacts), known["summary"]
    assert points == len(history(run))
    policies = [one["name"] for one in versions if one["name"].endswith("policy")]
    assert policies == [f"balance-{stage}-policy" for stage in ("copy", "short", "again", "long")]
    follow(tmp_path, run["events"], "online")
    assert (known["sent"], server.artifacts) == (points, versions)
    assert known["summary"]["verdicts"] == summary["verdicts"]
    sent = json.dumps([server.runs, server.artifacts], default=str) + str(server.files)
    for secret in (CANARY, str(tmp_path), str(run["home"]), "/home/", os.getcwd(), "private", wandb_server.KEY):
        assert secret not in sent
    assert "host" not in known["asked"]


@pytest.mark.slow
def test_settings_that_came_with_the_run_directory_do_not_choose_the_server(run, tmp_path, server, monkeypatch):
    realistic.files(tmp_path)
    for folder in ("wandb", ".wandb"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "settings").write_text("[default]\nbase_url = http://127.0.0.1:1\napi_key = " + "e" * 40)
    (tmp_path / "json.py").write_text("raise SystemExit")
    monkeypatch.delenv("WANDB_BASE_URL")
    home = tmp_path / "config"
    home.mkdir()
    (home / "settings").write_text(f"[default]\nbase_url = {server.url}\n")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(home))
    follow(tmp_path, run["events"], "online")
    assert server.runs["abcd1234"]["sent"] == len(history(run))


def test_rollouts_are_thinned_but_the_last_is_kept(tmp_path):
    realistic.files(tmp_path)
    _, events = realistic.story()
    at_once = [dataclasses.replace(event, time=1e9) for event in events]
    assert follow(tmp_path, at_once) == []
    rows = history({"records": wandb_file.records(following.logs(tmp_path)[0])})
    logged = [row["global_step"] for row in rows if "rollout/threshold" in row]
    last = [max(e.global_step for e in events if e.stage_name == n and is_rollout(e)) for n in ("short", "long")]
    assert len(logged) < 5 < sum(map(is_rollout, events))
    assert set(last) <= set(logged)
    assert logged == sorted(logged)


def test_missing_policy_file_is_a_warning_and_no_more(tmp_path):
    realistic.files(tmp_path)
    (tmp_path / "policies" / "short.safetensors").unlink()
    (tmp_path / "policies" / "again.safetensors").unlink()
    (tmp_path / "policies" / "again.safetensors").symlink_to("/etc/hostname")
    _, events = realistic.story()
    said = follow(tmp_path, events)
    assert said == [
        f"W&B gets no policy of stage {stage!r}: there is no file {stage}.safetensors." for stage in ("short", "again")
    ]
    assert "balance-long-policy" in artifacts({"records": wandb_file.records(following.logs(tmp_path)[0])})
