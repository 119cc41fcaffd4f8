"""How errors are worded: the one place to change when a sentence is improved. Other tests assert codes and fields."""

import errno
import json
from pathlib import Path
from typing import get_args
from unittest import mock

import numpy as np
import pytest
from building import agent, cloning, curriculum, echo, learner_for, tuning
from comparing import placed
from gymnasium import spaces

from rlstages import (
    Agent,
    BehaviorCloning,
    Environment,
    Expert,
    FineTuning,
    RewardThreshold,
    SuccessThreshold,
    load_curriculum,
    load_policy,
    resume,
    train,
)
from rlstages.cli.launching import read_seeds
from rlstages.demonstrations.episodes import load_demonstrations
from rlstages.environments.make import make_environment, make_vec_env
from rlstages.errors import Code, CodedError
from rlstages.experiments.compare.arms import make_arms
from rlstages.experiments.compare.results import read_results
from rlstages.learners.algorithms.on_policy.protocol import refuse_not_finite
from rlstages.learners.fit import require_fit
from rlstages.play.experts import showing
from rlstages.specs.stages.base import StageSpec
from rlstages.stages.runner import require_result
from rlstages.storage.checkpoints import replace_durably
from rlstages.storage.record import read_record
from rlstages.storage.run_directory import RunDirectory
from rlstages.training.conditions import require_unchanged
from rlstages.training.preflight import preflight
from rlstages.training.stopping import fault_of

POLE, SURE = Environment("CartPole-v1"), RewardThreshold(9)
VECTOR = spaces.Box(-1, 1, (3,))
ALWAYS = {"environment": Environment("toys:Always"), "until": SuccessThreshold(0.5, window=4, max_episodes=120)}


def easy(**settings):
    return curriculum(tuning("easy", critic_fit_steps=0, **ALWAYS), **settings)


def trained():
    train(easy(), out="run")
    return Path("run")


def written(name, content):
    Path(name).write_text(content)
    return Path(name)


def nested():
    train(easy(), out="other", watch=lambda learner: resume("run"))


def kind_with_a_field():
    type("Odd", (StageSpec,), {"__annotations__": {"runner": str}})


def incomplete():
    np.savez("shown.npz", actions=np.zeros(3))
    load_demonstrations("shown.npz")


def of_another_version():
    written("run.json", json.dumps({"version": 99}))
    read_record(Path("."))


def inside_a_file():
    written("file", "mine")
    train(easy(), out="file/run")


def unconfirmed():
    with mock.patch("rlstages.storage.checkpoints.sync_directory", side_effect=OSError(errno.ENOSPC, "")):
        replace_durably(Path("run.json"), b"")


def taken():
    Path("run").mkdir()
    train(easy(), out="run")


def busy():
    with RunDirectory(trained()) as run:
        RunDirectory(run.path)


def edited():
    file = trained() / "run.json"
    file.write_text(file.read_text().replace('"easy"', '"hard"'))
    require_unchanged(Path("run"), read_record(Path("run")), force=False)


def unfinished():
    train(easy(), out="run", watch=lambda learner: "stop")
    load_policy("run")


def failing():
    env = make_vec_env(Environment("toys:fails_in_step"), 1, 0, 0)
    env.reset()
    for _ in range(9):
        env.step(np.array([0]))


def without_memory():
    raise fault_of(MemoryError(), Path("run"))


def compared():
    read_results(Path("."), placed(Path(".")), 6_000, {})


def of_hdf5():
    load_demonstrations(written("main_data.hdf5", ""))


def pickled():
    load_demonstrations(written("shown.pkl", ""))


SENTENCES = {
    "setting-type": [
        (lambda: Agent(n_envs=2.5), "Agent: n_envs is 2.5; give a whole number of at least 1."),
        (lambda: Agent(normalize_rewards=1), "Agent: normalize_rewards is 1; give True or False."),
        (lambda: Agent(network=64), "Agent: network is 64; give a list, which is for actor and critic each."),
        (
            lambda: Agent(learning_rate="3e-4"),
            "PPO: learning_rate is '3e-4'; give a finite number above 0, without quotes (YAML reads 3e-4 "
            "as text, and 3.0e-4 as a number).",
        ),
        (
            lambda: FineTuning("a", POLE, until=0.9, max_steps=9),
            "stage 'a': until is 0.9; give a criterion such as SuccessThreshold(0.9) or RewardThreshold(200).",
        ),
        (lambda: Environment("a", x={1, 2}), "Environment('a'): {1, 2} cannot be written as JSON; write a list."),
        (
            lambda: Environment("a", x=Path("b.xml")),
            "Environment('a'): PosixPath('b.xml') cannot be written as JSON; write the path as text: 'b.xml'.",
        ),
    ],
    "setting-range": [
        (lambda: Agent(n_envs=0), "Agent: n_envs is 0; give a whole number of at least 1."),
        (lambda: Agent(gamma=1.01), "PPO: gamma is 1.01; give a finite number above 0 and at most 1."),
        (lambda: train(easy(), seed=-1), "The seed is -1; give a whole number from 0 to 4,294,967,295."),
    ],
    "setting-unknown": [
        (
            lambda: FineTuning("a", POLE, until=SURE, max_step=9),
            "FineTuning takes no 'max_step'. Did you mean 'max_steps'?",
        ),
        (
            lambda: FineTuning("a", POLE, until=SURE, n_envs=9),
            "FineTuning takes no 'n_envs': all stages share one network and its copies, so set it on the Agent.",
        ),
        (
            lambda: Agent("PPO", net_arch=[64]),
            "Agent takes no 'net_arch'; write network=[64, 64], which is for actor and critic each.",
        ),
        (
            lambda: Agent("PPO", total_timesteps=9),
            "Agent takes no 'total_timesteps'; write max_steps in each FineTuning stage.",
        ),
        (
            lambda: Agent("PPO", verbose=1),
            "Agent takes no 'verbose'; the command line shows the run, and train(..., console=True) does.",
        ),
        (
            lambda: Agent("PPO", buffer_size=1),
            "Agent takes no 'buffer_size'; it is of algorithms with a replay buffer, and there are none here.",
        ),
        (
            lambda: Agent("PPO", "MlpPolicy"),
            "Agent takes only algorithm without a name; write name=value for 'MlpPolicy'.",
        ),
        (
            lambda: Agent("A2C", clip_range=0.2),
            "Agent: clip_range belong to PPO, and the algorithm is A2C; leave them out.",
        ),
    ],
    "setting-missing": [
        (lambda: Environment(""), "Environment: the id is empty; give an id such as 'CartPole-v1'."),
        (
            lambda: RewardThreshold(0),
            "RewardThreshold: 5 % of the threshold 0 is no margin; give margin=... in units of reward.",
        ),
    ],
    "setting-conflict": [
        (
            lambda: SuccessThreshold(0.05),
            "SuccessThreshold: threshold minus margin is 0, which no number of episodes can decide; it "
            "must lie strictly between 0 and 1, so change one of the two.",
        ),
        (
            lambda: BehaviorCloning("a", POLE),
            "stage 'a': give either expert=Expert(...) or demonstrations='file', and not both.",
        ),
        (
            lambda: FineTuning("a", POLE, until=SURE, max_steps=5_119).check_place([], Agent(n_envs=4)),
            "stage 'a': max_steps is 5,119, but ten rollouts of 512 steps and a critic fit of 0 take "
            "5,120; raise max_steps, or lower critic_fit_steps, n_envs or n_steps.",
        ),
    ],
    "choice-unknown": [
        (
            lambda: Environment("a", vectorize="subproces"),
            "Environment('a'): vectorize is 'subproces'; it must be one of 'auto', 'in-process', "
            "'subprocess', 'batched'. Did you mean 'subprocess'?",
        ),
        (lambda: Agent(device="gpu"), "Agent: device is 'gpu'; give 'cpu', 'cuda', 'cuda:1', 'mps' or 'auto'."),
    ],
    "name-invalid": [
        (
            lambda: Environment(lambda: 1),
            "Environment: a lambda has no name to import it by; define it with def or class at top level.",
        ),
        (lambda: Environment("a", wrappers=["w"]), "Environment('a'): 'w' is not of the form 'module:name'."),
        (
            lambda: curriculum(tuning(" a")),
            "FineTuning: the name is ' a'; give 1 to 80 printable characters without blanks at the ends.",
        ),
    ],
    "name-unknown": [
        (
            lambda: load_curriculum("room"),
            "There is no curriculum 'room'; known are cartpole, lunarlander, minigrid-doorkey, "
            "minigrid-multiroom, pointmaze, rooms. Did you mean 'rooms'?",
        ),
        (lambda: Agent("SAC"), "Agent: algorithm is 'SAC'; there are 'PPO' and 'A2C'."),
        (
            lambda: make_environment(Environment("CartPol-v1")),
            "There is no environment 'CartPol-v1'. Did you mean 'CartPole-v1'?",
        ),
        (lambda: make_environment(Environment("toys:Ecko")), "'toys:Ecko': 'toys' has no 'Ecko'. Did you mean 'Echo'?"),
        (
            lambda: make_arms(curriculum(cloning(), tuning()), ["scrach"]),
            "There is no arm 'scrach'; known are staged, no-cloning, no-curriculum, scratch, clone-only, "
            "naive-handover. Did you mean 'scratch'?",
        ),
    ],
    "name-taken": [
        (
            lambda: curriculum(tuning(), tuning()),
            "curriculum 'tiny': two stages are named 'tune'; give each a name of its own.",
        )
    ],
    "stage-order": [
        (
            lambda: preflight(curriculum(tuning(demonstration_loss=0.1))),
            "stage 'tune': demonstration_loss=0.1, but no stage before it learns from demonstrations, as "
            "BehaviorCloning does; add one, start from a run that has such a stage, or leave it out.",
        ),
        (
            lambda: curriculum(tuning(rehearse=0.2)),
            "stage 'tune': rehearse=0.2, but no stage before it has another environment; leave rehearse out.",
        ),
    ],
    "import-failed": [
        (
            lambda: make_environment(Environment("nowhere:Some-v0")),
            "'nowhere:Some-v0': there is no module 'nowhere'; install it, or correct the name.",
        )
    ],
    "comparison-invalid": [
        (lambda: make_arms(curriculum(cloning())), "'tiny' has no fine-tuning stage, so there is nothing to compare.")
    ],
    "option-invalid": [(lambda: read_seeds("a"), "--seeds is 'a'; give 0:5 for 0 to 4, or 1,4,7.")],
    "spaces-unsupported": [
        (
            lambda: require_fit(agent(), VECTOR, spaces.Discrete(3, start=1)),
            "The actions are Discrete(3, start=1), which does not count from 0; wrap the environment so that it does.",
        ),
        (
            lambda: require_fit(agent(), VECTOR, spaces.Box(0, 4, (2,), np.int32)),
            "The actions are Box(2,) of int32, but a policy gives fractions to a Box; let a wrapper take "
            "MultiDiscrete([5, 5]) instead.",
        ),
        (
            lambda: preflight(curriculum(tuning(), tuning("box", echo(acts="box")))),
            "stage 'box': the observations of Echo(acts='box') are Box(2,) of float32, those of Echo in "
            "stage 'tune' are Box(3,) of float32; one network cannot serve both, so wrap one of them.",
        ),
    ],
    "environment-invalid": [
        (
            lambda: make_environment(Environment("toys:fails_when_made")),
            "fails_when_made cannot be made: RuntimeError: no licence.",
        ),
        (
            lambda: preflight(curriculum(tuning(environment=Environment("toys:Silent"), until=SuccessThreshold(0.5)))),
            "stage 'tune': Silent does not say whether an episode succeeded: its last info has no "
            "'is_success'; give Environment(success=...) an info key, a return to reach, or a function.",
        ),
    ],
    "expert-invalid": [
        (
            lambda: preflight(curriculum(cloning(expert=Expert("toys:tell_wrongly")))),
            "stage 'clone': The expert toys:tell_wrongly gives the action array([7., 7., 7.]) at step 0 "
            "of the episode with seed 1403267518, which is not in Discrete(3).",
        )
    ],
    "policy-misfit": [
        (
            lambda: learner_for(echo(), agent(network=(8,))).load_policy(learner_for(echo()).weights()),
            "The policy's mlp_extractor.policy_net.0.weight is (16, 3), this agent's (8, 3).",
        )
    ],
    "file-missing": [
        (lambda: read_record(Path("gone")), "gone is not a run directory: it has no run.json."),
        (lambda: load_curriculum("gone.py"), "There is no curriculum file 'gone.py'."),
        (lambda: load_demonstrations("gone.npz"), "There are no demonstrations at gone.npz."),
        (
            lambda: load_demonstrations("D4RL/pointmaze/umaze-v2"),
            "There are no demonstrations at D4RL/pointmaze/umaze-v2. If that is a data set of Minari's, "
            "write its episodes to a .safetensors or .npz file, as docs/demonstrations.md shows.",
        ),
    ],
    "loss-not-finite": [
        (
            lambda: refuse_not_finite(np.inf),
            "The loss is inf; lower the learning rate, or look for huge rewards or observations.",
        )
    ],
    "call-misplaced": [
        (
            nested,
            "resume() was called by something that train() runs, such as an environment, an expert or a "
            "tracker; a run in the midst of another would take its random numbers, so start it in a "
            "process of its own. Mend that, and train with another --out.",
        )
    ],
    "kind-invalid": [
        (
            kind_with_a_field,
            "Odd: runner is declared as a field; write 'runner: ClassVar[str] = ...', or leave the type out.",
        )
    ],
    "demonstrations-invalid": [
        (
            incomplete,
            "shown.npz: the arrays 'observations', 'rewards', 'lengths' are missing; give observations "
            "(of each episode one more than actions), actions, rewards and lengths (the steps of each "
            "episode), as docs/demonstrations.md says.",
        ),
        (
            of_hdf5,
            "main_data.hdf5 is an HDF5 file; write its episodes to a .safetensors or .npz file, as "
            "docs/demonstrations.md shows.",
        ),
    ],
    "unavailable": [
        (lambda: preflight(easy(device="mps")), "Agent: device is 'mps', but torch finds none; use 'cpu'.")
    ],
    "file-damaged": [
        (of_another_version, "run.json cannot be read: it is of version 99, and this rlstages reads version 1.")
    ],
    "file-unusable": [(inside_a_file, "file/run cannot be made: Not a directory; give another --out.")],
    "file-unconfirmed": [
        (
            unconfirmed,
            "run.json is written, but the disk did not confirm it (the disk is full; free some space), so a power "
            "cut may undo it.",
        )
    ],
    "out-taken": [
        (
            taken,
            "run is there already; give another --out, or go on with it: rlstages resume run (in Python "
            "out=..., and rlstages.resume('run')).",
        )
    ],
    "run-busy": [(busy, "run is in use in this process already; close it first.")],
    "run-changed": [
        (
            edited,
            "run: The curriculum in run.json has been changed since it was written. Undo that, or go on "
            "all the same with --force.",
        )
    ],
    "run-unready": [(unfinished, "In run no stage has ended yet, so there is no policy to load; train it further.")],
    "untrusted": [
        (
            lambda: showing(Expert(written("model.zip", ""))),
            "model.zip is a stable-baselines3 file, and loading one can run any code that is hidden in "
            "it; give --trust-pickle if you trust whoever made it.",
        ),
        (
            pickled,
            "shown.pkl is pickled, which can run any code when it is loaded; if you trust whoever made "
            "it, write it anew with imitation.data.serialize.save, whose folders are read here.",
        ),
    ],
    "environment-failed": [
        (
            failing,
            "fails_in_step: copy 0 raised RuntimeError: the motor is stuck in step(), at step 2 of its episode 0.",
        )
    ],
    "episode-endless": [
        (
            lambda: preflight(curriculum(tuning(environment=Environment("toys:Endless"), until=SURE))),
            "stage 'tune': An episode of random actions in Endless has not ended within 20,000 steps, "
            "and no limit of steps was found; give it a time limit, such as "
            "gymnasium.wrappers.TimeLimit.",
        )
    ],
    "runner-invalid": [
        (
            lambda: require_result(tuning(), "done", follows=False),
            "Stage 'tune': the result of its runner rlstages.stages.fine_tuning.runner:FineTuningRunner "
            "is 'done'; it is None while the stage is under way, and then a Result.",
        )
    ],
    "resources-short": [
        (without_memory, "Memory ran out; use fewer copies (n_envs), shorter rollouts (n_steps) or a smaller network.")
    ],
    "runs-failed": [(compared, "No run came to its end, so there is nothing to compare: staged, seed 0: not finished")],
}


WITHOUT_OUR_WORDS = {"tracking-failed", "other"}


@pytest.mark.parametrize(
    "code, provoke, sentence",
    [(code, *case) for code, cases in SENTENCES.items() for case in cases],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_an_error_says_exactly_this(code, provoke, sentence, here):
    with pytest.raises(CodedError) as caught:
        provoke()
    assert (caught.value.code, str(caught.value)) == (code, sentence)


def test_every_code_has_a_sentence_here():
    assert set(get_args(Code)) - set(SENTENCES) == WITHOUT_OUR_WORDS
