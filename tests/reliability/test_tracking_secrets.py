"""Canaries: what a person would not expect in a run directory, or at W&B, is looked for in every byte written."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import closing

import pytest
import wandb_server
from building import COMMAND, curriculum, surroundings, tuning

from rlstages import train
from rlstages.cli.demonstrating import record_demonstrations
from rlstages.storage.record import read_record

EXPERT_AND_DEMONSTRATIONS = """
import os
from rlstages import *

def curriculum():
    echo = Environment("toys:Echo")
    until = SuccessThreshold(0.5, window=8, max_episodes=120)
    agent = Agent("PPO", n_envs=4, n_steps=16, batch_size=32, n_epochs=2, network=(16,), learning_rate=1e-2)
    quick = dict(max_epochs=2, batch_size=16, evaluation_episodes=4)
    return Curriculum("small", agent=agent, held_out=[Environment("toys:Echo", steps=6)], stages=[
        BehaviorCloning("from a run", echo, expert=Expert(os.environ["EXPERT_RUN"], episodes=6), **quick),
        BehaviorCloning("from a file", echo, demonstrations=os.environ["SHOWN"], **quick),
        FineTuning("tune", echo, until=until, max_steps=4_000, critic_fit_steps=128, evaluation_episodes=4),
    ])
"""
# What is planted, by where it is planted.
CANARIES = {
    "environment variable": "canary-env-5d1c",
    "W&B's key": wandb_server.KEY[:-12] + "cafe00c0ffee",
    "AWS key": "AKIACANARY5D1C0000X1",
    "command line": "canary-argv-5d1c",
    "root directory": "canary-root-5d1c",
    "home directory": "canary-home-5d1c",
    "user name": "canary-user-5d1c",
    "host name": "canary-host-5d1c",
    "git remote": "canary-git-5d1c",
    "commit message": "canary-commit-5d1c",
}


def tree(directory):
    """Return every name and every byte below a directory, links included."""
    found = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        found[name] = os.readlink(path).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
    return found


def leaks(found, root):
    return [
        (where, name)
        for where, secret in {**CANARIES, "absolute path": str(root)}.items()
        for name, content in found.items()
        if secret.encode() in content or secret in name
    ]


def named_host():
    """Return what runs a command under a host name of its own, or nothing where that is not allowed."""
    host = CANARIES["host name"]
    for unshare in (["unshare", "-u"], ["unshare", "-Uru"]):
        command = [*unshare, "sh", "-c", f'hostname {host} && exec "$@"', "sh"]
        if (
            shutil.which("unshare")
            and not subprocess.run([*command, "true"], capture_output=True, check=False).returncode
        ):
            return command
    return []


@pytest.fixture
def place(tmp_path):
    """A project directory below a telling root: curriculum, git repository, an expert's run, demonstrations."""
    root = tmp_path / CANARIES["root directory"]
    project, home = root / "project", root / CANARIES["home directory"]
    for directory in (project, home):
        directory.mkdir(parents=True)
    (project / "secret_plan.py").write_text(EXPERT_AND_DEMONSTRATIONS)
    train(curriculum(tuning(max_steps=900, on_timeout="advance")), out=project / "expert-run")
    record_demonstrations("toys:Echo", "toys:tell", project / "shown.safetensors", 6, 0, {}, False)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (
        ["init", "-q"],
        ["remote", "add", "origin", f"https://{CANARIES['git remote']}@host.invalid/x"],
        ["add", "secret_plan.py"],
        ["commit", "-q", "-m", CANARIES["commit message"]],
    ):
        subprocess.run([*git, *arguments], cwd=project, check=True)
    return project


def rlstages(place, *arguments, **more):
    home = place.parent / CANARIES["home directory"]
    user = CANARIES["user name"]
    variables = {
        "MY_SECRET": CANARIES["environment variable"],
        "AWS_SECRET_ACCESS_KEY": CANARIES["AWS key"],
        **{name: user for name in ("USER", "LOGNAME", "USERNAME", "LNAME")},
        "EXPERT_RUN": str(place / "expert-run"),
        "SHOWN": str(place / "shown.safetensors"),
        **more,
    }
    # Python keeps unknown -X options in the process's command line.
    command = [*named_host(), sys.executable, "-X", f"token={CANARIES['command line']}", "-c", COMMAND]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        cwd=place,
        env=surroundings(home, **variables),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_search_finds_what_is_there(tmp_path):
    (tmp_path / "a").write_bytes(b"\\0" + CANARIES["AWS key"].encode())
    (tmp_path / "b").symlink_to(f"/home/{CANARIES['user name']}")
    assert leaks(tree(tmp_path), "/nowhere") == [("AWS key", "a"), ("user name", "b")]


@pytest.mark.parametrize("mode", ["offline", pytest.param("online", marks=pytest.mark.slow)])
def test_no_canary_is_in_anything_that_is_written_or_sent(mode, place):
    root = place.parent
    run = place / "runs" / "mine"
    with closing(wandb_server.Server()) as server:
        keys = {"WANDB_API_KEY": CANARIES["W&B's key"], "WANDB_BASE_URL": server.url}
        told = rlstages(place, "train", place / "secret_plan.py", "--out", run, "--track", mode, **keys)
        # The policy of the earlier run is hardly trained, and so is the clone: that is said.
        expected = ("not better than random", "below its expert")
        warned = [line for line in told.splitlines() if "warning" in line]
        assert [line for line in warned if not any(words in line for words in expected)] == []
        if mode == "online":
            (known,) = server.runs.values()
            assert known["sent"] > 5 and len(server.artifacts) > 5
            sent = {"runs": json.dumps(server.runs, default=str).encode(), "artifacts": str(server.artifacts).encode()}
            assert leaks({**sent, **server.files}, root) == []
    written = tree(run)
    assert any(name.startswith("checkpoints/") for name in written) and any("tfevents" in name for name in written)
    assert (mode == "offline") == any(name.endswith(".wandb") for name in written)
    assert leaks(written, root) == []
    assert leaks(tree(root / CANARIES["home directory"]), root) == []
    shown = (place / "shown.safetensors").read_bytes()
    assert leaks({"shown": shown}, root) == []


@pytest.mark.slow
def test_the_paths_that_are_not_written_are_found_again(place):
    place_of = {"EXPERT_RUN": place / "expert-run", "SHOWN": place / "shown.safetensors"}
    run = place / "runs" / "mine"
    rlstages(place, "train", place / "secret_plan.py", "--out", run, "--track", "none")

    stages = read_record(run).curriculum.stages
    assert stages[0].expert.source == str(place_of["EXPERT_RUN"])
    assert stages[1].demonstrations == str(place_of["SHOWN"])
    moved = place.rename(place.with_name("elsewhere"))
    stages = read_record(moved / "runs" / "mine").curriculum.stages
    assert stages[0].expert.source == str(moved / "expert-run")
    assert stages[1].demonstrations == str(moved / "shown.safetensors")
