import json
import math

import pytest
import realistic

from rlstages.events import EpochFinished, Event
from rlstages.events.privacy import without_paths
from rlstages.tracking.metrics import metrics
from rlstages.tracking.wandb.session import tracking_mode


def test_events_read_from_the_log_have_the_same_metrics():
    for event in realistic.story()[1]:
        again = Event.from_data(json.loads(event.to_json()))
        assert metrics(again) == metrics(event)


def test_only_finite_numbers():
    found = metrics(Event(EpochFinished(1, {"loss": math.inf, "accuracy": 0.5}, best=False), 0))
    assert found == {"clone/accuracy": 0.5}


def test_prefixes_are_disjoint():
    names = {name for event in realistic.story()[1] for name in metrics(event)}
    assert {name.split("/")[0] for name in names} == {"clone", "rollout", "train", "eval", "stage"}


@pytest.fixture
def clean(monkeypatch, tmp_path):
    for key in (
        "WANDB_API_KEY",
        "WANDB_MODE",
        "WANDB_BASE_URL",
        "WANDB_CONFIG_DIR",
        "WANDB_IDENTITY_TOKEN_FILE",
        "NETRC",
    ):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def netrc(home, machine):
    (home / ".netrc").write_text(f"machine {machine}\n  login user\n  password {'f' * 40}\n")
    (home / ".netrc").chmod(0o600)


def settings(home, text):
    (home / ".config" / "wandb").mkdir(parents=True)
    (home / ".config" / "wandb" / "settings").write_text(text)


def test_no_key_means_offline(clean):
    assert tracking_mode("auto") == "offline"


def test_key_in_the_environment_means_online(clean, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
    assert tracking_mode("auto") == "online"


def test_key_in_netrc_counts_for_its_server(clean, monkeypatch):
    netrc(clean, "api.wandb.ai")
    assert tracking_mode("auto") == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert tracking_mode("auto") == "offline"
    netrc(clean, "wandb.example.org")
    assert tracking_mode("auto") == "online"


def test_settings_file_names_the_server_and_the_mode(clean):
    netrc(clean, "wandb.example.org")
    settings(clean, "[default]\nbase_url = https://wandb.example.org\n")
    assert tracking_mode("auto") == "online"
    (clean / ".config" / "wandb" / "settings").write_text(
        "[default]\nbase_url = https://wandb.example.org\nmode = offline\n"
    )
    assert tracking_mode("auto") == "offline"


@pytest.mark.parametrize(
    ("said", "mode"), [("offline", "offline"), ("dryrun", "offline"), ("disabled", "none"), ("online", "online")]
)
def test_wandb_mode_is_honoured(clean, monkeypatch, said, mode):
    if mode != "online":
        monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
    monkeypatch.setenv("WANDB_MODE", said)
    assert tracking_mode("auto") == mode


@pytest.mark.parametrize("text", ["machine", "\x00\xff", "machine api.wandb.ai login"])
def test_broken_netrc_means_offline(clean, text):
    (clean / ".netrc").write_bytes(text.encode("latin-1"))
    (clean / ".netrc").chmod(0o600)
    assert tracking_mode("auto") == "offline"


def test_what_was_asked_for_stands(clean, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert tracking_mode("online") == "online"
    assert tracking_mode("none") == "none"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("/home/someone/shown.npz", "shown.npz"),
        ("~/shown.npz", "shown.npz"),
        (r"C:\Users\someone\shown.npz", "shown.npz"),
        ("clone /home/someone/shown.npz in CartPole-v1", "clone shown.npz in CartPole-v1"),
        ("see '/tmp/a/b' (or=/x/y)", "see 'b' (or=y)"),
        ("runs/a/policy", "runs/a/policy"),
        ("rollout/return 3/4 and https://x.org/y", "rollout/return 3/4 and https://x.org/y"),
        ("rlstages_envs:rlstages/Rooms-v0", "rlstages_envs:rlstages/Rooms-v0"),
    ],
)
def test_absolute_paths_are_cut(text, kept):
    assert without_paths({"a": [text]}) == {"a": [kept]}
