import dataclasses
import json
import os
import socket
import time

import pytest
import realistic
import wandb_file

from rlstages.events import Event, RolloutFinished, RunStarted
from rlstages.tracking.wandb import wandb_tracker

pytest.importorskip("wandb")
# Media files are built in a temporary directory that W&B drops without closing.
pytestmark = pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")

CANARY = "canary-8d1f"


def follow(directory, events, mode="offline", **options):
    said = []
    tracker = wandb_tracker(directory, mode, run_id="abcd1234", name="balance-s7", warn=said.append, **options)
    for event in events:
        tracker(event)
    tracker.close()
    return said


def is_rollout(event):
    return isinstance(event.payload, RolloutFinished)


def log_files(directory):
    return sorted((directory / "wandb").glob("*run-*/run-*.wandb"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory with an offline W&B run in it, its records, its events and the home directory it had."""
    home, directory = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("run")
    realistic.files(directory)
    plan, events = realistic.story()
    with pytest.MonkeyPatch.context() as patch:
        for key in [key for key in os.environ if key.startswith(("WANDB_", "XDG_"))]:
            patch.delenv(key)
        patch.setenv("HOME", str(home))
        patch.setenv("MY_SECRET", CANARY)
        patch.setattr("sys.argv", ["rlstages", "--token", CANARY])
        before = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
        said = follow(directory, events)
        after = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
        assert after == before
    assert said == []
    (file,) = log_files(directory)
    return {"directory": directory, "home": home, "records": wandb_file.whole(file), "plan": plan, "events": events}


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
    assert config["digest"] == run["plan"].digest
    assert config["versions"] == {"python": "3.11.7", "rlstages": "0.1.0"}
    stages = config["curriculum"]["stages"]
    assert [stage["name"] for stage in stages] == ["copy", "short", "again", "long"]
    assert stages[0]["demonstrations"] == "shown.npz"
    assert stages[1]["until"]["threshold"] == 100


def test_every_prefix_has_its_own_axis(run):
    defined = [r.metric for r in run["records"] if r.WhichOneof("record_type") == "metric"]
    axes = {m.glob_name: m.step_metric for m in defined if m.glob_name}
    steps = {f"{prefix}/*": "global_step" for prefix in ("rollout", "train", "eval", "stage")}
    assert axes == {"clone/*": "clone/epoch", **steps}
    assert {m.name for m in defined if m.name} == {"global_step", "clone/epoch"}


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
        if record.WhichOneof("record_type") == "artifact":
            # Where the files lie, for `wandb sync` on this machine; the server is sent the contents.
            for entry in record.artifact.manifest.contents:
                assert entry.local_path.startswith(str(run["directory"]))
                entry.local_path = ""
        text = str(record)
        assert CANARY not in text
        for path in (str(run["directory"]), str(run["home"]), "/home/", os.getcwd(), "private"):
            assert path not in text, record
        if len(socket.gethostname()) > 4:
            assert socket.gethostname() not in text


def test_all_files_are_in_the_run_directory(run):
    assert list(run["home"].rglob("*")) == []
    secrets = [p for p in run["directory"].rglob("*") if p.is_file() and CANARY.encode() in p.read_bytes()]
    assert secrets == []
    files = {p.name for p in run["directory"].glob("wandb/offline-run-*/files/*")}
    assert files == {"media"}, "no metadata, requirements or code"


def test_resumed_run_goes_on_counting(tmp_path):
    realistic.files(tmp_path)
    plan, events = realistic.story()
    half = next(i for i, event in enumerate(events) if event.stage_name == "again")
    resumed = [Event(RunStarted("abcd1234", plan, 7, {}, resumed=True), events[half - 1].global_step)]
    said = follow(tmp_path, resumed + events[half:], resumed=True, history=events[:half])
    assert said == []
    records = wandb_file.whole(log_files(tmp_path)[0])
    rows = history({"records": records})
    assert [row["clone/epoch"] for row in rows if "clone/loss" in row] == [4, 5]
    assert [row["stages"]["nrows"] for row in rows if "stages" in row] == [3, 4]


def test_rollouts_are_thinned_but_the_last_is_kept(tmp_path):
    realistic.files(tmp_path)
    _, events = realistic.story()
    at_once = [dataclasses.replace(event, time=1e9) for event in events]
    assert follow(tmp_path, at_once) == []
    rows = history({"records": wandb_file.whole(log_files(tmp_path)[0])})
    logged = [row["global_step"] for row in rows if "rollout/threshold" in row]
    last = [max(e.global_step for e in events if e.stage_name == n and is_rollout(e)) for n in ("short", "long")]
    assert len(logged) < 5 < sum(map(is_rollout, events))
    assert set(last) <= set(logged)
    assert logged == sorted(logged)


def test_refusing_server_costs_seconds_and_the_run_goes_on_offline(tmp_path, monkeypatch, capfd):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    import wandb

    wandb.teardown()
    monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    realistic.files(tmp_path)
    _, events = realistic.story()
    began = time.monotonic()
    said = follow(tmp_path, events, mode="online", init_seconds=1.0)
    assert time.monotonic() - began < 15
    assert len(said) == 1
    assert "kept offline" in said[0]
    assert capfd.readouterr() == ("", "")
    (kept,) = [file for file in log_files(tmp_path) if file.parent.name.startswith("offline-run-")]
    assert len([row for row in history({"records": wandb_file.whole(kept)}) if "clone/loss" in row]) == 5


def test_without_a_key_nothing_is_asked(tmp_path, monkeypatch, capfd):
    import wandb

    wandb.teardown()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    _, events = realistic.story()
    said = follow(tmp_path, events[:1], mode="online", init_seconds=1.0)
    assert len(said) == 1
    assert "kept offline" in said[0]
    assert capfd.readouterr() == ("", "")


def test_directory_that_cannot_be_written_turns_it_off_with_one_warning(tmp_path):
    (tmp_path / "wandb").write_text("in the way")
    _, events = realistic.story()
    said = follow(tmp_path, events)
    assert len(said) == 1
    assert "off for the rest of this run" in said[0]
    assert str(tmp_path) not in said[0]


def test_missing_policy_file_is_a_warning_and_no_more(tmp_path):
    realistic.files(tmp_path)
    (tmp_path / "policies" / "short.safetensors").unlink()
    _, events = realistic.story()
    said = follow(tmp_path, events)
    assert said == ["W&B gets no policy of stage 'short': there is no file short.safetensors."]
    assert "balance-long-policy" in artifacts({"records": wandb_file.whole(log_files(tmp_path)[0])})
