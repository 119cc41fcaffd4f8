"""What is refused before the first step, in one sentence that names the stage."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from building import cloning, curriculum, echo, tuning
from refusing import refusal, refused

from rlstages import Environment, Expert, RewardThreshold, SuccessThreshold, train
from rlstages.demonstrations.episodes import Demonstration, Demonstrations
from rlstages.play.experts import showing
from rlstages.play.recording import record
from rlstages.play.smoke_check import try_expert
from rlstages.training.preflight import preflight, slowness


def toy(name):
    return Environment(f"toys:{name}")


def shown(**changes):
    """Two good episodes, with some arrays of the second one changed."""
    who = Expert("toys:tell", episodes=2)
    first, second = record(echo(), who, showing(who)).episodes
    return Demonstrations(
        (first, dataclasses.replace(second, **{k: f(getattr(second, k)) for k, f in changes.items()}))
    )


def spoiled(array, value):
    changed = array.astype(np.result_type(array, value), copy=True)
    changed[3] = value
    return changed


def test_a_good_curriculum_passes_and_its_spaces_are_those_of_the_policy():
    found = preflight(curriculum(cloning(environment=echo(sees="image")), policy="CnnPolicy"))

    assert found.observation.shape == (3, 36, 36)
    assert found.action.n == 3


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        (
            Environment("CartPol-v1"),
            ("name-unknown", "stage 'clone'", "environment"),
        ),
        (Environment("nowhere:X-v0"), ("import-failed", "stage 'clone': nowhere", "nowhere")),
        (toy("fails_when_made"), ("environment-invalid", "stage 'clone': fails_when_made", "")),
        (toy("unbounded"), ("spaces-unsupported", "stage 'clone': actions", "")),
        (toy("paired"), ("spaces-unsupported", "stage 'clone'", "")),
        (toy("worded"), ("spaces-unsupported", "stage 'clone': worded", "task")),
        (toy("nested"), ("spaces-unsupported", "stage 'clone': nested", "")),
        (toy("shifted"), ("spaces-unsupported", "stage 'clone': actions", "")),
        (toy("shifted_view"), ("spaces-unsupported", "observations", "")),
        (echo(sees="dict"), ("setting-conflict", "Agent", "policy")),
        (echo(wrappers=["toys:refuse_to_wrap"]), ("environment-invalid", "stage 'clone': Echo", "wrappers")),
        (
            Environment("Acrobot-v1", vectorize="batched"),
            ("setting-conflict", "stage 'clone': Acrobot-v1", "vectorize"),
        ),
    ],
    ids=str,
)
def test_environments_that_cannot_be_learned_in(environment, sentence):
    assert refusal(preflight, curriculum(cloning(environment=environment))) == sentence


def test_an_environment_that_fails_in_its_episode_is_named():
    plan = curriculum(tuning(environment=toy("fails_in_step")))

    assert refusal(preflight, plan) == ("environment-invalid", "stage 'tune': fails_in_step", "")


def test_rewards_that_are_not_finite_are_refused_of_chance_and_of_the_expert():
    assert refusal(preflight, curriculum(tuning(environment=toy("Spoilt")))) == (
        "environment-invalid",
        "stage 'tune': Spoilt",
        "",
    )
    with refused("environment-invalid", where="Spoilt"):
        who = Expert("toys:tell_zero")
        try_expert(toy("Spoilt"), who, showing(who))


def test_an_environment_that_fails_with_the_experts_action_is_named():
    assert refusal(preflight, curriculum(cloning(environment=toy("Picky"), expert=Expert("toys:tell_zero")))) == (
        "environment-invalid",
        "stage 'clone': Picky",
        "",
    )


def test_spaces_that_differ_between_stages_are_refused_with_both_named():
    plan = curriculum(cloning(), tuning(environment=echo(acts="box")))
    assert refusal(preflight, plan) == ("spaces-unsupported", "stage 'tune'", "observations")

    plan = curriculum(cloning(), tuning(environment=Environment("robots:Kind", view="bytes")))
    assert refusal(preflight, plan) == ("spaces-unsupported", "stage 'tune'", "observations")


def test_held_out_environments_are_checked_too():
    assert refusal(preflight, curriculum(cloning(), held_out=[echo(acts="box")])) == (
        "spaces-unsupported",
        "held_out",
        "observations",
    )
    assert refusal(preflight, curriculum(cloning(), held_out=[toy("nothing")])) == (
        "name-unknown",
        "held_out: toys",
        "nothing",
    )


def test_a_threshold_of_success_needs_an_environment_that_tells():
    plan = curriculum(tuning(environment=toy("Silent")))

    assert refusal(preflight, plan) == ("environment-invalid", "stage 'tune': Silent", "success")
    preflight(curriculum(tuning(environment=toy("Silent"), until=RewardThreshold(1.0))))
    preflight(curriculum(tuning(environment=Environment("toys:Silent", success=0.5))))


def test_a_key_that_no_info_has_and_a_function_that_fails_are_named():
    assert refusal(preflight, curriculum(tuning(environment=echo(success="solved")))) == (
        "environment-invalid",
        "stage 'tune': Echo",
        "success",
    )
    assert refusal(preflight, curriculum(tuning(environment=Environment("toys:Never", success="toys:hit_often")))) == (
        "environment-invalid",
        "stage 'tune': Never",
        "success",
    )
    assert refusal(preflight, curriculum(tuning(environment=echo(success="toys:hit_oftn")))) == (
        "name-unknown",
        "stage 'tune': toys",
        "hit_oftn",
    )


def test_a_threshold_that_no_number_of_episodes_decides_is_refused():
    until = SuccessThreshold(0.9, margin=0.001, max_episodes=40)

    assert refusal(preflight, curriculum(tuning(until=until))) == ("setting-conflict", "stage 'tune'", "until")


@pytest.mark.parametrize(
    ("share", "settings", "sentence"),
    [
        (1.5, {}, ("setting-range", "stage 'tune'", "exploration")),
        (-0.5, {}, ("setting-range", "stage 'tune'", "exploration")),
        (0.5, {"action_mode": "deterministic"}, ("setting-conflict", "stage 'tune'", "exploration")),
    ],
)
def test_exploration_that_means_nothing_for_the_actions_is_refused(share, settings, sentence):
    assert refusal(preflight, curriculum(tuning(exploration=share), **settings)) == sentence
    preflight(curriculum(tuning(environment=echo(acts="box"), exploration=share), **settings))


@pytest.mark.parametrize(
    ("expert", "sentence"),
    [
        ("toys:tel", ("name-unknown", "stage 'clone': toys", "tel")),
        ("nowhere:tell", ("import-failed", "stage 'clone': nowhere", "nowhere")),
        ("toys:fail_to_tell", ("expert-invalid", "stage 'clone': toys:fail_to_tell", "")),
        ("toys:no_function", ("expert-invalid", "stage 'clone': toys:no_function", "")),
        (
            "toys:tell_wrongly",
            ("expert-invalid", "stage 'clone': toys:tell_wrongly", ""),
        ),
        ("runs/nothing", ("file-missing", "stage 'clone': runs/nothing", "")),
        ("nothing.zip", ("file-missing", "stage 'clone': nothing.zip", "")),
    ],
)
def test_experts_that_cannot_show(expert, sentence):
    assert refusal(preflight, curriculum(cloning(expert=Expert(expert)))) == sentence


def test_a_discrete_action_may_be_a_numpy_number_or_a_whole_float_of_none():
    preflight(curriculum(cloning(expert=Expert("toys:tell_numpy"))))
    assert refusal(preflight, curriculum(cloning(expert=Expert("toys:tell_float")))) == (
        "expert-invalid",
        "stage 'clone': toys:tell_float",
        "",
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"observations": lambda o: spoiled(o, np.nan)},
            ("demonstrations-invalid", "stage 'clone': shown.safetensors, episode 1, step 3", "observations"),
        ),
        (
            {"rewards": lambda r: spoiled(r, np.inf)},
            ("demonstrations-invalid", "stage 'clone': shown.safetensors, episode 1, step 3", "rewards"),
        ),
        (
            {"actions": lambda a: spoiled(a, 5)},
            ("demonstrations-invalid", "stage 'clone': shown.safetensors, episode 1, step 3", "actions"),
        ),
        (
            {"actions": lambda a: spoiled(a, 0.5)},
            ("demonstrations-invalid", "stage 'clone': shown.safetensors, episode 1, step 3", "actions"),
        ),
    ],
    ids=["nan", "inf reward", "out of range", "no whole number"],
)
def test_demonstrations_that_do_not_fit_are_refused_with_episode_and_step(changes, sentence, tmp_path):
    file = tmp_path / "shown.safetensors"
    first, second = shown(**changes).episodes
    kind = second.actions.dtype
    Demonstrations((dataclasses.replace(first, actions=first.actions.astype(kind)), second)).save(file)

    assert refusal(preflight, curriculum(cloning(demonstrations=file))) == sentence


def test_demonstrations_of_another_shape_are_refused(tmp_path):
    file = tmp_path / "shown.safetensors"
    Demonstrations((Demonstration(np.zeros((5, 4), np.float32), np.zeros(4, np.int64), np.zeros(4)),)).save(file)

    assert refusal(preflight, curriculum(cloning(demonstrations=file))) == (
        "demonstrations-invalid",
        "stage 'clone': shown.safetensors, episode 0",
        "observations",
    )


def test_no_demonstrations_are_refused(tmp_path):
    file = tmp_path / "shown.safetensors"
    assert refusal(preflight, curriculum(cloning(demonstrations=file))) == (
        "file-missing",
        "stage 'clone': shown.safetensors",
        "",
    )
    shown().save(file)
    assert refusal(preflight, curriculum(cloning(demonstrations=file, min_return=99.0))) == (
        "demonstrations-invalid",
        "stage 'clone': shown.safetensors",
        "",
    )
    file.write_bytes(b"nothing")
    assert refusal(preflight, curriculum(cloning(demonstrations=file))) == (
        "file-damaged",
        "stage 'clone': shown.safetensors",
        "",
    )


def test_continuous_actions_out_of_range_are_refused(tmp_path):
    file = tmp_path / "shown.safetensors"
    actions = np.full((4, 2), 1.5, np.float32)
    Demonstrations((Demonstration(np.zeros((5, 2), np.float32), actions, np.zeros(4)),)).save(file)
    plan = curriculum(cloning(demonstrations=file, environment=echo(acts="box")))

    assert refusal(preflight, plan) == (
        "demonstrations-invalid",
        "stage 'clone': shown.safetensors, episode 0, step 0",
        "actions",
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused():
    assert refusal(preflight, curriculum(tuning(), device="cuda")) == ("unavailable", "Agent", "device")


def test_a_network_that_does_not_fit_the_observations_is_refused():
    assert refusal(preflight, curriculum(tuning(), policy="CnnPolicy")) == ("setting-conflict", "Agent", "policy")
    assert refusal(preflight, curriculum(tuning(), policy="MultiInputPolicy")) == (
        "setting-conflict",
        "Agent",
        "policy",
    )


def test_preflight_changes_nothing_and_draws_no_number_of_the_run(here):
    plan = curriculum(cloning(episodes=2, max_epochs=1))
    first = train(plan, out="one").stages["clone"].digest
    torch.manual_seed(77)
    preflight(plan)

    assert train(plan, out="two").stages["clone"].digest == first


def test_episodes_that_do_not_end_are_noticed_where_no_limit_is_known(monkeypatch):
    endless = toy("Endless")
    assert refusal(preflight, curriculum(tuning(environment=endless))) == (
        "episode-endless",
        "stage 'tune': Endless",
        "",
    )

    limited = Environment("toys:Endless", wrappers=["toys:limit"])
    assert not any("has not ended" in doubt for doubt in preflight(curriculum(tuning(environment=limited))).doubts)

    monkeypatch.setattr("rlstages.training.preflight.ENDLESS", 50_000)
    assert any("within 20,000 steps" in doubt for doubt in preflight(curriculum(tuning(environment=endless))).doubts)


def test_a_threshold_that_only_a_first_confirmation_could_decide_is_refused():
    until = SuccessThreshold(0.9, max_episodes=46)

    assert refusal(preflight, curriculum(tuning(until=until))) == ("setting-conflict", "stage 'tune'", "until")
    preflight(curriculum(tuning(until=SuccessThreshold(0.9))))


@pytest.mark.slow
def test_steps_that_take_long_are_told_of_unless_their_copies_are_placed_already(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1}, raising=False)

    plan = curriculum(tuning(environment=toy("Slow")), n_envs=4, n_steps=64)

    (doubt,) = [doubt for doubt in preflight(plan).doubts if "ms" in doubt]
    assert re.match(r"A step of Slow took \d+\.\d ms, and its 4 copies .* 2 processors, and Environment\(vec", doubt)
    slow = toy("Slow")
    for spec, copies in ((dataclasses.replace(slow, vectorize="in-process"), 4), (slow, 1)):
        assert slowness(spec, 0.01, copies) == []
    assert slowness(slow, 0.01, 4) != [] and slowness(slow, 1e-5, 4) == []
