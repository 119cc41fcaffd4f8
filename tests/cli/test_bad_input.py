"""A person's mistakes: each is one sentence on standard error, exit code 2, and nothing left behind."""

import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from building import curriculum, tuning
from building import rlstages as apart
from refusing import told

import rlstages as package
from rlstages import Environment, SuccessThreshold, train
from rlstages.demonstrations.episodes import Demonstration, Demonstrations

START = """
from rlstages import *
toy = lambda name, **more: Environment(f"toys:{name}", **more)
agent = dict(n_envs=4, n_steps=16, batch_size=32, n_epochs=2, network=(16,))
expert = Expert("toys:tell", episodes=2)
until = SuccessThreshold(0.5, window=8)
demonstrations = "shown.safetensors"
"""
OURS = f"{Path(package.__file__).parent}/"


def write(where, name, body):
    """Write a curriculum file whose function has this body."""
    (where / f"{name}.py").write_text(START + "def curriculum(steps: int = 4000):\n" + textwrap.indent(body, "    "))
    return f"{name}.py"


def plan(stages, settings="**agent", more=""):
    return f"return Curriculum('bad', agent=Agent('PPO', {settings}), stages=[{stages}]{more})\n"


CLONE = "BehaviorCloning('clone', toy('Echo'), expert=expert)"
TUNE = "FineTuning('tune', toy('Echo'), until=until, max_steps=steps, critic_fit_steps=0)"


def clone(environment="toy('Echo')", expert="expert"):
    return f"BehaviorCloning('clone', {environment}, expert={expert})"


def tune(environment="toy('Echo')", until="until", more=""):
    steps = "" if "max_steps" in more else "max_steps=steps, "
    return f"FineTuning('tune', {environment}, until={until}, {steps}critic_fit_steps=0{more})"


BAD = {
    "unknown id": (
        plan(tune("Environment('CartPol-v1')")),
        ("name-unknown", "stage 'tune'", "environment"),
    ),
    "unknown module": (
        plan(tune("Environment('nowhere:X-v0')")),
        ("import-failed", "stage 'tune': nowhere", "nowhere"),
    ),
    "unknown class": (plan(tune("toy('Ecko')")), ("name-unknown", "stage 'tune': toys", "Ecko")),
    "wrong argument": (plan(tune("toy('Echo', hue=3)")), ("environment-invalid", "stage 'tune': Echo(hue=3)", "")),
    "failing environment": (
        plan(tune("toy('fails_in_step')")),
        ("environment-invalid", "stage 'tune': fails_in_step", ""),
    ),
    "other observations": (
        plan(f"{CLONE}, {tune('''toy('Echo', acts='box')''')}"),
        ("spaces-unsupported", "stage 'tune'", "observations"),
    ),
    "other actions": (
        plan(f"{CLONE}, {tune('''Environment('toys:two_actions')''')}"),
        ("spaces-unsupported", "stage 'tune'", "actions"),
    ),
    "no expert": (plan(clone(expert="Expert('toys:tel')")), ("name-unknown", "stage 'clone': toys", "tel")),
    "failing expert": (
        plan(clone(expert="Expert('toys:fail_to_tell')")),
        ("expert-invalid", "stage 'clone': toys:fail_to_tell", ""),
    ),
    "wrong action": (
        plan(clone(expert="Expert('toys:tell_wrongly')")),
        ("expert-invalid", "stage 'clone': toys:tell_wrongly", ""),
    ),
    "nested expert": (
        plan(clone(expert="Expert(lambda env: env)")),
        ("name-invalid", "nested_expert.py, line 9: Expert", ""),
    ),
    "silent success": (plan(tune("toy('Silent')")), ("environment-invalid", "stage 'tune': Silent", "success")),
    "few steps": (
        plan(tune(more=", max_steps=100")),
        ("setting-conflict", "few_steps.py, line 9: stage 'tune'", "max_steps"),
    ),
    "NaN threshold": (
        plan(tune(until="SuccessThreshold(float('nan'))")),
        ("setting-range", "NaN_threshold.py, line 9: SuccessThreshold", "threshold"),
    ),
    "endless threshold": (
        plan(tune(until="RewardThreshold(float('inf'))")),
        ("setting-range", "endless_threshold.py, line 9: RewardThreshold", "threshold"),
    ),
    "undecidable threshold": (
        plan(tune(until="SuccessThreshold(0.9, margin=0.001, max_episodes=40)")),
        ("setting-conflict", "stage 'tune'", "until"),
    ),
    "no threshold": (plan(tune(until="0.9")), ("setting-type", "no_threshold.py, line 9: stage 'tune'", "until")),
    "large batch": (
        plan(tune(), "n_envs=4, n_steps=16"),
        ("setting-conflict", "large_batch.py, line 9: stage 'tune'", "batch_size"),
    ),
    "unbounded": (plan(tune("toy('unbounded')")), ("spaces-unsupported", "stage 'tune': actions", "")),
    "tuple": (plan(tune("toy('paired')")), ("spaces-unsupported", "stage 'tune'", "")),
    "dictionary": (plan(tune("toy('Echo', sees='dict')")), ("setting-conflict", "Agent", "policy")),
    "no image": (plan(tune(), "policy='CnnPolicy', **agent"), ("setting-conflict", "Agent", "policy")),
    "network of a stage": (
        plan(tune(more=", network=(8,)")),
        ("setting-unknown", "network_of_a_stage.py, line 9: FineTuning", "network"),
    ),
    "misspelt setting": (
        plan(tune(more=", max_step=3")),
        ("setting-unknown", "misspelt_setting.py, line 9: FineTuning", "max_step"),
    ),
    "A2C clips": (
        "return Curriculum('bad', agent=Agent('A2C', clip_range=0.1), stages=[" + TUNE + "])\n",
        ("setting-unknown", "A2C_clips.py, line 9: Agent", "clip_range"),
    ),
    "no algorithm": (
        "return Curriculum('bad', agent=Agent('POP'), stages=[" + TUNE + "])\n",
        ("name-unknown", "no_algorithm.py, line 9: Agent", "algorithm"),
    ),
    "twice the name": (
        plan(f"{TUNE}, {TUNE}"),
        ("name-taken", "twice_the_name.py, line 9: curriculum 'bad'", "stages"),
    ),
    "no stage": (plan(""), ("setting-missing", "no_stage.py, line 9: curriculum 'bad'", "stages")),
    "no demonstrations": (
        plan("BehaviorCloning('clone', toy('Echo'), demonstrations='gone.npz')"),
        ("file-missing", "stage 'clone': gone.npz", ""),
    ),
    "expert and demonstrations": (
        plan("BehaviorCloning('clone', toy('Echo'), expert=expert, demonstrations='a.npz')"),
        ("setting-conflict", "expert_and_demonstrations.py, line 9: stage 'clone'", "expert"),
    ),
    "untrusted model": (plan(clone(expert="Expert('model.zip')")), ("file-missing", "stage 'clone': model.zip", "")),
    "syntax": ("return Curriculum(\n", ("import-failed", "syntax.py, line 9", "")),
    "failing file": ("return 1 / 0\n", ("import-failed", "failing_file.py, line 9", "")),
    "no curriculum": ("return 3\n", ("import-failed", "no_curriculum.py", "curriculum")),
    "failing wrapper": (
        plan(tune("toy('Echo', wrappers=['toys:refuse_to_wrap'])")),
        ("environment-invalid", "stage 'tune': Echo", "wrappers"),
    ),
    "batched": (
        plan(tune("toy('Echo', vectorize='batched')")),
        ("setting-conflict", "stage 'tune': Echo", "vectorize"),
    ),
}


def is_refused(outcome, refusal, where, kept):
    assert outcome.code == 2
    assert told(outcome.error) == refusal, outcome.err
    *trace, last = outcome.err.splitlines()
    assert last == f"error: {outcome.error}"
    # The traceback of what is the user's own, and of nothing else.
    assert not trace or ("toys.py" in outcome.err and OURS not in outcome.err)
    assert "Traceback" not in outcome.out
    assert {path.name for path in where.iterdir()} - {"__pycache__"} == kept


@pytest.mark.parametrize("mistake", BAD)
def test_a_bad_curriculum_is_refused_in_one_sentence(mistake, rlstages, here):
    body, refusal = BAD[mistake]
    file = write(here, mistake.replace(" ", "_"), body)

    is_refused(rlstages("train", file, "--track", "none"), refusal, here, {file})


@pytest.mark.parametrize("mistake", ["unknown id", "wrong action", "silent success", "syntax"])
def test_show_refuses_what_train_would_refuse(mistake, rlstages, here):
    body, refusal = BAD[mistake]
    file = write(here, mistake.replace(" ", "_"), body)

    is_refused(rlstages("show", file), refusal, here, {file})


@pytest.mark.parametrize(
    ("array", "value", "refusal"),
    [
        (
            "observations",
            np.nan,
            ("demonstrations-invalid", "stage 'clone': shown.safetensors, episode 0, step 2", "observations"),
        ),
        ("actions", 7, ("demonstrations-invalid", "stage 'clone': shown.safetensors, episode 0, step 2", "actions")),
        (
            "rewards",
            np.inf,
            ("demonstrations-invalid", "stage 'clone': shown.safetensors, episode 0, step 2", "rewards"),
        ),
        (None, None, ("demonstrations-invalid", "stage 'clone': shown.safetensors, episode 0", "observations")),
    ],
)
def test_bad_demonstrations_are_refused_with_file_episode_and_step(array, value, refusal, rlstages, here):
    width = 3 if array else 4
    arrays = {
        "observations": np.zeros((5, width), np.float32),
        "actions": np.zeros(4, np.int64),
        "rewards": np.zeros(4),
    }
    if array:
        arrays[array][2] = value
    Demonstrations((Demonstration(**arrays),)).save("shown.safetensors")
    file = write(here, "cloner", plan("BehaviorCloning('clone', toy('Echo'), demonstrations=demonstrations)"))

    is_refused(rlstages("train", file, "--track", "none"), refusal, here, {file, "shown.safetensors"})


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        (["-p", "step=3"], ("setting-unknown", "good.py", "step")),
        (["-p", "steps=many"], ("setting-type", "good.py: steps", "")),
        (["-p", "steps"], ("option-invalid", "", "")),
        (["-p", "steps=1", "-p", "steps=2"], ("option-invalid", "", "steps")),
        (["--device", "cuda"], ("unavailable", "Agent", "device")),
        (["--device", "gpu"], ("choice-unknown", "Agent", "device")),
        (["--from", "nowhere"], ("file-missing", "nowhere", "")),
        (["--out", "taken"], ("out-taken", "taken", "")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options_are_refused(arguments, refusal, rlstages, here):
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    (here / "taken").mkdir()
    file = write(here, "good", plan(TUNE))

    is_refused(rlstages("train", file, "--track", "none", *arguments), refusal, here, {file, "taken"})
    assert list((here / "taken").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        (["train", "gone.py"], ("file-missing", "gone.py", "")),
        (["train", "room"], ("name-unknown", "", "curriculum")),
        (["train", "no-name.py"], ("name-invalid", "no-name.py", "name")),
        (["resume", "gone"], ("file-missing", "gone", "")),
        (["resume", "."], ("file-missing", ".", "")),
        (["evaluate", "gone"], ("file-missing", "gone", "")),
        (["export", "gone", "--out", "a.zip"], ("file-missing", "gone", "")),
        (["export", "gone", "--out", "a.pt"], ("option-invalid", "", "--out")),
        (["export", "gone", "--out", "a.zip", "--format", "safetensors"], ("option-invalid", "", "--out")),
        (["demos", "record", "make_echo", "toys:tell", "--out", "a.safetensors"], ("name-unknown", "", "environment")),
        (["demos", "record", "toys:Echo", "tell", "--out", "a.safetensors"], ("file-missing", "tell", "")),
        (["demos", "inspect", "gone.npz"], ("file-missing", "gone.npz", "")),
        (["demos", "record", "toys:Echo", "toys:tell", "--out", "a.npz"], ("option-invalid", "", "--out")),
        (["demos", "record", "toys:Ecko", "toys:tell", "--out", "a.safetensors"], ("name-unknown", "toys", "Ecko")),
        (
            ["demos", "record", "toys:Echo", "toys:fail_to_tell", "--out", "a.safetensors"],
            ("expert-invalid", "toys:fail_to_tell", ""),
        ),
        (["demos", "record", "gone.py:Own", "toys:tell", "--out", "a.safetensors"], ("file-missing", "gone.py", "")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_not_there_is_named(arguments, refusal, rlstages, here):
    (here / "no-name.py").write_text("")
    more = ["--track", "none"] if arguments[0] in ("train", "resume") else []

    is_refused(rlstages(*arguments, *more), refusal, here, {"no-name.py"})


def test_a_file_without_a_curriculum_says_what_to_define(rlstages, here):
    (here / "empty_file.py").write_text("x = 3\n")

    is_refused(
        rlstages("train", "empty_file.py"),
        ("import-failed", "empty_file.py", "curriculum"),
        here,
        {"empty_file.py"},
    )


def test_a_run_of_another_network_is_refused(rlstages, here):
    until = SuccessThreshold(0.5, window=4, max_episodes=120)
    stage = tuning("easy", Environment("toys:Always"), until=until, critic_fit_steps=0)
    train(curriculum(stage, network=(8,)), out="first")
    file = write(here, "good", plan(TUNE))

    outcome = rlstages("train", file, "--track", "none", "--from", "first")
    shown = rlstages("show", file, "--from", "first")

    other = ("policy-misfit", "first", "")
    is_refused(outcome, other, here, {file, "first"})
    is_refused(shown, other, here, {file, "first"})
    is_refused(rlstages("show", "first", "--from", "first"), ("option-invalid", "", "--from"), here, {file, "first"})


@pytest.mark.slow
def test_a_mistake_in_a_process_of_its_own(here):
    file = write(here, "apart", BAD["unknown id"][0])

    outcome = apart("train", file, cwd=here)

    assert outcome.returncode == 2
    assert outcome.stderr == "error: stage 'tune': There is no environment 'CartPol-v1'. Did you mean 'CartPole-v1'?\n"
    assert not (here / "runs").exists()


@pytest.mark.slow
def test_without_imitation_the_line_that_installs_it_is_shown(here):
    file = write(here, "cloner", plan(clone()))
    blocker = textwrap.dedent(
        """
        from importlib.machinery import PathFinder
        find_spec = PathFinder.find_spec
        PathFinder.find_spec = classmethod(
            lambda cls, name, *rest: None if name.partition(".")[0] == "imitation" else find_spec(name, *rest)
        )
        """
    )

    outcome = apart("train", file, cwd=here, before=blocker)

    assert outcome.returncode == 2
    assert outcome.stderr == (
        "error: stage 'clone': Cloning needs the package imitation, which is not installed: "
        "pip install --no-deps imitation==1.0.1\n"
    )
    assert not (here / "runs").exists()
    only_tuning = write(here, "tuner", plan(TUNE))
    assert apart("show", only_tuning, cwd=here, before=blocker).returncode == 0


def test_a_choice_is_not_broken_within_a_word_on_a_narrow_screen(rlstages, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")

    for command in ("train", "resume", "compare", "sweep"):
        (line,) = [line for line in rlstages(command, "--help").out.splitlines() if "--track " in line]
        assert " MODE " in line
    wrong = rlstages("train", "rooms", "--track", "of")
    assert wrong.code == 2 and all(f"'{mode}'" in wrong.err for mode in ("auto", "online", "offline", "none"))


def test_wrong_options_are_explained_by_the_command_line_itself(rlstages):
    for arguments in (["train"], ["train", "rooms", "--seeds", "3"], ["train", "rooms", "--seed", "-1"], ["nothing"]):
        outcome = rlstages(*arguments)
        assert outcome.code == 2
        assert "Traceback" not in outcome.err
