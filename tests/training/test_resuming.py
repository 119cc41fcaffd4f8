"""What may have changed since a run was started, and what may not."""

import json

import pytest
from building import agent, curriculum, echo, payloads, rlstages, tuning
from refusing import refused

from rlstages import Environment, SuccessThreshold, load_curriculum, resume, train
from rlstages.events import Evaluated, Warned
from rlstages.reproducibility import threads_of
from rlstages.storage.record import read_record
from rlstages.storage.run_directory import read_events
from rlstages.training.conditions import conditions

TASK = """
import toys
from rlstages import *

def place(steps=6):
    return toys.Echo(steps=steps)

def curriculum():
    return Curriculum(
        "own",
        agent=Agent("PPO", n_envs=4, n_steps=16, batch_size=32, n_epochs=2, network=(16,)),
        stages=[FineTuning("tune", Environment(place), until=SuccessThreshold(0.5, window=500), max_steps=1_000)],
    )
"""


class Interrupt:
    def __call__(self, event):
        if isinstance(event.payload, Evaluated):
            raise KeyboardInterrupt

    def close(self):
        pass


def interrupted(plan, **settings):
    with pytest.raises(KeyboardInterrupt):
        train(plan, out="run", trackers=[Interrupt()], **settings)


def warnings():
    return [payload.message for payload in payloads("run", Warned)]


def edit(here, change):
    file = here / "run" / "run.json"
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


def test_a_run_that_finds_everything_as_it_was_warns_of_nothing(here):
    interrupted(curriculum(tuning(max_steps=700)))

    resume("run")

    assert warnings() == []


@pytest.mark.slow
def test_other_versions_of_what_its_environments_come_from_are_said(here):
    pytest.importorskip("minigrid")
    flat = ["minigrid.wrappers:ImgObsWrapper", "gymnasium.wrappers:FlattenObservation"]
    empty = Environment("minigrid:MiniGrid-Empty-5x5-v0", wrappers=flat, success=0.5)
    interrupted(curriculum(tuning(environment=empty, max_steps=700)))
    assert "minigrid" in read_record(here / "run").versions
    edit(here, lambda data: data["versions"].update(minigrid="0.1"))
    resume("run")
    (told,) = warnings()
    assert "minigrid 0.1 then, " in told and "They may behave differently." in told


def test_a_file_that_has_changed_is_refused_and_can_be_forced(here, monkeypatch):
    file = here / "own_task.py"
    file.write_text(TASK)
    interrupted(load_curriculum("own_task.py"))
    left = (here / "run" / "events.jsonl").read_bytes()
    file.write_text(TASK.replace("steps=6", "steps=5"))

    with refused("run-changed", where="run"):
        resume("run")
    assert (here / "run" / "events.jsonl").read_bytes() == left

    resume("run", force=True)
    assert warnings() == ["Forced to go on: own_task.py, which its functions come from, has been changed."]


def test_a_curriculum_file_of_which_no_function_is_used_may_change(here):
    file = here / "plain_task.py"
    file.write_text(TASK.replace("Environment(place)", "Environment('toys:Echo', steps=6)"))
    interrupted(load_curriculum("plain_task.py"))
    file.write_text("# Something else by now.\n")

    assert resume("run").outcome == "missed"
    assert warnings() == []


def test_a_record_that_was_edited_is_refused(here):
    interrupted(curriculum(tuning(max_steps=700)))
    edit(here, lambda data: data["curriculum"]["stages"][0].update(max_steps=800))

    with refused("run-changed", where="run"):
        resume("run")


def test_another_rlstages_is_refused_and_other_libraries_are_told(here):
    interrupted(curriculum(tuning(max_steps=700)))
    edit(here, lambda data: data["versions"].update(torch="1.0", rlstages="0.0.1"))

    with refused("run-changed", where="run"):
        resume("run")

    resume("run", force=True)
    forced, told = warnings()
    assert forced.startswith("Forced to go on: It was started with rlstages 0.0.1")
    assert "torch 1.0 then, " in told and "last bits" in told


def test_another_number_of_threads_is_told(here):
    interrupted(curriculum(tuning(max_steps=700)))
    edit(here, lambda data: data["conditions"].update(threads=3))

    resume("run")

    [told] = warnings()
    assert told.startswith("Not as when this run was started: threads 3 then, 1 now.")


def test_small_networks_get_one_thread_and_images_what_torch_takes(monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 7)

    assert [threads_of(agent(policy=policy)) for policy in ("MlpPolicy", "MultiInputPolicy", "CnnPolicy")] == [1, 1, 7]
    assert conditions(agent(threads=3))["threads"] == threads_of(agent(threads=3)) == 3


def test_a_run_that_has_ended_is_left_alone(here):
    until = SuccessThreshold(0.99, window=500)
    missed = train(curriculum(tuning(max_steps=700, until=until)), out="run")
    left = {file: file.read_bytes() for file in (here / "run").rglob("*") if file.is_file()}

    again = resume("run")

    assert again == missed
    assert {file: file.read_bytes() for file in (here / "run").rglob("*") if file.is_file()} == left


def test_copies_that_cannot_be_brought_back_are_told_before_the_first_step(here):
    plan = curriculum(tuning(environment=Environment("toys:Drifting"), max_steps=700), tuning("echo", echo()))

    train(plan, out="run")

    told = next(said for said in warnings() if "brought back" in said)
    assert told.startswith("Drifting cannot be brought back by the seed and actions of an episode (")
    assert [event.stage_index for event in read_events(here / "run")][:2] == [-1, 0]


REGISTERING = """
import gymnasium as gym
gym.register("OwnPole-v0", entry_point="gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=50)
"""
OFFERED = """
from rlstages import *

def curriculum():
    return Curriculum(
        "own-pole",
        agent=Agent("PPO", n_envs=2, n_steps=16, batch_size=32, n_epochs=1, network=(8,)),
        stages=[FineTuning("tune", Environment("OwnPole-v0"), until=RewardThreshold(1e6), max_steps=400)],
    )
"""


def test_an_id_that_a_packages_module_registers_is_found_by_every_command(here, monkeypatch):
    site, about = here / "site", here / "site" / "poles-1.0.dist-info"
    (site / "poles").mkdir(parents=True)
    (site / "poles" / "__init__.py").write_text(REGISTERING)
    (site / "poles" / "plan.py").write_text(OFFERED)
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: poles\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[rlstages.curricula]\nown-pole = poles.plan:curriculum\n")
    monkeypatch.setenv("PYTHONPATH", str(site))
    commands = (["train", "own-pole", "--out", "run"], ["resume", "run", "--max-steps", "800"])

    codes = [rlstages(*command, "--track", "none", cwd=here) for command in commands]
    codes.append(rlstages("evaluate", "run", "--episodes", "2", cwd=here))

    assert [done.returncode for done in codes] == [3, 3, 0], "".join(done.stderr for done in codes)
    assert sorted(read_record(here / "run").sources) == ["poles", "poles.plan"]
