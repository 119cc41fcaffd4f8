import pytest
from building import HALF, cloning, curriculum, echo, tuning
from hypothesis import given
from hypothesis import strategies as st
from refusing import refused

from rlstages import BehaviorCloning, FineTuning, Linear, load_curriculum
from rlstages.experiments.compare.arms import ARMS, MEANINGS, last_variant, make_arms, staged
from rlstages.specs.criteria.episodes import Episode
from rlstages.specs.curriculum import Curriculum
from rlstages.specs.loading import named_curricula
from rlstages.specs.schedules import value_at
from rlstages.specs.stages.fine_tuning import GOING_ON

SHORT, LONG = echo(steps=4), echo(steps=8)
PLAN = curriculum(cloning("clone", SHORT), tuning("short", SHORT), tuning("long", LONG))


def own_stages(arm):
    return [stage for stage in arm.stages if not stage.name.startswith(GOING_ON)]


def names(arm):
    return [stage.name for stage in own_stages(arm)]


def test_each_arm_leaves_out_what_its_name_says():
    assert {name: names(arm) for name, arm in make_arms(PLAN).items()} == {
        "staged": ["clone", "short", "long"],
        "no-cloning": ["short", "long"],
        "no-curriculum": ["clone", "long"],
        "scratch": ["long"],
        "clone-only": ["clone"],
        "naive-handover": ["clone", "short", "long"],
    }
    assert set(MEANINGS) == set(ARMS)


@pytest.mark.parametrize("name", [name for name in ARMS if name != "clone-only"])
def test_every_trained_arm_goes_on_in_the_last_variant_and_never_stops_by_itself(name):
    last = ARMS[name](PLAN).stages[-1]

    assert last.environment == LONG and last.max_steps > 10**9
    assert str(last) == f"train in {LONG} until the comparison's steps are spent"
    assert last.critic_fit_steps == 0 and last.anchor_kl == 0.0 and last.demonstration_loss == 0.0
    perfect = [Episode(0, number, 1e6, 8, True) for number in range(last.until.window)]
    assert HALF.promising(perfect) and not last.until.promising(perfect)
    assert last.until.summary(perfect) == HALF.summary(perfect)


def test_a_stage_that_misses_its_threshold_is_followed_by_the_next_in_every_arm():
    for arm in make_arms(PLAN).values():
        for stage in arm.stages:
            assert (stage.on_timeout if isinstance(stage, FineTuning) else stage.on_failure) == "advance"


def test_staged_changes_nothing_else():
    for stage, own in zip(own_stages(staged(PLAN)), PLAN.stages, strict=True):
        told = {"on_failure"} if isinstance(stage, BehaviorCloning) else {"on_timeout"}
        assert {f for f in vars(own) if getattr(stage, f) != getattr(own, f)} <= told


def test_the_naive_handover_has_no_protection_and_the_noise_of_a_new_policy():
    short, long = tuning("short", SHORT, demonstration_loss=0.1), tuning("long", LONG, demonstration_loss=0.1)
    plan = curriculum(cloning("clone", SHORT), short, long, log_std_init=-0.5)

    _, short, long, _ = ARMS["naive-handover"](plan).stages

    assert [stage.critic_fit_steps for stage in (short, long)] == [0, 0]
    assert [stage.anchor_kl for stage in (short, long)] == [0.0, 0.0]
    assert [stage.demonstration_loss for stage in (short, long)] == [0.0, 0.0]
    assert [stage.guard_steps for stage in (short, long)] == [0, 0]
    assert short.exploration == -0.5 and long.exploration is None


def test_schedules_stay_at_their_ends_while_an_arm_goes_on():
    plan = curriculum(tuning("only", clip_range=Linear(0.3, 0.1)), learning_rate=Linear(1e-2, 1e-3))

    last = staged(plan).stages[-1]

    assert (last.settings["clip_range"], last.settings["learning_rate"]) == (0.1, 1e-3)
    assert "learning_rate" not in plan.stages[0].settings and "ent_coef" not in last.settings


def test_a_schedule_that_ends_at_0_stays_at_what_the_last_update_has():
    plan = curriculum(tuning("only", clip_range=Linear(0.3, 0.0), max_steps=4_000), learning_rate=Linear(1e-2, 0.0))

    last = staged(plan).stages[-1]

    # Of a rollout of 64 steps that begins at step 3,968 of 4,000.
    assert last.settings == pytest.approx({"clip_range": 0.3 * 32 / 4_000, "learning_rate": 1e-2 * 32 / 4_000})


@given(st.floats(0, 1), st.floats(0, 1), st.integers(640, 10**7))
def test_arms_go_on_with_any_schedule(start, end, max_steps):
    plan = curriculum(cloning(), tuning("only", clip_range=Linear(start, end), max_steps=max_steps, critic_fit_steps=0))

    for name, arm in make_arms(plan).items():
        if name != "clone-only":
            value = arm.stages[-1].settings["clip_range"]
            assert value == end or (end == 0 and (0 < value_at(value, 0.0) <= start or value == Linear(start, 0.0)))


def test_arms_that_would_be_the_same_are_made_once():
    assert list(make_arms(curriculum(tuning("only")))) == ["staged"]
    assert list(make_arms(curriculum(tuning("one"), tuning("two", LONG)))) == ["staged", "scratch"]
    one_variant = make_arms(curriculum(cloning(), tuning()))
    assert "no-curriculum" not in one_variant and {"staged", "clone-only", "naive-handover"} < set(one_variant)


def test_wrong_arms_are_refused_in_a_sentence():
    with refused("name-unknown", name="arm"):
        make_arms(PLAN, ["staged", "scrach"])
    with refused("comparison-invalid", where="arm 'no-cloning'"):
        make_arms(curriculum(tuning("one"), tuning("two")), ["staged", "no-cloning"])
    with refused("comparison-invalid", where="arm 'clone-only'"):
        make_arms(curriculum(tuning("one"), tuning("two")), ["staged", "clone-only"])
    with refused("comparison-invalid", where="tiny"):
        make_arms(curriculum(cloning()))
    tight = curriculum(cloning(), tuning("one"), tuning("two", max_steps=700))
    with refused("setting-conflict", where="arm 'no-curriculum': stage 'two'", name="max_steps"):
        make_arms(tight)


@pytest.mark.parametrize("name", sorted(named_curricula()))
def test_the_built_in_curricula_have_arms_that_serialise(name):
    for arm in make_arms(load_curriculum(name)).values():
        assert Curriculum.from_json(arm.to_json()) == arm


@given(st.lists(st.sampled_from(["clone", "short", "long"]), min_size=1, max_size=5))
def test_arms_of_any_order_of_stages_end_in_the_last_variant(kinds):
    stages = [
        cloning(f"{i} clone") if kind == "clone" else tuning(f"{i} {kind}", SHORT if kind == "short" else LONG)
        for i, kind in enumerate(kinds)
    ]
    plan = curriculum(*stages)
    if set(kinds) == {"clone"}:
        return
    for name, arm in make_arms(plan).items():
        if name != "clone-only":
            assert arm.stages[-1].environment == last_variant(plan).environment
        assert arm.agent == plan.agent


def test_an_arm_that_leaves_out_earlier_stages_neither_rehearses_nor_returns_to_them():
    short, other = tuning("short", SHORT), tuning("other", echo(steps=6), on_collapse="return")
    plan = curriculum(cloning("clone", SHORT), short, other, tuning("long", LONG, rehearse=0.25, on_collapse="return"))
    arms = make_arms(plan)

    kept = {
        name: [(s.rehearse, s.on_collapse) for s in arm.stages if isinstance(s, FineTuning)]
        for name, arm in arms.items()
    }

    off = (0.0, "go on")
    assert kept == {
        "staged": [off, (0.0, "return"), (0.25, "return"), (0.25, "go on")],
        "no-cloning": [off, (0.0, "return"), (0.25, "return"), (0.25, "go on")],
        "no-curriculum": [(0.25, "go on"), (0.25, "go on")],
        "scratch": [off, off],
        "clone-only": [],
        "naive-handover": [off] * 3 + [off],
    }


def test_an_arm_without_cloning_goes_without_demonstrations():
    plan = curriculum(cloning("clone", SHORT), *(tuning(f"{n}", LONG, demonstration_loss=0.1) for n in (1, 2)))
    arms = make_arms(plan, ["staged", "no-cloning", "scratch"])
    weights = {name: [stage.demonstration_loss for stage in own_stages(arm)[-2:]] for name, arm in arms.items()}

    assert weights == {"staged": [0.1, 0.1], "no-cloning": [0.0, 0.0], "scratch": [0.0]}
