"""A small real run, made once, and copies of it to damage."""

import json
import os
import shutil

import pytest
from building import cloning, curriculum, tuning

from rlstages import Environment, Expert, SuccessThreshold, train
from rlstages.storage.checkpoints import checkpoint_names, read_checkpoint, sha256

SURE = SuccessThreshold(0.5, window=4, max_episodes=120)
# Names that may be followed in anybody's run, so that nothing but the damage stands in the way.
POLE = Environment("rlstages_envs.cartpole:cartpole", max_steps=20, success=1.0)


def make_run(path):
    """Clone and fine-tune on a pole for a moment; two stages, both ended."""
    plan = curriculum(
        cloning(environment=POLE, expert=Expert("rlstages_envs:balance", episodes=3), max_epochs=2),
        tuning("easy", POLE, until=SURE, critic_fit_steps=0, max_steps=1_500),
    )
    assert train(plan, out=path).outcome == "reached"


def digest_of(data):
    """The digest of a curriculum's JSON data, whatever it says."""
    return sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode())


@pytest.fixture(scope="session")
def stopped(tmp_path_factory):
    """A run whose stages have ended, and that was killed before it said so."""
    path = tmp_path_factory.mktemp("stopped") / "run"
    make_run(path)
    shutil.rmtree(path / "checkpoints" / checkpoint_names(path / "checkpoints")[-1])
    last = read_checkpoint(path / "checkpoints" / checkpoint_names(path / "checkpoints")[-1])
    os.truncate(path / "events.jsonl", last["events_bytes"])
    return path


@pytest.fixture
def run(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "run")
