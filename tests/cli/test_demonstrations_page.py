"""The files and commands of docs/demonstrations.md do what the page says."""

import re
import shlex
from pathlib import Path

import pytest
from stable_baselines3 import PPO

from rlstages import load_demonstrations

PAGE = (Path(__file__).parents[2] / "docs" / "demonstrations.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def files(here):
    expert, arrays, plan = blocks("python")
    (here / "controller.py").write_text(expert)
    (here / "copy_poles.py").write_text(plan)
    PPO("MlpPolicy", "CartPole-v1", device="cpu").save(here / "model.zip")
    exec(arrays, {})
    return here


@pytest.mark.slow
def test_the_arrays_are_demonstrations_and_what_recording_writes_is_the_same_in_kind(files, rlstages):
    own = load_demonstrations("poles.npz")
    assert len(own) == 20 and own.steps == sum(map(len, own.episodes)) > 20 * 100

    for command in [line for block in blocks("console") for line in block.splitlines()]:
        more = ["--track", "none"] if " train " in command else []
        outcome = rlstages(*shlex.split(command)[1:], *more)
        assert outcome.code == 0, (command, outcome.err)

    recorded = load_demonstrations("poles.safetensors")
    assert len(recorded) == 20
    assert [len(load_demonstrations(f"from_{who}.safetensors")) for who in ("model", "run")] == [5, 5]
    first, other = own.episodes[0], recorded.episodes[0]
    assert first.observations.shape[1:] == other.observations.shape[1:] == (4,)
    assert len(first.observations) == len(first) + 1


def test_every_command_that_takes_an_expert_is_told_of_pickles_and_none_else(rlstages, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    said = re.search(r"So (.*) take\s+`--trust-pickle`", PAGE, flags=re.DOTALL).group(1)
    takers = set(re.findall(r"`([a-z ]+)`", said))

    every = ["train", "resume", "show", "evaluate", "export", "track", "compare", "sweep", "demos record"]
    taking = {name for name in every if "trust-pickle" in rlstages(*name.split(), "--help").out}

    assert takers == taking
