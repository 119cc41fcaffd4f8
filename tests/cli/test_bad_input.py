"""A person's mistakes: each is one sentence on standard error, exit code 2, and nothing left behind."""

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from building import curriculum, tuning
from building import rlstages as apart

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
        r"no environment 'CartPol-v1'\. Did you mean 'CartPole-v1'\?",
    ),
    "unknown module": (plan(tune("Environment('nowhere:X-v0')")), "'nowhere:X-v0': there is no module 'nowhere'"),
    "unknown class": (plan(tune("toy('Ecko')")), "'toys' has no 'Ecko'. Did you mean 'Echo'"),
    "wrong argument": (plan(tune("toy('Echo', hue=3)")), "stage 'tune': .*hue"),
    "failing environment": (plan(tune("toy('fails_in_step')")), "stage 'tune': .*RuntimeError: the motor is stuck"),
    "other observations": (
        plan(f"{CLONE}, {tune('''toy('Echo', acts='box')''')}"),
        "stage 'tune': the observations of",
    ),
    "other actions": (
        plan(f"{CLONE}, {tune('''Environment('toys:two_actions')''')}"),
        r"stage 'tune': the actions of two_actions are Discrete\(2\), those of Echo in stage 'clone' are Discrete\(3\)",
    ),
    "no expert": (plan(clone(expert="Expert('toys:tel')")), "'toys' has no 'tel'. Did you mean 'tell'"),
    "failing expert": (plan(clone(expert="Expert('toys:fail_to_tell')")), "stage 'clone': .*the map is missing"),
    "wrong action": (plan(clone(expert="Expert('toys:tell_wrongly')")), "stage 'clone': The expert .*which is not in"),
    "nested expert": (
        plan(clone(expert="Expert(lambda env: env)")),
        r"line \d+: Expert: .* has no name to import it by",
    ),
    "silent success": (plan(tune("toy('Silent')")), "stage 'tune': Silent does not say whether an episode succeeded"),
    "few steps": (plan(tune(more=", max_steps=100")), "stage 'tune': max_steps is 100, but ten rollouts of 64 steps"),
    "NaN threshold": (plan(tune(until="SuccessThreshold(float('nan'))")), "threshold is nan; give a finite number"),
    "endless threshold": (plan(tune(until="RewardThreshold(float('inf'))")), "threshold is inf; give a finite number"),
    "undecidable threshold": (
        plan(tune(until="SuccessThreshold(0.9, margin=0.001, max_episodes=40)")),
        r"stage 'tune': success of at least 0.9 \(margin 0.001\) cannot be decided in 40 episodes",
    ),
    "no threshold": (plan(tune(until="0.9")), "until is 0.9; give a criterion such as SuccessThreshold"),
    "large batch": (plan(tune(), "n_envs=4, n_steps=16"), "a rollout has 64 steps, less than batch_size=256"),
    "unbounded": (plan(tune("toy('unbounded')")), r"The actions are Box\(2,\) of float32 without bounds"),
    "tuple": (plan(tune("toy('paired')")), r"Tuple\(.*\) spaces are not supported; wrap the environment"),
    "dictionary": (plan(tune("toy('Echo', sees='dict')")), "use Agent.policy='MultiInputPolicy'."),
    "no image": (plan(tune(), "policy='CnnPolicy', **agent"), "CnnPolicy needs uint8 images of at least 36 x 36"),
    "network of a stage": (
        plan(tune(more=", network=(8,)")),
        "FineTuning takes no 'network': all stages share one network and its copies, so set it on the Agent",
    ),
    "misspelt setting": (plan(tune(more=", max_step=3")), "FineTuning takes no 'max_step'. Did you mean 'max_steps'"),
    "A2C clips": (
        "return Curriculum('bad', agent=Agent('A2C', clip_range=0.1), stages=[" + TUNE + "])\n",
        "clip_range belong to PPO, and the algorithm is A2C; leave them out",
    ),
    "no algorithm": (
        "return Curriculum('bad', agent=Agent('POP'), stages=[" + TUNE + "])\n",
        "algorithm is 'POP'; there are 'PPO' and 'A2C'",
    ),
    "twice the name": (plan(f"{TUNE}, {TUNE}"), "two stages are named 'tune'; give each a name of its own"),
    "no stage": (plan(""), "give a list of at least one stage"),
    "no demonstrations": (
        plan("BehaviorCloning('clone', toy('Echo'), demonstrations='gone.npz')"),
        "There are no demonstrations at gone.npz",
    ),
    "expert and demonstrations": (
        plan("BehaviorCloning('clone', toy('Echo'), expert=expert, demonstrations='a.npz')"),
        "give either expert=.* or demonstrations='file', and not both",
    ),
    "untrusted model": (plan(clone(expert="Expert('model.zip')")), "There is no model at model.zip"),
    "syntax": ("return Curriculum(\n", r"syntax\.py, line \d+: '\(' was never closed"),
    "failing file": ("return 1 / 0\n", r"failing_file\.py, line 9: ZeroDivisionError: division by zero"),
    "no curriculum": ("return 3\n", "the function 'curriculum' returned int, not a Curriculum"),
    "failing wrapper": (plan(tune("toy('Echo', wrappers=['toys:refuse_to_wrap'])")), "refuse_to_wrap cannot wrap Echo"),
    "batched": (plan(tune("toy('Echo', vectorize='batched')")), "Echo has no batched form"),
}


def is_refused(outcome, sentence, where, kept):
    assert outcome.code == 2
    assert re.search(sentence, outcome.err), outcome.err
    *trace, last = outcome.err.splitlines()
    assert last.startswith("error: ")
    # The traceback of what is the user's own, and of nothing else.
    assert not trace or ("toys.py" in outcome.err and OURS not in outcome.err)
    assert "Traceback" not in outcome.out
    assert {path.name for path in where.iterdir()} - {"__pycache__"} == kept


@pytest.mark.parametrize("mistake", BAD)
def test_a_bad_curriculum_is_refused_in_one_sentence(mistake, rlstages, here):
    body, sentence = BAD[mistake]
    file = write(here, mistake.replace(" ", "_"), body)

    is_refused(rlstages("train", file, "--track", "none"), sentence, here, {file})


@pytest.mark.parametrize("mistake", ["unknown id", "wrong action", "silent success", "syntax"])
def test_show_refuses_what_train_would_refuse(mistake, rlstages, here):
    body, sentence = BAD[mistake]
    file = write(here, mistake.replace(" ", "_"), body)

    is_refused(rlstages("show", file), sentence, here, {file})


@pytest.mark.parametrize(
    ("array", "value", "sentence"),
    [
        ("observations", np.nan, "shown.safetensors, episode 0, step 2: the observations hold a number that is not"),
        ("actions", 7, "shown.safetensors, episode 0, step 2: the action 7 is not a whole number from 0 to 2"),
        ("rewards", np.inf, "shown.safetensors, episode 0, step 2: the reward is not finite"),
        (None, None, "shown.safetensors, episode 0: the observations have the shape"),
    ],
)
def test_bad_demonstrations_are_refused_with_file_episode_and_step(array, value, sentence, rlstages, here):
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

    is_refused(rlstages("train", file, "--track", "none"), sentence, here, {file, "shown.safetensors"})


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-p", "step=3"], "there is no parameter 'step'; it takes steps. Did you mean 'steps'"),
        (["-p", "steps=many"], "steps is 'many', which is not of the type int"),
        (["-p", "steps"], "'steps' is not of the form NAME=VALUE"),
        (["-p", "steps=1", "-p", "steps=2"], "'steps' is given a value twice; give it once"),
        (["--device", "cuda"], "device is 'cuda', but torch finds no GPU; use 'cpu'"),
        (["--device", "gpu"], "device is 'gpu'; give 'cpu', 'cuda'"),
        (["--from", "nowhere"], "nowhere is not a run directory"),
        (["--out", "taken"], "taken is there already; give another --out, or go on with it: rlstages resume taken"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options_are_refused(arguments, sentence, rlstages, here):
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    (here / "taken").mkdir()
    file = write(here, "good", plan(TUNE))

    is_refused(rlstages("train", file, "--track", "none", *arguments), sentence, here, {file, "taken"})
    assert list((here / "taken").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "gone.py"], "There is no curriculum file 'gone.py'"),
        (["train", "room"], r"There is no curriculum 'room'; known are .*\. Did you mean 'rooms'"),
        (["train", "no-name.py"], "no-name.py: a curriculum file's name must be a Python name; rename it"),
        (["resume", "gone"], "gone is not a run directory: it has no run.json"),
        (["resume", "."], r"\. is not a run directory: it has no run.json"),
        (["evaluate", "gone"], "gone is not a run directory: it has no run.json"),
        (["export", "gone", "--out", "a.zip"], "gone is not a run directory: it has no run.json"),
        (["export", "gone", "--out", "a.pt"], r"--out is a\.pt; give a name that ends in \.zip or \.safetensors"),
        (["export", "gone", "--out", "a.zip", "--format", "safetensors"], "for --format safetensors give a name that"),
        (["demos", "record", "make_echo", "toys:tell", "--out", "a.safetensors"], "write .*FILE.py:make_echo"),
        (["demos", "record", "toys:Echo", "tell", "--out", "a.safetensors"], "no run directory 'tell'.* FILE.py:tell"),
        (["demos", "inspect", "gone.npz"], "There are no demonstrations at gone.npz"),
        (["demos", "record", "toys:Echo", "toys:tell", "--out", "a.npz"], "give a name that ends in .safetensors"),
        (["demos", "record", "toys:Ecko", "toys:tell", "--out", "a.safetensors"], "'toys' has no 'Ecko'"),
        (["demos", "record", "toys:Echo", "toys:fail_to_tell", "--out", "a.safetensors"], "the map is missing"),
        (["demos", "record", "gone.py:Own", "toys:tell", "--out", "a.safetensors"], "There is no file .*gone.py"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_not_there_is_named(arguments, sentence, rlstages, here):
    (here / "no-name.py").write_text("")
    more = ["--track", "none"] if arguments[0] in ("train", "resume") else []

    is_refused(rlstages(*arguments, *more), sentence, here, {"no-name.py"})


def test_a_file_without_a_curriculum_says_what_to_define(rlstages, here):
    (here / "empty_file.py").write_text("x = 3\n")

    is_refused(
        rlstages("train", "empty_file.py"), "empty_file.py defines no function 'curriculum'", here, {"empty_file.py"}
    )


def test_a_run_of_another_network_is_refused(rlstages, here):
    until = SuccessThreshold(0.5, window=4, max_episodes=120)
    stage = tuning("easy", Environment("toys:Always"), until=until, critic_fit_steps=0)
    train(curriculum(stage, network=(8,)), out="first")
    file = write(here, "good", plan(TUNE))

    outcome = rlstages("train", file, "--track", "none", "--from", "first")
    shown = rlstages("show", file, "--from", "first")

    spaces = r"\(MlpPolicy\), observations Box\(3,\) of float32 and actions Discrete\(3\)"
    other = rf"The policy of first has network \[8\] {spaces}; this curriculum's has network \[16\] {spaces}\.$"
    is_refused(outcome, other, here, {file, "first"})
    is_refused(shown, other, here, {file, "first"})
    is_refused(rlstages("show", "first", "--from", "first"), "first is a run; --from is for", here, {file, "first"})


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
