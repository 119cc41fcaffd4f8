"""What is refused before the first step, in one sentence that names the stage."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from building import cloning, curriculum, echo, tuning

from rlstages import Environment, Expert, InputError, RewardThreshold, SuccessThreshold, train
from rlstages.demonstrations.episodes import Demonstration, Demonstrations
from rlstages.play.experts import showing
from rlstages.play.recording import record
from rlstages.play.smoke_check import try_expert
from rlstages.training.preflight import preflight, slowness


def toy(name):
    return Environment(f"toys:{name}")


def refused(plan, sentence, **options):
    with pytest.raises(InputError, match=sentence) as caught:
        preflight(plan, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
            r"^stage 'clone': There is no environment 'CartPol-v1'. Did you mean 'CartPole-v1'",
        ),
        (Environment("nowhere:X-v0"), "^stage 'clone': 'nowhere:X-v0': there is no module 'nowhere'"),
        (toy("fails_when_made"), "^stage 'clone': fails_when_made cannot be made: RuntimeError: no licence"),
        (toy("unbounded"), r"The actions are Box\(2,\) of float32 without bounds; wrap them in a bounded Box"),
        (toy("paired"), r"^stage 'clone': Tuple\(.* spaces are not supported; wrap the environment"),
        (toy("worded"), "^stage 'clone': .* have 'task', a Text, .* leave 'task' out .*FilterObservation"),
        (toy("nested"), "^stage 'clone': The observations of nested are dictionaries in dictionaries"),
        (toy("shifted"), r"The actions are Discrete\(3, start=1\), which does not count from 0"),
        (toy("shifted_view"), r"The observations are Discrete\(3, start=1\), which does not count from 0"),
        (echo(sees="dict"), r"The observations are Dict\(.*\); use Agent\(policy='MultiInputPolicy'\)"),
        (echo(wrappers=["toys:refuse_to_wrap"]), "^stage 'clone': toys:refuse_to_wrap cannot wrap Echo"),
        (Environment("Acrobot-v1", vectorize="batched"), "^stage 'clone': Acrobot-v1 has no batched form"),
    ],
    ids=str,
)
def test_environments_that_cannot_be_learned_in(environment, sentence):
    refused(curriculum(cloning(environment=environment)), sentence)


def test_an_environment_that_fails_in_its_episode_is_named():
    plan = curriculum(tuning(environment=toy("fails_in_step")))

    refused(
        plan,
        "^stage 'tune': fails_in_step fails in an episode of random actions, at step 2: it raised RuntimeError: the",
    )


def test_rewards_that_are_not_finite_are_refused_of_chance_and_of_the_expert():
    refused(
        curriculum(tuning(environment=toy("Spoilt"))),
        "^stage 'tune': Spoilt gives the reward nan at step 1 of an episode of random actions; rewards must be finite",
    )
    with pytest.raises(InputError, match=r"^Spoilt gave the reward nan at step 0 of .*, played by toys:tell_zero;"):
        who = Expert("toys:tell_zero")
        try_expert(toy("Spoilt"), who, showing(who))


def test_an_environment_that_fails_with_the_experts_action_is_named():
    refused(
        curriculum(cloning(environment=toy("Picky"), expert=Expert("toys:tell_zero"))),
        "^stage 'clone': Picky failed with the action 0 of the expert toys:tell_zero, at step 0 .*ValueError: not 0",
    )


def test_spaces_that_differ_between_stages_are_refused_with_both_named():
    plan = curriculum(cloning(), tuning(environment=echo(acts="box")))
    refused(plan, r"^stage 'tune': the observations of Echo\(acts='box'\) are Box\(2,\) of float32, those of Echo in ")

    plan = curriculum(cloning(), tuning(environment=Environment("robots:Kind", view="bytes")))
    refused(plan, r"are MultiDiscrete\(\[2 3\]\), those of Echo in stage 'clone' are Box\(3,\) of float32; one network")


def test_held_out_environments_are_checked_too():
    refused(curriculum(cloning(), held_out=[echo(acts="box")]), "^held_out: the observations of Echo")
    refused(curriculum(cloning(), held_out=[toy("nothing")]), "^held_out: 'toys:nothing': 'toys' has no 'nothing'")


def test_a_threshold_of_success_needs_an_environment_that_tells():
    plan = curriculum(tuning(environment=toy("Silent")))

    refused(plan, r"^stage 'tune': Silent does not say whether an episode succeeded: .* no 'is_success'; give Environ")
    preflight(curriculum(tuning(environment=toy("Silent"), until=RewardThreshold(1.0))))
    preflight(curriculum(tuning(environment=Environment("toys:Silent", success=0.5))))


def test_a_key_that_no_info_has_and_a_function_that_fails_are_named():
    refused(curriculum(tuning(environment=echo(success="solved"))), "its last info has no 'solved'")
    refused(
        curriculum(tuning(environment=Environment("toys:Never", success="toys:hit_often"))),
        "Never: whether an episode succeeded cannot be told: KeyError: 'hits'",
    )
    refused(
        curriculum(tuning(environment=echo(success="toys:hit_oftn"))),
        "'toys' has no 'hit_oftn'. Did you mean 'hit_often'",
    )


def test_a_threshold_that_no_number_of_episodes_decides_is_refused():
    until = SuccessThreshold(0.9, margin=0.001, max_episodes=40)

    refused(
        curriculum(tuning(until=until)), r"^stage 'tune': success of at least 0\.9 \(margin 0\.001\) cannot be decided"
    )


@pytest.mark.parametrize(
    ("share", "settings", "sentence"),
    [
        (1.5, {}, "^stage 'tune': exploration is 1.5, but where actions are not continuous it is a share"),
        (-0.5, {}, "^stage 'tune': exploration is -0.5, but"),
        (0.5, {"action_mode": "deterministic"}, "^stage 'tune': exploration is of no use where the policy acts determ"),
    ],
)
def test_exploration_that_means_nothing_for_the_actions_is_refused(share, settings, sentence):
    refused(curriculum(tuning(exploration=share), **settings), sentence)
    preflight(curriculum(tuning(environment=echo(acts="box"), exploration=share), **settings))


@pytest.mark.parametrize(
    ("expert", "sentence"),
    [
        ("toys:tel", "^stage 'clone': 'toys:tel': 'toys' has no 'tel'. Did you mean 'tell'"),
        ("nowhere:tell", "^stage 'clone': 'nowhere:tell': there is no module 'nowhere'"),
        ("toys:fail_to_tell", "^stage 'clone': .*toys:fail_to_tell fails .*: RuntimeError: the map is missing"),
        ("toys:no_function", "^stage 'clone': The expert toys:no_function returned a int"),
        (
            "toys:tell_wrongly",
            r"^stage 'clone': The expert toys:tell_wrongly gives the action .*which is not in Discrete",
        ),
        ("runs/nothing", "^stage 'clone': runs/nothing is not a run directory"),
        ("nothing.zip", "^stage 'clone': There is no model at nothing.zip"),
    ],
)
def test_experts_that_cannot_show(expert, sentence):
    refused(curriculum(cloning(expert=Expert(expert))), sentence)


def test_a_discrete_action_may_be_a_numpy_number_or_a_whole_float_of_none():
    preflight(curriculum(cloning(expert=Expert("toys:tell_numpy"))))
    refused(
        curriculum(cloning(expert=Expert("toys:tell_float"))), r"gives the action 1\.0 at .*, which is not in Discr"
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"observations": lambda o: spoiled(o, np.nan)},
            r"episode 1, step 3: the observations hold a number that is not",
        ),
        ({"rewards": lambda r: spoiled(r, np.inf)}, "episode 1, step 3: the reward is not finite"),
        ({"actions": lambda a: spoiled(a, 5)}, "episode 1, step 3: the action 5 is not a whole number from 0 to 2"),
        (
            {"actions": lambda a: spoiled(a, 0.5)},
            r"episode \d, step \d: the action 0.5 is not a whole number from 0 to",
        ),
    ],
    ids=["nan", "inf reward", "out of range", "no whole number"],
)
def test_demonstrations_that_do_not_fit_are_refused_with_episode_and_step(changes, sentence, tmp_path):
    file = tmp_path / "shown.safetensors"
    first, second = shown(**changes).episodes
    kind = second.actions.dtype
    Demonstrations((dataclasses.replace(first, actions=first.actions.astype(kind)), second)).save(file)

    refused(curriculum(cloning(demonstrations=file)), f"^stage 'clone': .*{sentence}")


def test_demonstrations_of_another_shape_are_refused(tmp_path):
    file = tmp_path / "shown.safetensors"
    Demonstrations((Demonstration(np.zeros((5, 4), np.float32), np.zeros(4, np.int64), np.zeros(4)),)).save(file)

    refused(
        curriculum(cloning(demonstrations=file)), r"the observations have the shape \(4,\), but the space is Box\(3,"
    )


def test_no_demonstrations_are_refused(tmp_path):
    file = tmp_path / "shown.safetensors"
    refused(curriculum(cloning(demonstrations=file)), "^stage 'clone': There are no demonstrations at ")
    shown().save(file)
    refused(curriculum(cloning(demonstrations=file, min_return=99.0)), "no episode is left to clone")
    file.write_bytes(b"nothing")
    refused(curriculum(cloning(demonstrations=file)), "is not a readable .safetensors file")


def test_continuous_actions_out_of_range_are_refused(tmp_path):
    file = tmp_path / "shown.safetensors"
    actions = np.full((4, 2), 1.5, np.float32)
    Demonstrations((Demonstration(np.zeros((5, 2), np.float32), actions, np.zeros(4)),)).save(file)
    plan = curriculum(cloning(demonstrations=file, environment=echo(acts="box")))

    refused(plan, r"step 0: the action is \[1.5 1.5\], and number 0 of it \(1.5\) is outside \[-1, 1\]")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused():
    refused(curriculum(tuning(), device="cuda"), "^Agent: device is 'cuda', but torch finds no GPU; use 'cpu'")


def test_a_network_that_does_not_fit_the_observations_is_refused():
    refused(curriculum(tuning(), policy="CnnPolicy"), "CnnPolicy needs uint8 images of at least 36 x 36")
    refused(curriculum(tuning(), policy="MultiInputPolicy"), "no dictionary; use policy='MlpPolicy' or 'CnnPolicy'")


def test_preflight_changes_nothing_and_draws_no_number_of_the_run(here):
    plan = curriculum(cloning(episodes=2, max_epochs=1))
    first = train(plan, out="one").stages["clone"].digest
    torch.manual_seed(77)
    preflight(plan)

    assert train(plan, out="two").stages["clone"].digest == first


def test_episodes_that_do_not_end_are_noticed_where_no_limit_is_known(monkeypatch):
    endless = toy("Endless")
    refused(
        curriculum(tuning(environment=endless)),
        "stage 'tune': .*Endless has not ended within 20,000 steps.*; give it a time limit",
    )

    limited = Environment("toys:Endless", wrappers=["toys:limit"])
    assert not any("has not ended" in doubt for doubt in preflight(curriculum(tuning(environment=limited))).doubts)

    monkeypatch.setattr("rlstages.training.preflight.ENDLESS", 50_000)
    assert any("within 20,000 steps" in doubt for doubt in preflight(curriculum(tuning(environment=endless))).doubts)


def test_a_threshold_that_only_a_first_confirmation_could_decide_is_refused():
    until = SuccessThreshold(0.9, max_episodes=46)

    refused(curriculum(tuning(until=until)), "cannot be decided in 46 episodes by each of 10 confirmations")
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
