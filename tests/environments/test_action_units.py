"""Policies act in [-1, 1], environments in units of their own, and both mean the same actions."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from building import cloning, curriculum, mostly_slow, payloads, tuning
from gymnasium import spaces
from refusing import refusal
from robots import UNEQUAL, Lenient, bounded
from safetensors.torch import load_file
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from rlstages import (
    Environment,
    Expert,
    FineTuning,
    RewardThreshold,
    load_demonstrations,
    load_policy,
    resume,
    train,
)
from rlstages.cli.exporting import export_policy
from rlstages.demonstrations.fitting import place_demonstrations
from rlstages.environments.action_units import doubts_about_range, from_units, narrow_actions, to_units, unit_space
from rlstages.environments.joined import make_joined
from rlstages.environments.make import make_environment, make_vec_env
from rlstages.environments.monitor import monitor_of
from rlstages.events import DemonstrationsReady, EpochFinished, RolloutFinished, StageFinished, Warned
from rlstages.play.experts import showing
from rlstages.play.recording import record
from rlstages.play.saved_policies import evaluate, load_learner
from rlstages.storage.checkpoints import checkpoint_names, read_checkpoint
from rlstages.storage.record import read_record
from rlstages.training.preflight import preflight

BOXES = {
    "newtons": bounded(0.0, 2000.0),
    "millimetres": bounded(-0.001, 0.001),
    "unequal": bounded(**UNEQUAL),
    "partly constant": bounded([0.0, 5.0], [1.0, 5.0]),
    "far from 0": bounded(1000.0, 1000.1, "float64"),
    "half precision": bounded(0.0, 100.0, "float16"),
    "square": bounded([[0.0, 1.0], [2.0, 3.0]], [[4.0, 5.0], [6.0, 7.0]], shape=(2, 2)),
    "number": bounded(0.1, 0.7, shape=()),
}
NEVER = RewardThreshold(1e9)


def arm(**kwargs):
    return Environment("robots:Arm", **kwargs)


def copying(environment, **settings):
    expert = settings.pop("expert", Expert("robots:show", episodes=settings.pop("episodes", 12)))
    return cloning(environment=environment, expert=expert, **settings)


def going_on(environment, **settings):
    given = {"until": NEVER, "max_steps": 900, "on_timeout": "advance", "evaluation_episodes": 4}
    return tuning(environment=environment, **{**given, **settings})


def whole(environment, **settings):
    """Cloning and RL that keeps to the demonstrations."""
    return curriculum(copying(environment), going_on(environment, demonstration_loss=0.5), **settings)


def digests(path):
    return [ended.digest for ended in payloads(path, StageFinished)]


# --- conversion ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", BOXES.values(), ids=BOXES)
def test_the_ends_of_a_box_are_exactly_minus_1_and_1(space):
    ones = np.ones((3, *space.shape), np.float32)

    assert unit_space(space) == spaces.Box(-1.0, 1.0, space.shape, np.float32)
    for unit, end in ((-ones, space.low), (ones, space.high)):
        own = from_units(unit, space)
        np.testing.assert_array_equal(own, np.broadcast_to(end, own.shape))
        assert own.dtype == space.dtype
        np.testing.assert_array_equal(to_units(own, space), np.where(space.high > space.low, unit, 0))


@pytest.mark.parametrize("space", BOXES.values(), ids=BOXES)
def test_actions_come_back_from_either_units(space):
    space.seed(0)
    own = np.stack([space.sample() for _ in range(50)])
    unit = to_units(own, space)
    back = from_units(unit, space)

    assert unit.dtype == np.float32 and np.abs(unit).max() <= 1
    assert all(space.contains(np.asarray(action)) for action in back)
    spare = 2 * np.finfo(np.float16 if space.dtype == np.float16 else np.float32).eps
    np.testing.assert_allclose(back, own, rtol=spare, atol=spare * np.max(space.high - space.low))
    middle = from_units(np.zeros((1, *space.shape), np.float32), space)[0]
    np.testing.assert_allclose(middle, (space.low.astype(float) + space.high) / 2, rtol=1e-3)


def test_what_lies_outside_is_brought_to_the_bounds():
    box = bounded(**UNEQUAL)

    np.testing.assert_array_equal(from_units(np.array([[-7.0, 7.0]]), box)[0], [box.low[0], box.high[1]])


@pytest.mark.parametrize(
    "space",
    [
        bounded(-1.0, 1.0),
        bounded(-1.0, 1.0, "float64"),
        spaces.Discrete(3),
        spaces.MultiBinary(2),
        spaces.MultiDiscrete([2, 3]),
    ],
    ids=str,
)
def test_where_a_policy_acts_in_the_environments_space_nothing_is_converted(space):
    given = np.stack([space.sample() for _ in range(3)])

    assert unit_space(space) is space
    assert to_units(given, space) is given


# --- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "engine"), mostly_slow([("PPO", "torch"), ("PPO", "numpy"), ("A2C", "numpy")], 2)
)
def test_units_are_nothing_that_a_policy_learns(algorithm, engine, here):
    """Powers of two convert without rounding, so the weights can be the same ones to the last bit."""
    more = {"batch_size": None, "n_epochs": None} if algorithm == "A2C" else {}
    for name, environment in {
        "plain": arm(low=-1.0, high=1.0),
        "large": arm(low=-1024.0, high=1024.0),
        "small": arm(low=[-(2.0**-10), -2.0], high=[2.0**-10, 2.0], dtype="float64"),
    }.items():
        train(whole(environment, algorithm=algorithm, engine=engine, **more), out=name, seed=3)

    assert len(digests("plain")) == 2
    assert digests("plain") == digests("large") == digests("small")
    errors = [payloads(name, EpochFinished)[-1].metrics["error"] for name in ("plain", "large", "small")]
    assert errors[0] == errors[1] == errors[2] < 0.5


@pytest.mark.parametrize(
    "environment",
    mostly_slow(
        [
            arm(low=-1024.0, high=1024.0, vectorize="subprocess"),
            arm(low=-1024.0, high=1024.0, sees="dict"),
            Environment("robots:Arms", low=-1024.0, high=1024.0),
            Environment("gymnasium.envs.classic_control.pendulum:PendulumEnv", wrappers=["robots:ten_steps"]),
        ],
        3,
    ),
    ids=str,
)
def test_all_forms_take_a_policys_actions(environment, here):
    policy = "MultiInputPolicy" if environment.kwargs.get("sees") == "dict" else "MlpPolicy"

    train(curriculum(going_on(environment, critic_fit_steps=0), policy=policy), out="run")

    assert payloads("run", StageFinished)[0].outcome == "missed"
    assert {score.episodes for _, score in evaluate(Path("run"), 5, 0)} == {5}


def test_what_copies_play_is_kept_in_their_own_units_and_seen_by_rehearsal():
    large, units = arm(low=0.0, high=2000.0), np.array([[-1.0, 1.0]] * 3, np.float32)
    env = make_joined([(large, 2), (arm(low=0.0, high=2000.0, steps=4), 1)], 0, 0)
    env.reset()
    env.step(units)

    assert env.action_space == spaces.Box(-1.0, 1.0, (2,), np.float32)
    for part in env.parts:
        assert monitor_of(part).action_space.high.max() == 2000.0
        np.testing.assert_array_equal(monitor_of(part).state_dict()["inside"][0], [[0.0, 2000.0]])
    env.close()


@pytest.mark.slow
def test_a_run_in_other_units_goes_on_to_the_last_bit(here):
    plan = whole(arm(**UNEQUAL), normalize_rewards=True)
    train(plan, out="whole")
    rollouts = [4]

    def take(event):
        rollouts[0] -= isinstance(event.payload, RolloutFinished)

    take.close = lambda: None
    train(plan, out="run", trackers=[take], watch=lambda learner: "enough" if rollouts[0] <= 0 else None)
    assert len(digests("run")) == 1
    resume("run")

    assert digests("run") == digests("whole")
    ends = [
        read_checkpoint(Path(path) / "checkpoints" / checkpoint_names(Path(path) / "checkpoints")[-1])
        for path in ("run", "whole")
    ]
    np.testing.assert_equal(ends[0]["learner"], ends[1]["learner"])


# --- policies that leave a run -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["newtons", "millimetres", "unequal", "partly constant"])
def left(request, tmp_path_factory):
    """A run in a Box of its own, and the zip of its policy."""
    box = BOXES[request.param]
    path = tmp_path_factory.mktemp("left")
    algorithm, kind = ("A2C", A2C) if request.param == "newtons" else ("PPO", PPO)
    more = {"batch_size": None, "n_epochs": None} if algorithm == "A2C" else {}
    sees = {"low": box.low.tolist(), "high": box.high.tolist()}
    if request.param == "partly constant":
        environment = Environment("robots:Kind", acts="partly constant")
        stage = copying(environment, expert=Expert("robots:show_any", episodes=4))
    else:
        stage = copying(arm(**sees))
    more["normalize_observations"] = request.param == "unequal"
    train(curriculum(stage, algorithm=algorithm, **more), out=path / "run")
    export_policy(path / "run", path / "model.zip", None)
    return path / "run", kind.load(path / "model.zip", device="cpu"), box


def test_a_runs_policy_and_its_zip_act_in_the_environments_units_as_evaluation_does(left):
    run, model, box = left
    learner, policy = load_learner(run), load_policy(run)
    seen = np.random.default_rng(0).uniform(-1, 1, (200, 2)).astype(np.float32)
    spare = {"rtol": 2e-6, "atol": 2e-6 * float((box.high - box.low).max())}

    played = from_units(learner.algorithm.player(0, deterministic=True)(seen), box)
    for own in (policy, model.policy, model):
        acted = own.predict(seen, deterministic=True)[0]
        assert all(map(box.contains, acted))
        np.testing.assert_allclose(acted, played, **spare)
    sampled = []
    for own in (learner.policy, policy, model):
        torch.manual_seed(4)
        sampled.append(own.predict(seen, deterministic=False)[0])
    np.testing.assert_allclose(sampled[1], from_units(sampled[0], box), **spare)
    np.testing.assert_array_equal(sampled[1], sampled[2])
    assert policy.action_space == model.action_space == box
    assert np.unique(sampled[1][:, 0]).size > 20


def test_a_zip_can_be_trained_further(left):
    run, kept, box = left
    model = type(kept).load(run.parent / "model.zip", device="cpu")

    model.set_env(DummyVecEnv([lambda: Lenient(low=box.low, high=box.high)] * 4))
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    assert not model.policy.optimizer.state, "moments of another parametrisation must not be carried on"
    model.learn(64)

    after = model.policy.state_dict()
    assert all(torch.isfinite(value).all() for value in after.values())
    assert not torch.equal(before["action_net.weight"], after["action_net.weight"])


def test_exported_weights_are_in_the_environments_units_too(left, tmp_path):
    run, model, _ = left
    export_policy(run, tmp_path / "weights.safetensors", None)

    found = load_file(tmp_path / "weights.safetensors")
    assert all(torch.equal(value, found[name]) for name, value in model.policy.state_dict().items())


@pytest.mark.slow
def test_a_zip_in_other_units_needs_nothing_of_ours(here):
    train(curriculum(copying(arm(), episodes=2, max_epochs=1)), out="run")
    export_policy(Path("run"), Path("model.zip"), None)
    code = (
        "from stable_baselines3 import PPO; import sys; model = PPO.load('model.zip'); "
        "print(model.predict([0.5, -0.5], deterministic=True)[0].tolist(), 'rlstages' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    acted = load_policy("run").predict(np.array([0.5, -0.5], np.float32), deterministic=True)[0].tolist()
    assert done.stdout == f"{acted} False\n", done.stderr


def test_demonstrations_and_experts_stay_in_the_environments_units(here):
    train(curriculum(copying(arm(**UNEQUAL), episodes=30, max_epochs=20)), out="run")
    shown = load_demonstrations(Path("run") / payloads("run", DemonstrationsReady)[0].file).transitions()
    asked = record(arm(**UNEQUAL), Expert("run", episodes=3), showing(Expert("run"))).transitions()
    box = bounded(**UNEQUAL)

    for seen, acted in (shown, asked):
        assert all(map(box.contains, acted))
        assert np.abs(to_units(acted, box) - seen).mean() < 0.2
    second = train(curriculum(copying(arm(**UNEQUAL), expert=Expert("run", episodes=4))), out="second")
    assert second.outcome == "reached"


@pytest.mark.slow
def test_a_clone_acts_like_its_expert_whatever_the_units(here):
    scores = []
    for number, bounds in enumerate([{"low": -1.0, "high": 1.0}, {"low": 0.0, "high": 2000.0}, UNEQUAL]):
        plan = curriculum(copying(arm(**bounds), episodes=30, max_epochs=20))
        scores.append(train(plan, out=f"run-{number}").stages["clone"].after.success)

    assert min(scores) > 0.7


# --- runs that start from others, and runs of before ---------------------------------------------------------------


def test_a_run_goes_on_from_another_in_the_same_units_only(here):
    train(whole(arm(**UNEQUAL)), out="first")
    other = curriculum(going_on(arm(low=-1.0, high=200.0)))

    assert train(curriculum(going_on(arm(**UNEQUAL), demonstration_loss=0.1)), out="next", initial="first").stages
    assert refusal(train, other, out="other", initial="first") == ("spaces-unsupported", "", "actions")
    assert not Path("other").exists()
    elsewhere = [arm(low=-1.0, high=200.0)]
    assert refusal(evaluate, Path("first"), 4, 0, elsewhere) == ("spaces-unsupported", "", "actions")


@pytest.mark.slow
def test_a_run_whose_policy_acts_in_other_units_is_not_misread(here):
    """As those were written that knew no conversion."""
    train(curriculum(copying(arm(), max_epochs=1), going_on(arm(), on_timeout="stop")), out="run")
    train(curriculum(copying(arm(low=-1.0, high=1.0))), out="plain")
    data = json.loads(Path("run/run.json").read_text())
    assert data["spaces"].pop("policy_action")["low"] == -1.0
    assert "policy_action" not in json.loads(Path("plain/run.json").read_text())["spaces"]
    Path("run/run.json").write_text(json.dumps(data))

    for call in (
        lambda: load_policy("run"),
        lambda: evaluate(Path("run"), 4, 0),
        lambda: resume("run", max_steps=2_000),
        lambda: train(curriculum(going_on(arm())), out="next", initial="run"),
        lambda: train(curriculum(copying(arm(), expert=Expert("run"))), out="next"),
    ):
        assert refusal(call)[0] == "run-changed"
    assert not Path("next").exists()
    assert load_policy("plain") is not None


# --- what is refused, and what is doubtful -------------------------------------------------------------------------


def test_stages_with_other_bounds_of_actions_are_refused_for_that(here):
    plan = curriculum(copying(arm()), going_on(arm(high=1000.0)))

    assert refusal(preflight, plan) == ("spaces-unsupported", "stage 'tune'", "actions")
    plan = curriculum(copying(arm()), held_out=[arm(high=3.0)])
    assert refusal(preflight, plan) == ("spaces-unsupported", "held_out", "actions")


@pytest.mark.parametrize(
    ("box", "doubt"),
    [
        (bounded(0.0, 2.0**24), None),
        (bounded(0.0, 2.0**26), "dimension 0 \\(and so in 1 more\\)"),
        (bounded([0.0, 0.0], [1.0, 2.0**25]), "dimension 1"),
        (spaces.Discrete(3), None),
    ],
    ids=str,
)
def test_bounds_too_wide_for_whole_numbers_are_doubtful(box, doubt):
    found = " ".join(doubts_about_range(box))

    assert bool(found) == (doubt is not None)
    assert doubt is None or np.char.find(found, doubt.replace("\\", "")) >= 0


def test_a_preflight_tells_of_wide_bounds():
    wide = Environment("robots:Arm", low=0.0, high=2.0**26)

    assert any("in dimension 0" in doubt for doubt in preflight(curriculum(going_on(wide))).doubts)
    assert not any("dimension" in doubt for doubt in preflight(curriculum(going_on(arm()))).doubts)


@pytest.mark.parametrize(
    ("actions", "dimensions"),
    [
        ([[0.0, 0.0], [2000.0, 0.5]], ["1"]),
        ([[0.0, 7.0], [1.9, 8.9]], ["0", "1 more"]),
        ([[0.0, 7.0], [2.1, 7.0]], []),
    ],
)
def test_demonstrations_that_use_hardly_any_of_their_range_are_named(actions, dimensions):
    found = list(narrow_actions(np.array(actions), bounded(0.0, 2000.0)))

    assert len(found) == bool(dimensions)
    assert all(f"{place}" in found[0] for place in dimensions)


def test_a_stage_warns_of_demonstrations_that_hardly_move(here):
    train(curriculum(copying(arm(), expert=Expert("robots:show_little", episodes=3), max_epochs=1)), out="run")
    train(curriculum(copying(arm(), max_epochs=1)), out="other")

    told = [warned.message for warned in payloads("run", Warned) if "narrower bounds" in warned.message]
    assert len(told) == 1 and "in dimension 0 (and so in 1 more)" in told[0]
    assert not any("narrower bounds" in warned.message for warned in payloads("other", Warned))


@pytest.mark.parametrize("name", ["newtons", "millimetres", "unequal", "far from 0", "number"])
def test_demonstrations_may_be_out_of_bounds_by_rounding_only(name):
    space = BOXES[name]
    width = space.high.astype(float) - space.low

    def placed(actions):
        shown = record(arm(), Expert("robots:show", episodes=1), showing(Expert("robots:show")))
        length = len(shown.episodes[0])
        acted = np.broadcast_to(actions, (length, *space.shape))
        given = dataclasses.replace(shown, episodes=(dataclasses.replace(shown.episodes[0], actions=acted),))
        return place_demonstrations("shown", given, bounded(-1.0, 1.0), space).transitions()[1]

    assert placed(space.high + 1e-7 * width).max() == 1.0
    assert placed(space.high).shape[1:] == (max(1, int(np.prod(space.shape))),)
    where = "shown, episode 0, step 0"
    assert refusal(placed, space.high + 0.01 * width) == ("demonstrations-invalid", where, "actions")


# --- spaces of all kinds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("view", "acts", "engine"),
    [(None, "multibinary", "auto"), (None, "square", "torch"), ("dict", "discrete", "auto")]
    + mostly_slow([(None, acts, "auto") for acts in ("multidiscrete of bytes", "flat", "square", "number")])
    + mostly_slow([(None, acts, "auto") for acts in ("square of units", "half precision", "partly constant")])
    + mostly_slow([(None, acts, "torch") for acts in ("multidiscrete of bytes", "number")])
    + mostly_slow([(view, "discrete", "auto") for view in ("two axes of bits", "bits with a shape", "bytes")]),
)
def test_what_passes_preflight_is_cloned_and_trained_with_actions_of_its_space(view, acts, engine, here):
    environment = Environment("robots:Kind", view=view, acts=acts)
    stages = [
        copying(environment, expert=Expert("robots:show_any", episodes=4)),
        going_on(environment, demonstration_loss=0.5),
    ]
    plan = curriculum(*stages, engine=engine, policy="MultiInputPolicy" if view == "dict" else "MlpPolicy")

    train(plan, out="run")

    assert evaluate(Path("run"), 3, 0)[0][1].episodes == 3
    model = load_learner(Path("run")).algorithm.model
    assert load_policy("run").predict(model.observation_space.sample())[0].shape == (
        make_environment(environment).action_space.shape
    )


@pytest.mark.parametrize("kind", mostly_slow(["box", "dict", "bytes"], 1))
def test_stages_may_differ_in_the_bounds_of_observations(kind, here):
    grids = [Environment("robots:Grid", size=size, kind=kind) for size in (5, 10)]
    stages = [
        FineTuning(str(number), grid, until=RewardThreshold(4, worst=0), max_steps=2_000, critic_fit_steps=0)
        for number, grid in enumerate(grids)
    ]
    plan = curriculum(*stages, policy="MultiInputPolicy" if kind == "dict" else "MlpPolicy")

    found = preflight(plan).observation
    result = train(
        dataclasses.replace(plan, stages=(stages[0], dataclasses.replace(stages[1], rehearse=0.5))), out="run"
    )

    assert (found["at"] if kind == "dict" else found).high.max() == 10
    assert result.outcome == "reached"
    assert load_policy("run").observation_space == found
    assert read_record(Path("run")).spaces["observation"] is not None


def test_a_warning_of_what_is_seen_goes_by_each_environments_own_bounds(here):
    told = {}
    for size in (5, 20):
        env = make_vec_env(
            Environment("robots:Grid", size=size, shown=9.0), 2, 0, 0, warn=told.setdefault(size, []).append
        )
        env.reset()
    assert len(told[5]) == 1 and not told[20]


def test_bounds_that_make_an_image_of_one_stage_only_are_refused():
    images = [Environment("robots:Kind", view=view) for view in ("image", "dark image")]
    plan = curriculum(*(tuning(str(number), image) for number, image in enumerate(images)))

    assert refusal(preflight, plan) == ("spaces-unsupported", "stage '1'", "observations")


def test_a_text_in_a_dictionary_is_named_by_its_key_and_with_minigrids_own_wrapper():
    pytest.importorskip("minigrid")
    plan = curriculum(tuning(environment=Environment("minigrid:MiniGrid-Empty-5x5-v0")), policy="MultiInputPolicy")

    assert refusal(preflight, plan) == ("spaces-unsupported", "stage 'tune': MiniGrid-Empty-5x5-v0", "mission")
