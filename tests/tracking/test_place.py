"""Where W&B has a run, as the run directory tells; it may be a stranger's."""

import pytest

from rlstages.specs.serialization import dumps
from rlstages.tracking.wandb.tracker import keep_place, place_lines, place_of


def test_address_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wandb").mkdir()
    keep_place("https://w.example.org/me/rlstages/runs/ab", None)
    assert place_of(tmp_path) == {"url": "https://w.example.org/me/rlstages/runs/ab"}
    assert place_lines(tmp_path) == ["W&B: https://w.example.org/me/rlstages/runs/ab"]


def test_folder_is_told_as_long_as_it_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b" / "wandb" / "offline-run-1-ab").mkdir(parents=True)
    with monkeypatch.context() as inside:
        inside.chdir(tmp_path / "a b")
        keep_place(None, "wandb/offline-run-1-ab")
    assert place_lines(tmp_path / "a b") == [
        "W&B: offline, in 'a b/wandb/offline-run-1-ab'",
        "Upload it: (cd 'a b' && wandb sync wandb/offline-run-1-ab)",
    ]
    (tmp_path / "a b" / "wandb" / "offline-run-1-ab").rmdir()
    assert place_lines(tmp_path / "a b") == []


@pytest.mark.parametrize(
    "content",
    [
        "[1]",
        "{",
        dumps({"url": "file:///etc/passwd"}),
        dumps({"url": "https://x\x1b[31m"}),
        dumps({"folder": "wandb/offline-run-1; rm -rf ~"}),
        dumps({"folder": "../../offline-run-1"}),
        dumps({"folder": ["wandb"]}),
    ],
)
def test_what_a_stranger_wrote_is_not_told(content, tmp_path):
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "place.json").write_text(content)
    assert place_of(tmp_path) == {}
