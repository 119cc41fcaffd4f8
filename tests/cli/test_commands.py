"""What each command prints, writes and exits with."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from building import COMMAND, cloning, curriculum, echo, mostly_slow, surroundings, tuning
from building import rlstages as apart
from refusing import told
from safetensors.torch import load_file
from stable_baselines3 import A2C, PPO

from rlstages import Environment, SuccessThreshold, load_demonstrations, load_policy, train
from rlstages.environments.seeding import Purpose, episode_seed
from rlstages.events import StageFinished
from rlstages.storage.record import read_record
from rlstages.storage.run_directory import RunDirectory, read_events

ALWAYS, NEVER = Environment("toys:Always"), Environment("toys:Never")
SURE = SuccessThreshold(0.5, window=4, max_episodes=120)
PLAN = """
from rlstages import *

def curriculum(steps: int = 1_500, world: str = "Always"):
    '''Two stages.'''
    until = SuccessThreshold(0.5, window=4)
    return Curriculum(
        "small",
        agent=Agent("PPO", n_envs=4, n_steps=16, batch_size=32, n_epochs=2, network=(16,)),
        stages=[
            BehaviorCloning("clone", Environment(f"toys:{world}"), expert=Expert("toys:tell_zero", episodes=3),
                            max_epochs=2, evaluation_episodes=4),
            FineTuning("tune", Environment(f"toys:{world}"), until=until, max_steps=steps, critic_fit_steps=0,
                       evaluation_episodes=4),
        ],
    )
"""


def easy(**settings):
    return tuning("easy", ALWAYS, until=SURE, max_steps=1_500, critic_fit_steps=0, **settings)


@pytest.fixture
def plan(here):
    (here / "small_plan.py").write_text(PLAN)
    return "small_plan.py"


def test_train_reaches_the_end_and_says_where_the_run_is(rlstages, plan, here):
    outcome = rlstages("train", plan, "--seed", "3", "--track", "none")

    assert outcome.code == 0
    assert outcome.err == ""
    assert outcome.out.startswith("small: checking 2 stages ...\n")
    assert outcome.out.endswith("reached: The curriculum is done.\nRun directory: runs/small-s3\n")
    assert read_record(here / "runs" / "small-s3").seed == 3


def test_a_threshold_that_is_not_reached_is_exit_code_3_and_more_steps_go_on(rlstages, plan):
    missed = rlstages("train", plan, "--out", "run", "-p", "world=Never", "--track", "none")
    assert missed.code == 3
    [why] = [line for line in missed.out.splitlines() if "was not reached" in line and line.startswith("missed: ")]
    assert why.startswith("missed: Stage 'tune': 1,500 steps were spent and success of at least 0.5 was not reached: ")
    assert missed.out.count(why.removeprefix("missed: ")) == 1
    assert missed.out.endswith("Give it more: rlstages resume run --max-steps N\n")

    again = rlstages("resume", "run", "--max-steps", "2500", "--track", "none")
    assert again.code == 3
    assert "2,500 steps were spent" in again.out
    less = rlstages("resume", "run", "--max-steps", "2000", "--track", "none")
    assert less.code == 2
    assert told(less.error) == ("setting-range", "stage 'tune'", "max_steps")


def test_a_run_that_a_scheduler_starts_again_is_the_same_on_a_device_that_was_named(rlstages, plan):
    again = ["train", plan, "--go-on", "--device", "auto", "--out", "run", "--track", "none"]

    assert [rlstages(*again).code for _ in range(2)] == [0, 0]


def test_resuming_a_finished_run_says_that_it_is_done(rlstages, plan):
    rlstages("train", plan, "--out", "run", "--track", "none")

    outcome = rlstages("resume", "run", "--track", "none")

    assert outcome.code == 0
    assert "The curriculum is done." in outcome.out


def test_parameters_and_device_reach_the_record(rlstages, plan, here):
    (here / plan).write_text(PLAN.replace("network=(16,)", "network=(16,), device='auto'"))
    rlstages("train", plan, "-p", "steps=1_600", "--device", "cpu", "--out", "run", "--track", "none")

    found = read_record(here / "run").curriculum
    assert found.stages[1].max_steps == 1600
    assert found.agent.device == "cpu"


def test_a_run_starts_from_another(rlstages, plan, here):
    rlstages("train", plan, "--out", "first", "--track", "none")

    outcome = rlstages("train", plan, "--out", "second", "--from", "first", "--track", "none")

    assert outcome.code == 0
    assert read_record(here / "second").initial == "first"


def test_a_fault_of_the_environment_is_one_sentence_and_exit_code_1(rlstages, here):
    seed = episode_seed(0, 1, Purpose.TRAINING, 0, 0)
    faulty = f'Environment("toys:Echo", fault="reward", fault_seed={seed}), until'
    body = PLAN.replace('Environment(f"toys:{world}"), until', faulty)
    body = body.replace('Environment(f"toys:{world}"), expert', 'Environment("toys:Echo"), expert')
    (here / "faulty_plan.py").write_text(body)

    outcome = rlstages("train", "faulty_plan.py", "--out", "run", "--track", "none")

    assert outcome.code == 1
    environment = f"Echo(fault='reward', fault_seed={seed})"
    assert told(outcome.error) == ("environment-failed", f"{environment}: copy 0, step 3 of its episode 0", "reward")
    assert outcome.err.count("\n") == 1


def test_show_prints_the_plan_and_trains_nothing(rlstages, plan, here):
    outcome = rlstages("show", plan)
    as_json = rlstages("show", plan, "--json")

    assert outcome.code == as_json.code == 0
    assert "1. clone: clone 3 episodes of tell_zero in Always" in outcome.out
    assert "observations Box(3,) of float32, actions Discrete(3)" in outcome.out
    assert json.loads(as_json.out)["name"] == "small"
    assert {path.name for path in here.iterdir()} - {"__pycache__"} == {plan}


def test_show_checks_a_curriculum_that_goes_on_from_a_run_as_train_does(rlstages, plan, here):
    rlstages("train", plan, "--out", "first", "--track", "none")
    cloned, tuned = PLAN.index("BehaviorCloning("), PLAN.index("FineTuning(")
    held = (PLAN[:cloned] + PLAN[tuned:]).replace("critic_fit_steps=0", "critic_fit_steps=0, demonstration_loss=0.1")
    (here / "held_plan.py").write_text(held)

    alone, shown = rlstages("show", "held_plan.py"), rlstages("show", "held_plan.py", "--from", "first")

    assert alone.code == 2 and told(alone.error) == ("stage-order", "stage 'tune'", "")
    assert shown.code == 0 and shown.out.endswith("all checks passed, nothing was trained\n")


def test_json_stands_alone_when_the_users_code_prints(rlstages, here):
    loud = PLAN.replace("return Curriculum(", "print('made by hand')\n    return Curriculum(")
    (here / "loud_plan.py").write_text(loud)
    rlstages("train", "loud_plan.py", "--out", "run", "--track", "none")

    shown = rlstages("show", "loud_plan.py", "--json")
    scored = rlstages("evaluate", "run", "loud_plan.py", "--episodes", "4", "--json")

    assert json.loads(shown.out)["name"] == "small" and json.loads(scored.out)["scores"]
    assert "made by hand" in shown.err and "made by hand" in scored.err


def test_show_of_a_run_says_how_far_it_has_come(rlstages, plan):
    rlstages("train", plan, "--out", "run", "-p", "world=Never", "--track", "none")

    outcome = rlstages("show", "run")
    told = json.loads(rlstages("show", "run", "--json").out)

    assert outcome.code == 0
    assert "run: missed" in outcome.out
    assert (told["run"], told["outcome"]) == ("run", "missed")
    assert [stage["outcome"] for stage in told["stages"]] == ["completed", "missed"]


def test_curricula_are_listed(rlstages):
    outcome = rlstages("curricula")

    assert outcome.code == 0
    if "rooms" not in outcome.out:
        pytest.skip("the package is not installed, so its names are not known")
    assert "cartpole" in outcome.out and "max_steps=" in outcome.out


def test_evaluate_prints_scores_as_a_table_and_as_json(rlstages, here):
    train(curriculum(easy(), held_out=[NEVER]), out="run")

    table = rlstages("evaluate", "run", "--episodes", "8")
    told = json.loads(rlstages("evaluate", "run", "--episodes", "8", "--json").out)

    assert table.code == 0
    assert "Always" in table.out and "Never" in table.out
    assert (told["run"], told["action_mode"], told["seed"]) == ("run", "stochastic", 1_000_000)
    assert [row["environment"]["id"] for row in told["scores"]] == ["toys:Always", "toys:Never"]
    assert [row["success"] for row in told["scores"]] == [1.0, 0.0]
    assert [row["episodes"] for row in told["scores"]] == [8, 8]
    assert re.search(r"Always .* 8 .* 2 \[2, 2\] .* 1\.00 \[0\.68, 1\.00\]", table.out), table.out


@pytest.mark.slow
def test_evaluate_says_that_the_code_has_changed_since_and_what_the_scores_are_of(rlstages, here):
    file = here / "walking.py"
    file.write_text(PLAN + "from toys import Always as Walk\n\nclass Walk(Walk):\n    pass\n")
    file.write_text(file.read_text().replace('f"toys:{world}"', '"walking:Walk"'))
    assert apart("train", "walking.py", "--out", "run", "--track", "none", cwd=here).returncode == 0
    assert apart("evaluate", "run", "--episodes", "4", cwd=here).stderr == ""
    file.write_text(file.read_text() + "# changed\n")

    outcome = apart("evaluate", "run", "--episodes", "4", "--json", cwd=here)

    assert outcome.returncode == 0
    assert outcome.stderr == (
        "warning: run: walking.py, which its functions come from, has been changed. "
        "These scores are of what is there now.\n"
    )
    assert len(json.loads(outcome.stdout)["scores"]) == 1


@pytest.mark.slow
def test_a_curriculum_file_that_was_renamed_helps_under_its_old_name(rlstages, here):
    text = PLAN.replace('f"toys:{world}"', '"strolling:Walk"')
    text += "from toys import Always\n\nclass Walk(Always):\n    pass\n"
    (here / "strolling.py").write_text(text)
    assert apart("train", "strolling.py", "--out", "run", "--track", "none", cwd=here).returncode == 0
    (here / "strolling.py").rename(here / "renamed.py")

    other = apart("evaluate", "run", "renamed.py", "--episodes", "4", cwd=here)
    (here / "new").mkdir()
    (here / "new" / "strolling.py").write_text(text)
    moved = apart("evaluate", "run", "new/strolling.py", "--episodes", "4", cwd=here)

    assert other.returncode == 2
    assert f"The file {here}/strolling.py, which the module 'strolling' came from, is gone; " in other.stderr
    assert other.stderr.endswith("give it as FILE under its old name, strolling.py.\n")
    assert (moved.returncode, moved.stderr) == (0, "")


@pytest.mark.parametrize(
    ("stage", "settings", "kind"),
    mostly_slow(
        [
            (easy(), {}, PPO),
            (easy(), {"normalize_observations": True}, PPO),
            (easy(), {"algorithm": "A2C", "batch_size": None, "n_epochs": None}, A2C),
            (cloning(environment=echo(acts="box"), episodes=4), {"normalize_observations": True}, PPO),
            (cloning(environment=echo(sees="dict"), episodes=4), {"policy": "MultiInputPolicy"}, PPO),
            (cloning(environment=echo(sees="image"), episodes=2, max_epochs=1), {"policy": "CnnPolicy"}, PPO),
        ],
        2,
    ),
    ids=["PPO", "normalised", "A2C", "box", "dict", "image"],
)
def test_an_exported_model_acts_as_the_run_does(stage, settings, kind, rlstages, here):
    train(curriculum(stage, **settings), out="run")
    policy = load_policy("run")

    outcome = rlstages("export", "run", "--out", "deep/model.zip")

    assert outcome.code == 0
    assert f"load it with stable_baselines3.{kind.__name__}.load('deep/model.zip')" in outcome.out
    model = kind.load("deep/model.zip", device="cpu")
    model.observation_space.seed(0)
    for _ in range(10):
        seen = model.observation_space.sample()
        np.testing.assert_array_equal(
            model.predict(seen, deterministic=True)[0], policy.predict(seen, deterministic=True)[0]
        )
    again = rlstages("export", "run", "--out", "deep/model.zip")
    assert again.code == 2
    assert told(again.error) == ("out-taken", "deep/model.zip", "")


@pytest.mark.slow
def test_an_exported_model_can_be_loaded_where_nothing_of_ours_was_imported(rlstages, here):
    train(curriculum(easy()), out="run")
    rlstages("export", "run", "--out", "model.zip")

    code = "from stable_baselines3 import PPO; import sys; PPO.load('model.zip'); print('rlstages' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.stdout == "False\n", done.stderr


def test_exported_weights_are_the_runs(rlstages, here):
    result = train(curriculum(easy(), normalize_observations=True), out="run")

    outcome = rlstages("export", "run", "--out", "weights.safetensors")

    assert outcome.code == 0, outcome.err
    assert result.stages["easy"].digest.startswith(outcome.out.split()[-1])
    found = load_file("weights.safetensors")
    assert all(torch.equal(value, found[name]) for name, value in load_policy("run").state_dict().items())


def test_demonstrations_are_recorded_looked_at_and_cloned(rlstages, here):
    file = "shown.safetensors"
    recorded = rlstages("demos", "record", "toys:Echo", "toys:tell", "--out", file, "--episodes", "5", "-k", "steps=4")
    looked = rlstages("demos", "inspect", file)
    told = json.loads(rlstages("demos", "inspect", file, "--json").out)

    assert recorded.code == looked.code == 0
    assert recorded.out.startswith("shown.safetensors: success 1.00")
    assert "5 episodes, 20 steps" in looked.out
    assert (told["episodes"], told["steps"], told["length"]["median"]) == (5, 20, 4.0)
    assert told["return"] == {"least": 4.0, "median": 4.0, "most": 4.0}
    assert told["ends"] == {"terminated": 0, "truncated": 5} and "ends: 0 terminated, 5 truncated" in looked.out
    assert len(load_demonstrations(file)) == 5
    assert rlstages("demos", "record", "toys:Echo", "toys:tell", "--out", file).code == 2
    result = train(curriculum(cloning(demonstrations=file, max_epochs=1)), out="run")
    assert result.outcome == "reached"


def test_demonstrations_may_come_from_a_file_a_run_or_a_trusted_model(rlstages, here):
    (here / "own_expert.py").write_text("def show(env):\n    return lambda observation: env.unwrapped.wanted\n")
    train(curriculum(cloning(episodes=2, max_epochs=1)), out="run")
    rlstages("export", "run", "--out", "model.zip")

    for number, expert in enumerate(("own_expert.py:show", "./run", "model.zip")):
        more = ["--trust-pickle"] if expert == "model.zip" else []
        shown = f"{number}.safetensors"
        outcome = rlstages("demos", "record", "toys:Echo", expert, "--out", shown, "--episodes", "2", *more)
        assert outcome.code == 0, outcome.err
    refused = rlstages("demos", "record", "toys:Echo", "model.zip", "--out", "3.safetensors")
    assert refused.code == 2 and told(refused.error) == ("untrusted", "model.zip", "")


def test_a_stage_may_clone_a_model_that_is_trusted(rlstages, here):
    train(curriculum(cloning(episodes=2, max_epochs=1)), out="run")
    rlstages("export", "run", "--out", "model.zip")
    (here / "copier.py").write_text(
        PLAN.replace('f"toys:{world}"), expert=Expert("toys:tell_zero"', '"toys:Echo"), expert=Expert("model.zip"')
    )

    assert rlstages("train", "copier.py", "--out", "next", "--track", "none").code == 2
    trusted = rlstages("train", "copier.py", "--out", "next", "--track", "none", "--trust-pickle")
    assert trusted.code == 0, trusted.err
    assert [e.payload.outcome for e in read_events(here / "next") if isinstance(e.payload, StageFinished)] == [
        "completed",
        "reached",
    ]


@pytest.mark.slow
def test_train_and_compare_say_what_they_do_before_they_import_anything_heavy(here, plan):
    names = "Agent, BehaviorCloning, Curriculum, Environment, Expert, FineTuning, SuccessThreshold"
    (here / plan).write_text(PLAN.replace("import *", f"import {names}"))
    heard = "import builtins, sys\nfirst = builtins.print\n" + (
        "def heard(*said, **more):\n"
        "    first(*said, 'torch' in sys.modules, **more)\n"
        "    builtins.print = first\n"
        "builtins.print = heard\n"
    )

    trained = apart("train", plan, "--out", "run", "--track", "none", cwd=here, before=heard)
    compared = apart("compare", plan, "--seeds", "0:1", "--arms", "staged", cwd=here, before=heard)

    assert trained.stdout.startswith("small: checking 2 stages ... False\n")
    assert compared.stdout == "small_plan.py: checking the arms ... False\n"
    assert "at least two arms" in compared.stderr


def test_help_and_version_import_nothing_heavy(here):
    for arguments in (["--help"], ["train", "--help"], ["--version"]):
        code = (
            f"import sys, atexit\nsys.argv = ['rlstages', *{arguments!r}]\n"
            "heavy = {'torch', 'stable_baselines3', 'gymnasium', 'imitation', 'wandb'}\n"
            "atexit.register(lambda: print(sorted(heavy & set(sys.modules)), file=sys.stderr))\n" + COMMAND
        ).replace("sys.argv[0] = 'rlstages'; ", "")
        done = subprocess.run(
            [sys.executable, "-c", code], env=surroundings(here), capture_output=True, text=True, check=False
        )
        if arguments == ["--version"] and "PackageNotFoundError" in done.stderr:
            continue
        assert done.returncode == 0, done.stderr
        assert done.stderr == "[]\n"


def test_a_reader_that_goes_away_is_no_error(here):
    command = f'{sys.executable} -c "{COMMAND}" curricula | head -1'
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        env=surroundings(here),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stderr == ""


@pytest.mark.slow
def test_track_writes_a_run_again_from_its_log_and_a_second_time_changes_nothing(rlstages, plan, here):
    rlstages("train", plan, "--out", "run", "--track", "none")
    assert not (here / "run" / "wandb").exists()

    told = [rlstages("track", "run", "--mode", "offline") for _ in range(2)]

    assert [(outcome.code, outcome.err) for outcome in told] == [(0, "")] * 2
    points, other = (outcome.out.splitlines()[0] for outcome in told)
    assert points == other and re.fullmatch(r"run: \d+ points in W&B", points)
    (folder,) = (here / "run" / "wandb").glob("offline-run-*")
    assert told[1].out.splitlines()[1:] == [
        f"W&B: offline, in run/wandb/{folder.name}",
        f"Upload it: (cd run && wandb sync wandb/{folder.name})",
    ]
    assert len(list((here / "run" / "tensorboard").iterdir())) == 1


def test_track_refuses_what_it_cannot_do(rlstages, plan, here, monkeypatch):
    assert told(rlstages("track", "nothing").error) == ("file-missing", "nothing", "")
    rlstages("train", plan, "--out", "run", "--track", "none")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    disabled = rlstages("track", "run")
    assert disabled.code == 2 and told(disabled.error) == ("unavailable", "", "wandb")
    with RunDirectory(here / "run"):
        trained = rlstages("track", "run", "--mode", "offline")
    assert trained.code == 2 and told(trained.error) == ("run-busy", "run", "")
    refused = rlstages("track", "run", "--mode", "online")
    assert refused.code == 1 and told(refused.error) == ("tracking-failed", "run", "")
    assert refused.err.count("\n") == 1
