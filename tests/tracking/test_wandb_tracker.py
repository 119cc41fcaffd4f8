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
from rlstages.events.privacy import without_paths
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.serialization import from_data, to_data
from rlstages.tracking.metrics import STEP_PREFIXES, SUMMARIES
from rlstages.tracking.wandb.artifacts import stage_alias
from rlstages.tracking.wandb.run import GateCurve
from rlstages.tracking.wandb.session import config_of

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
    told = [(a, json.loads(a.metadata)) for a in found if a.type != "run_table"]
    return {f"{about['stage']}-{a.type}": (a, about) for a, about in told}


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
    assert config["version.rlstages"] == "0.1.0"
    assert config["stage.copy.demonstrations"] == "shown.npz"
    assert config["stage.short.until.threshold"] == 100
    assert Curriculum.from_json(config["curriculum_json"]) == shown


def test_config_is_flat(run):
    config = wandb_file.items(started(run).config.update)
    assert not [key for key, value in config.items() if isinstance(value, dict) and key != "_wandb"]
    assert {key.partition(".")[0] for key in config} == {
        *("agent", "curriculum", "curriculum_json", "digest", "held_out", "retention_share", "seed", "stage"),
        *("version", "_wandb"),
    }
    assert (config["agent.n_envs"], config["agent.learning_rate"]) == (8, 3e-4), "what is in force"
    assert config["stage.long.environment.id"] == "CartPole-v1"
    assert (config["stage.long.type"], config["stage.long.anchor_kl"]) == ("FineTuning", 0.0)


def test_parameters_go_by_their_own_names(run):
    plain, named = (config_of(run["events"][0].payload, given) for given in ({}, {"rate": 0.1, "seed": 3}))
    assert {key: value for key, value in named.items() if key not in plain} == {"rate": 0.1, "parameter.seed": 3}
    assert named["seed"] == 7


def test_every_prefix_has_its_own_axis(run):
    defined = [r.metric for r in run["records"] if r.WhichOneof("record_type") == "metric"]
    axes = {m.glob_name: m.step_metric for m in defined if m.glob_name}
    steps = {f"{prefix}/*": "global_step" for prefix in STEP_PREFIXES}
    assert axes == {"clone/*": "clone/epoch", **steps}
    named = {m.name: m for m in defined if m.name and not m.expanded_from_glob}
    assert set(named) == {"global_step", "clone/epoch", *SUMMARIES}
    for name in SUMMARIES:
        assert named[name].step_metric == axes[f"{name.partition('/')[0]}/*"]
        assert named[name].summary.last and named[name].summary.max == (name != "clone/held_out_loss")


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
    assert [(row["eval/confirm_attempt"], row["eval/confirm_episodes"]) for row in confirmed] == [(1, 40), (2, 60)]
    assert confirmed[-1]["eval/confirm_threshold"] < confirmed[-1]["eval/confirm_bound"]
    assert confirmed[-1]["eval/confirm_bound"] < confirmed[-1]["eval/confirm_value"]
    ended = next(row for row in rows if "stage/seconds" in row and row["stage/name"] == "short")
    assert ended["stage/before_return"] < 30 < ended["stage/threshold"] < ended["stage/after_return"]


def test_score_and_threshold_are_lines_of_one_chart(run):
    (shown,) = [row["gate_table"] for row in history(run) if row.get("stage/name") == "short" and "gate_table" in row]
    (files,) = [p.parent for p in run["directory"].glob("wandb/offline-run-*/files")]
    table = json.loads((files / "files" / shown["path"]).read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    lines = {key: [row["lineVal"] for row in rows if row["lineKey"] == key] for key in ("score", "threshold")}
    assert lines["score"][:4] == [60, 80, 95, 105]
    assert set(lines["threshold"]) == {100} and len(lines["threshold"]) == len(lines["score"])


@pytest.mark.parametrize("rollouts", [500, 501, 5_000])
def test_chart_of_a_long_run_stays_small_and_covers_all_of_it(rollouts):
    curve, rollout = GateCurve(), next(event for event in realistic.story()[1] if is_rollout(event))
    at_work = dataclasses.replace(rollout.payload, value=1.0)
    for step in range(rollouts):
        curve.take(dataclasses.replace(rollout, payload=at_work, global_step=step))
    steps = [row[0] for row in curve.chart()["gate"].table.data]
    assert len(steps) <= 2 * 500
    assert min(steps) == 0 and max(steps) >= 0.98 * rollouts


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
    assert {(a.name, a.type) for a, _ in found.values()} == {
        ("balance-policy", "model"),
        ("balance-demonstrations", "dataset"),
    }
    assert list(found) == [*("copy-dataset", "copy-model", "short-model", "again-dataset", "again-model"), "long-model"]
    about = found["short-model"][1]
    assert (about["digest"], about["parent"], about["stage"]) == ("1" * 64, "a" * 64, "short")
    assert about["verdict"]["met"] is True
    assert about["score"]["episodes"] == 40
    assert found["copy-model"][1]["parent"] == found["copy-dataset"][1]["digest"] == "d" * 64
    (entry,) = found["short-model"][0].manifest.contents
    assert (entry.path, entry.size) == ("short.safetensors", 10 * len("policies/short.safetensors"))


def test_aliases_name_the_stage_how_it_ended_and_the_last_policy(run):
    aliases = {name: set(a.aliases) - {"latest"} for name, (a, _) in artifacts(run).items()}
    assert aliases["copy-dataset"] == {"copy", "sha256-" + "d" * 16}
    assert aliases["short-model"] == {"short", "reached", "sha256-" + "1" * 16}
    assert aliases["long-model"] == {"long", "missed", "final", "sha256-" + "3" * 16}


@pytest.mark.parametrize(
    ("stage", "alias"), [("two rooms", "two-rooms"), ("v2", "stage-v2"), ("final", "stage-final"), ("a/b:c", "a-b-c")]
)
def test_alias_is_one_that_w_and_b_takes(stage, alias):
    assert stage_alias(stage) == alias


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
    assert {p.name for p in run["directory"].glob("wandb/*")} - {"lock", "data", "place.json"} == {
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
    own = ("_runtime", "_step", "stages", "gate_table")
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


@pytest.mark.slow
def test_uploading_again_changes_nothing_and_says_nothing_of_the_machine(run, tmp_path, server, monkeypatch):
    monkeypatch.setenv("MY_SECRET", CANARY)
    realistic.files(tmp_path)
    follow(tmp_path, run["events"], "online")
    known = server.runs["abcd1234"]
    points, versions, summary = known["sent"], list(server.artifacts), known["summary"]
    assert points == len(history(run))
    assert [one["name"] for one in versions].count("balance-policy") == 4
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
    assert "long-model" in artifacts({"records": wandb_file.records(following.logs(tmp_path)[0])})
