"""Modules beside a curriculum file, ids that it registers, and scripts: what a run needs, now and when it goes on."""

import importlib
import subprocess
import sys

import gymnasium as gym
import pytest
from building import payloads, rlstages, surroundings
from refusing import refused

from rlstages import load_curriculum, resume, train
from rlstages.events import RunFinished
from rlstages.play.saved_policies import evaluate
from rlstages.specs import references
from rlstages.specs.neighbours import neighbours
from rlstages.specs.references import sources
from rlstages.storage.record import read_record
from rlstages.training.preflight import preflight

ENVIRONMENT = """
import gymnasium as gym
import numpy as np


class Reach(gym.Env):
    observation_space = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        import {lazy}
        super().reset(seed=seed)
        self.steps = {lazy}.START
        return np.zeros(3, np.float32), {{}}

    def step(self, action):
        self.steps += 1
        return np.zeros(3, np.float32), 1.0, self.steps >= 2, False, {{"is_success": True}}


def tell(env):
    return lambda observation: 0
"""
PLAN = """
from rlstages import *


def curriculum(how: str = "in-process", steps: int = 1_500) -> Curriculum:
    until = SuccessThreshold(0.5, window=4, max_episodes=120)
    environment = Environment({id}, vectorize=how)
    stages = [
        BehaviorCloning("copy", environment, expert=Expert({expert}, episodes=4), max_epochs=1, evaluation_episodes=4),
        FineTuning("easy", environment, until=until, max_steps=steps, critic_fit_steps=0, evaluation_episodes=4),
    ]
    return Curriculum("beside", agent=Agent("PPO", n_envs=2, n_steps=16, batch_size=32, network=[8]), stages=stages)
"""


def lay(folder, lazy="lazy_part", reach="reach2d", imports=None, id="Reach", expert="tell"):
    """Write a curriculum file with its environment in a file beside it, and a part that is imported in a function."""
    folder.mkdir(exist_ok=True)
    (folder / f"{lazy}.py").write_text("START = 0\n")
    (folder / f"{reach}.py").write_text(ENVIRONMENT.format(lazy=lazy))
    head = f"from {reach} import Reach, tell" if imports is None else imports
    (folder / "plan.py").write_text(head + PLAN.format(id=id, expert=expert))
    return folder / "plan.py"


def forget(*names):
    """Be another process, which has imported none of these modules and knows no files."""
    for name in [*names, "plan"]:
        for module in [module for module in sys.modules if module.partition(".")[0] == name]:
            del sys.modules[module]
    references._SOURCES.clear()
    importlib.invalidate_caches()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["in-process", "subprocess"])
def test_a_run_goes_on_with_the_modules_beside_its_file(here, how):
    file = lay(here / "project")
    result = train(load_curriculum(str(file), {"how": how}), out="run")
    assert result.outcome == "reached"
    assert set(read_record(here / "run").digests) == {"reach2d", "lazy_part"}
    forget("reach2d", "lazy_part")
    assert evaluate(here / "run", 4, 0)[0][1].success == 1.0
    late = sys.modules.get("lazy_part")
    assert late.__file__ == str(here / "project" / "lazy_part.py") if how == "in-process" else late is None
    assert resume("run").outcome == "reached"


def test_a_module_beside_the_file_can_be_named(here):
    file = lay(here / "project", imports="", id="'reach2d:Reach'", expert="'reach2d:tell'")
    train(load_curriculum(str(file)), out="run")
    assert set(read_record(here / "run").digests) == {"reach2d", "lazy_part"}
    forget("reach2d", "lazy_part")
    assert evaluate(here / "run", 4, 0)[0][1].success == 1.0


def test_a_change_of_a_module_that_is_imported_late_is_noticed(here):
    train(load_curriculum(str(lay(here / "project"))), out="run")
    forget("reach2d", "lazy_part")
    (here / "project" / "lazy_part.py").write_text("START = 1\n")
    with refused("run-changed", where="run"):
        resume("run", max_steps=9_000)


def test_a_strangers_run_brings_in_no_file_beside_another(here):
    lay(here / "project")
    train(load_curriculum("project/plan.py"), out="run")
    forget("reach2d", "lazy_part")
    (here / "run").rename(here / "strange")
    with refused("untrusted", where="strange", name="reach2d:Reach"):
        evaluate(here / "strange", 4, 0)
    assert "reach2d" not in sys.modules and not sources()


def test_packages_beside_the_file_are_found_with_what_they_import(here):
    for name, text in {
        "pack/__init__.py": "",
        "pack/inner/__init__.py": "from . import near\n",
        "pack/inner/near.py": "from ..far import tell\nfrom .deep import Reach\n",
        "pack/inner/deep.py": ENVIRONMENT.format(lazy="lazy_part"),
        "pack/far.py": "def tell(env):\n    return lambda observation: 0\n",
        "pack/unused.py": "raise RuntimeError\n",
        "bare/thing.py": "import bare.other, json, numpy as np\n",
        "bare/other.py": "",
        "lazy_part.py": "START = 0\n",
        "broken.py": "def :\n",
    }.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(text)
    head = "from pack.inner.near import Reach, tell\nimport bare.thing\ndef late():\n    import broken\n"
    (here / "plan.py").write_text(head + PLAN.format(id="Reach", expert="tell"))
    found = neighbours("plan", here / "plan.py")
    assert found.pop("pack") == here / "pack" / "__init__.py"
    assert set(found) == {
        *("pack.inner", "pack.inner.near", "pack.inner.deep", "pack.far"),
        *("bare.thing", "bare.other", "lazy_part", "broken"),
    }
    train(load_curriculum(str(here / "plan.py")), out="run")
    digests = set(read_record(here / "run").digests)
    assert digests == {"pack.inner.deep", "pack.far", "lazy_part"}
    forget("pack", "bare", "lazy_part")
    assert evaluate(here / "run", 4, 0)[0][1].success == 1.0


def test_modules_of_one_name_beside_two_files_are_not_mixed(here):
    load_curriculum(str(lay(here / "one")))
    lay(here / "two").rename(here / "two" / "other.py")
    with refused("name-taken", where="other.py", name="reach2d"):
        load_curriculum(str(here / "two" / "other.py"))
    assert sources()["reach2d"] == here / "one" / "reach2d.py" and "other" not in sources()


def test_an_installed_module_goes_before_one_beside_the_file_and_that_is_said(here):
    (here / "colorsys.py").write_text("raise RuntimeError\n")
    (here / "queue.py").write_text("raise RuntimeError\n")
    (here / "time.py").write_text("raise RuntimeError\n")
    (here / "wandb").mkdir()
    lay(here, imports="import queue, time, wandb\nfrom reach2d import Reach, tell\ndef late():\n    import colorsys\n")
    said = [doubt for doubt in preflight(load_curriculum("plan.py")).doubts if "beside it" in doubt]
    assert sorted(doubt.split("'")[1] for doubt in said) == ["colorsys", "queue", "time"]


@pytest.mark.slow
def test_a_file_that_registers_an_id_is_imported_by_whoever_needs_it(here):
    lay(here, imports="from reach2d import Reach, tell\nimport gymnasium\n", id="'tests/Beside-v0'")
    registering = "gymnasium.register('tests/Beside-v0', entry_point=Reach, max_episode_steps=9)\n"
    plan = (here / "plan.py").read_text()
    (here / "plan.py").write_text(plan.replace("import gymnasium\n", "import gymnasium\n" + registering))
    try:
        assert train(load_curriculum("plan.py", {"how": "subprocess"}), out="run").outcome == "reached"
        assert "reach2d" in read_record(here / "run").digests
        gym.registry.pop("tests/Beside-v0", None)
        forget("reach2d", "lazy_part")
        assert evaluate(here / "run", 4, 0)[0][1].success == 1.0
        gym.registry.pop("tests/Beside-v0", None)
        forget("reach2d", "lazy_part")
        (here / "run").rename(here / "strange")
        with refused("untrusted", where="strange", name="reach2d:tell"):
            evaluate(here / "strange", 4, 0)
        assert "plan" not in sys.modules and "reach2d" not in sys.modules
    finally:
        gym.registry.pop("tests/Beside-v0", None)


SCRIPT = """
import os
from rlstages import train
from plan import curriculum

print("imported as", __name__, flush=True)
{guard}train(curriculum({how!r}), out="run", trackers=[lambda event: None])
"""
GUARD = 'if __name__ == "__main__":\n    '


def run_script(here, how, guard):
    lay(here / "project")
    (here / "project" / "script.py").write_text(SCRIPT.format(how=how, guard=guard))
    command, variables = [sys.executable, "project/script.py"], surroundings(here)
    return subprocess.run(command, cwd=here, env=variables, capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.slow
def test_a_script_without_a_guard_trains_in_process_with_modules_beside_it(here):
    done = run_script(here, "in-process", "")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["imported as __main__"]
    assert {"reach2d", "lazy_part"} <= set(read_record(here / "run").digests)
    scores = rlstages("evaluate", "run", "--episodes", 4, cwd=here)
    assert scores.returncode == 0 and "Reach" in scores.stdout, scores.stderr


def test_a_script_without_a_guard_starts_no_processes_that_would_train(here):
    done = run_script(here, "subprocess", "")
    assert done.returncode == 1 and not (here / "run").exists()
    last = done.stderr.strip().splitlines()[-1]
    assert "script.py, line 7" in last and 'if __name__ == "__main__":' in last
    assert done.stdout.splitlines() == ["imported as __main__"]


@pytest.mark.slow
def test_a_script_with_a_guard_trains_in_processes(here):
    done = run_script(here, "subprocess", GUARD)
    assert done.returncode == 0, done.stderr
    assert payloads("run", RunFinished)[-1].outcome == "reached"


def test_a_file_that_trains_where_it_is_imported_is_refused(here):
    lay(here)
    with (here / "plan.py").open("a") as file:
        file.write("\n\nfrom rlstages import train\ntrain(curriculum())\n")
    with refused("call-misplaced", where="plan.py, line 16: plan.py", name="train"):
        load_curriculum("plan.py")
    assert not (here / "runs").exists() and "plan" not in sys.modules and not sources()
