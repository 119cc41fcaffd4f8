"""Whose code a run directory may bring in: gymnasium's and ours from anybody, anything else from its owner only."""

import json
import os
import shutil
import sys

import pytest
from building import agent, cloning, curriculum, echo, lines, tuning
from refusing import refused

from rlstages import (
    Agent,
    Curriculum,
    Environment,
    Expert,
    FineTuning,
    SuccessThreshold,
    load_curriculum,
    resume,
    train,
)
from rlstages.play.saved_policies import evaluate, load_policy
from rlstages.specs.references import sources
from rlstages.specs.serialization import from_data
from rlstages.storage.record import new_record, read_record
from rlstages.storage.trust import is_own, remember, trust_sources

ALWAYS = Environment("toys:Always")
SURE = SuccessThreshold(0.5, window=4, max_episodes=120)
FILE = """
import gymnasium as gym
import toys
from pathlib import Path
from rlstages import Agent, Curriculum, FineTuning, Environment, SuccessThreshold

Path(__file__).with_suffix(".ran").touch()

class Mine(toys.Always):
    pass

def curriculum(steps: int = 1_500) -> Curriculum:
    until = SuccessThreshold(0.5, window=4, max_episodes=120)
    stage = FineTuning("easy", Environment(Mine), until=until, max_steps=steps, critic_fit_steps=0)
    return Curriculum("mine", agent=Agent("PPO", n_envs=4, n_steps=16, batch_size=32, network=[16]), stages=[stage])
"""


def easy(environment=ALWAYS, **settings):
    return tuning("easy", environment, **{"until": SURE, "max_steps": 1_500, "critic_fit_steps": 0, **settings})


def strange(path):
    """Return a copy of a run, which is nobody's own."""
    return shutil.copytree(path, path.with_name("strange"))


@pytest.fixture
def mine(here):
    """A run whose environment is in a file, and the file."""
    (here / "mine.py").write_text(FILE)
    assert train("mine.py", out="run").outcome == "reached"
    sys.modules.pop("mine")
    sources().pop("mine", None)
    (here / "mine.ran").unlink()
    return here / "run"


def forget_files(monkeypatch):
    """Be a new process, which knows no curriculum file."""
    from rlstages.specs import references

    monkeypatch.setattr(references, "_SOURCES", {})


def test_a_run_made_here_needs_no_word_of_trust(mine, monkeypatch):
    forget_files(monkeypatch)
    assert is_own(mine, read_record(mine))
    assert evaluate(mine, 4, 0)[0][1].success == 1.0
    assert resume(mine).outcome == "reached"


def test_a_copy_of_it_is_a_strangers_and_says_what_to_do(mine, monkeypatch):
    forget_files(monkeypatch)
    copy = strange(mine)
    before = lines(copy)
    for go_on in (lambda: resume(copy, max_steps=9_000), lambda: evaluate(copy, 4, 0)):
        with refused("untrusted", where="strange", name="mine:Mine"):
            go_on()
    assert not (mine.parent / "mine.ran").exists() and "mine" not in sys.modules
    assert lines(copy) == before


@pytest.mark.slow
def test_its_policy_can_be_had_all_the_same(mine, monkeypatch):
    forget_files(monkeypatch)
    copy = strange(mine)
    load_policy(copy)
    plan = curriculum(cloning(expert=Expert(copy, episodes=2), environment=ALWAYS, max_epochs=1))
    assert train(plan, out="next").outcome == "reached"
    own_file = curriculum(easy(), network=(16,), batch_size=32)
    assert train(own_file, out="from", initial=copy).outcome == "reached"
    assert not (mine.parent / "mine.ran").exists() and sources() == {}


@pytest.mark.parametrize("by", ["file", "word"])
def test_the_file_or_a_word_of_trust_lets_it_go_on(mine, monkeypatch, by):
    forget_files(monkeypatch)
    copy = strange(mine)
    given = {"curriculum": load_curriculum("mine.py")} if by == "file" else {"trust_imports": True}
    assert resume(copy, **given).outcome == "reached"
    scores = evaluate(copy, 4, 0, **given)
    assert scores[0][1].success == 1.0
    assert (mine.parent / "mine.ran").exists()


def test_a_run_from_another_machine_goes_on_with_the_file_that_was_given(here, monkeypatch):
    (here / "mine.py").write_text(FILE.replace("toys.Always", "toys.Never"))
    assert train("mine.py", out="run").outcome == "missed"
    sys.modules.pop("mine")
    forget_files(monkeypatch)
    (here / "other" / "machine").mkdir(parents=True)
    copy = shutil.copytree(here / "run", here / "other" / "machine" / "run")
    assert resume(copy, max_steps=2_000, curriculum="mine.py").outcome == "missed"
    assert [line["type"] for line in lines(copy)].count("RunStarted") == 2
    (here / "mine.py").write_text((here / "mine.py").read_text() + "# changed\n")
    with refused("run-changed", where="run"):
        resume(copy, max_steps=3_000, curriculum="mine.py")


def test_a_file_that_says_something_else_does_not_help(mine, monkeypatch):
    other = curriculum(easy(echo(steps=3)))
    with refused("untrusted", where="strange", name="mine:Mine"):
        resume(strange(mine), max_steps=9_000, curriculum=other)


def rewrite(run, change):
    data = json.loads((run / "run.json").read_text())
    change(data)
    data["digest"] = from_data(data["curriculum"]).digest
    (run / "run.json").write_text(json.dumps(data))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["curriculum"]["stages"][0].update(max_steps=9_000),
        lambda data: data["sources"].update(mine="../evil.py"),
        lambda data: data.update(run_id="abcdef12"),
    ],
    ids=["curriculum", "sources", "id"],
)
def test_a_changed_run_is_a_strangers(mine, change):
    rewrite(mine, change)
    with refused("untrusted", where="run", name="mine:Mine"):
        evaluate(mine, 4, 0)


def test_a_run_that_was_moved_is_a_strangers_and_one_reached_by_a_link_is_not(mine):
    mine.with_name("link").symlink_to(mine)
    assert is_own(mine.with_name("link"), read_record(mine))
    moved = mine.rename(mine.with_name("moved"))
    assert not is_own(moved, read_record(moved))


def test_a_file_inside_of_the_run_directory_is_not_this_users(here):
    record = new_record(curriculum(easy()), 0, {}, {})
    inner = type(record)(**{**vars(record), "sources": {"mine": "deep/mine.py"}})
    outer = type(record)(**{**vars(record), "sources": {"mine": "../mine.py"}})
    for kept in (inner, outer):
        remember(here / "run", kept)
    assert is_own(here / "run", outer) and not is_own(here / "run", inner)


def test_raising_the_limit_of_an_own_run_keeps_it_own(here):
    never = Environment("toys:Never")
    assert train(curriculum(easy(never)), out="run").outcome == "missed"
    assert resume("run", max_steps=3_000).outcome == "missed"
    assert resume("run", max_steps=4_000).outcome == "missed"


@pytest.mark.parametrize("state", ["file", "missing home"])
def test_without_a_place_for_the_note_a_run_still_trains_and_is_a_strangers_afterwards(here, monkeypatch, state):
    (here / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(here / "file") if state == "file" else "")
    monkeypatch.setenv("HOME", str(here / "file" / "gone"))
    assert train(curriculum(easy()), out="run").outcome == "reached"
    with refused("untrusted", where="run", name="toys:Always"):
        evaluate(here / "run", 4, 0)
    assert evaluate(here / "run", 4, 0, trust_imports=True)[0][1].success == 1.0


def test_a_run_that_names_only_what_is_known_leaves_no_note(here):
    train(curriculum(easy(Environment("rlstages_envs.cartpole:cartpole", max_steps=20, success=1.0))), out="run")
    assert not (here / os.environ["XDG_STATE_HOME"] / "rlstages").exists()
    assert resume(strange(here / "run")).outcome == "reached"


KNOWN = [
    "CartPole-v1",
    "gymnasium:CartPole-v1",
    "gymnasium.envs.classic_control:CartPoleEnv",
    "rlstages_envs:rlstages/Rooms-v0",
    "rlstages_envs.cartpole:cartpole",
    "rlstages_envs.minigrid:multiroom",
    "rlstages_envs:rlstages/PointMaze-v0",
]
STRANGE = [
    "toys:Always",
    "toys:Always-v0",
    "posix:system",
    "builtins:exec",
    "gymnasium:make",
    "gymnasium:Wrapper",
    "gymnasium.wrappers:TimeLimit",
    "gymnasium.envs.registration:load_env_creator",
    "gymnasium.envs.registration:importlib.import_module",
    "gymnasium.vector.async_vector_env:CloudpickleWrapper",
    "rlstages_envs.rooms:np.load",
    "rlstages_envs.rooms:gym.make",
    "rlstages_envs.minigrid:cast",
    "rlstages_envs:import_module",
    "rlstages.specs.loading:load_curriculum",
    "rlstages.training.trainer:train",
    "rlstages.specs.references:load_file",
]


def record_of(*, held_out=(), **environment):
    where = Environment(**{"id": "CartPole-v1", **environment})
    stage = FineTuning("tune", where, until=SuccessThreshold(0.9), max_steps=100_000)
    return new_record(Curriculum("c", agent=Agent(n_envs=2), stages=[stage], held_out=held_out), 0, {}, {})


@pytest.mark.parametrize("name", KNOWN)
def test_names_of_gymnasium_and_of_our_environments_are_followed(tmp_path, name):
    trust_sources(tmp_path, record_of(id=name))


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("place", ["id", "held out", "success", "wrapper", "expert"])
def test_all_other_names_are_refused_wherever_they_stand(tmp_path, name, place):
    if place in ("success", "wrapper", "expert") and name.endswith("-v0"):
        pytest.skip("no name of a function")
    if place == "wrapper" and name in ("gymnasium:Wrapper", "gymnasium.wrappers:TimeLimit"):
        trust_sources(tmp_path, record_of(wrappers=[name]))
        return
    given = {
        "id": lambda: record_of(id=name),
        "held out": lambda: record_of(held_out=[Environment(name)]),
        "success": lambda: record_of(success=name),
        "wrapper": lambda: record_of(wrappers=[name]),
        "expert": lambda: new_record(
            Curriculum("c", agent=agent(), stages=[cloning(environment=Environment(KNOWN[0]), expert=Expert(name))]),
            0,
            {},
            {},
        ),
    }[place]()
    with refused("untrusted"):
        trust_sources(tmp_path, given)


def test_an_id_that_somebody_elses_package_registered_is_refused(tmp_path):
    import gymnasium as gym

    gym.register("Foreign-v0", entry_point="toys:Always")
    try:
        with refused("untrusted", name="Foreign-v0"):
            trust_sources(tmp_path, record_of(id="Foreign-v0"))
    finally:
        del gym.registry["Foreign-v0"]
