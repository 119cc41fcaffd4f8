"""What the command line asks before it runs somebody else's code, and what it says then."""

import shutil
import sys

import pytest
from refusing import told

from rlstages import train
from rlstages.specs import references
from rlstages.storage.run_directory import read_events

PLAN = """
from pathlib import Path

import toys
from rlstages import Agent, Curriculum, Environment, FineTuning, SuccessThreshold

Path(__file__).with_suffix(".ran").touch()


class Mine(toys.Always):
    pass


def curriculum(long: int = 6) -> Curriculum:
    until = SuccessThreshold(0.5, window=4, max_episodes=120)
    stage = FineTuning("easy", Environment(Mine, long=long), until=until, max_steps=1_500, critic_fit_steps=0)
    return Curriculum("mine", agent=Agent("PPO", n_envs=4, n_steps=16, batch_size=32, network=[16]), stages=[stage])
"""


@pytest.fixture
def strange(here, monkeypatch):
    """A run of somebody else's, as a new process finds it, beside its curriculum file."""
    (here / "mine.py").write_text(PLAN)
    train("mine.py", out="run")
    sys.modules.pop("mine")
    monkeypatch.setattr(references, "_SOURCES", {})
    (here / "mine.ran").unlink()
    shutil.move(here / "run", here / "strange")
    return here / "strange"


def test_evaluating_and_resuming_it_name_what_they_would_import(rlstages, strange, here):
    for command in (["evaluate", strange], ["resume", strange, "--max-steps", "9000", "--track", "none"]):
        outcome = rlstages(*command)
        assert outcome.code == 2 and told(outcome.error) == ("untrusted", "strange", "mine:Mine")
    assert not (here / "mine.ran").exists()


def test_showing_and_exporting_it_need_no_trust(rlstages, strange, here):
    assert rlstages("show", strange).code == 0
    assert rlstages("export", strange, "--out", "policy.safetensors", "--format", "safetensors").code == 0
    assert not (here / "mine.ran").exists()


def test_its_file_or_a_flag_let_it_be_evaluated(rlstages, strange, here):
    given = rlstages("evaluate", strange, "mine.py", "--episodes", "4")
    assert given.code == 0, given.err
    other = rlstages("evaluate", strange, "mine.py", "-p", "long=7", "--episodes", "4")
    assert other.code == 2 and told(other.error) == ("untrusted", "strange", "mine:Mine")
    trusted = rlstages("evaluate", strange, "--trust-imports", "--episodes", "4")
    assert trusted.code == 0
    assert (
        trusted.err
        == "--trust-imports: every module that the run names is imported and run, from files that it names too.\n"
    )


def test_trusting_pickles_says_what_it_risks(rlstages, strange):
    outcome = rlstages("resume", strange, "--trust-pickle", "--track", "none")
    assert outcome.err == (
        "--trust-pickle: loading an expert's model zip runs any code that is hidden in it, with all that you may do.\n"
    )
    assert list(read_events(strange))
