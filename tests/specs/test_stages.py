import textwrap
from pathlib import Path

import pytest
from refusing import refused

from rlstages import (
    A2C,
    PPO,
    Agent,
    BehaviorCloning,
    Environment,
    Expert,
    FineTuning,
    Linear,
    RewardThreshold,
    SuccessThreshold,
)
from rlstages.specs.stages.sequence import refuse_undemonstrated

ENV = Environment("CartPole-v1")
EXPERT = Expert("tasks:plan")
UNTIL = SuccessThreshold(0.9)


def clone(**changes):
    return BehaviorCloning("clone", **{"environment": ENV, "expert": EXPERT, **changes})


def tune(**changes):
    return FineTuning("tune", **{"environment": ENV, "until": UNTIL, "max_steps": 100_000, **changes})


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: BehaviorCloning("", ENV, expert=EXPERT), ("name-invalid", "BehaviorCloning", "name")),
        (lambda: FineTuning("a\nb", ENV, until=UNTIL, max_steps=1), ("name-invalid", "FineTuning", "name")),
        (lambda: clone(environment="CartPole-v1"), ("setting-type", "stage 'clone'", "environment")),
        (lambda: tune(environment=None), ("setting-type", "stage 'tune'", "environment")),
        (lambda: clone(expert=None), ("setting-conflict", "stage 'clone'", "expert")),
        (lambda: clone(demonstrations="a"), ("setting-conflict", "stage 'clone'", "expert")),
        (lambda: clone(expert="tasks:plan"), ("setting-type", "stage 'clone'", "expert")),
        (lambda: clone(expert=textwrap.dedent), ("setting-type", "stage 'clone'", "expert")),
        (lambda: clone(expert=None, demonstrations=5), ("setting-type", "stage 'clone'", "demonstrations")),
        (lambda: clone(expert=None, demonstrations=""), ("setting-type", "stage 'clone'", "demonstrations")),
        (lambda: clone(until=0.9), ("setting-type", "stage 'clone'", "until")),
        (lambda: tune(until=None), ("setting-type", "stage 'tune'", "until")),
        (lambda: tune(until=200), ("setting-type", "stage 'tune'", "until")),
        (lambda: clone(on_failure="advanced"), ("choice-unknown", "stage 'clone'", "on_failure")),
        (lambda: tune(on_timeout="go on"), ("choice-unknown", "stage 'tune'", "on_timeout")),
        (lambda: clone(max_epochs=0), ("setting-range", "stage 'clone'", "max_epochs")),
        (lambda: clone(learning_rate=0), ("setting-range", "stage 'clone'", "learning_rate")),
        (lambda: clone(batch_size=0), ("setting-range", "stage 'clone'", "batch_size")),
        (lambda: clone(entropy_weight=-1), ("setting-range", "stage 'clone'", "entropy_weight")),
        (lambda: clone(l2_weight=-1), ("setting-range", "stage 'clone'", "l2_weight")),
        (lambda: clone(held_out=0.95), ("setting-range", "stage 'clone'", "held_out")),
        (lambda: clone(patience=0), ("setting-range", "stage 'clone'", "patience")),
        (lambda: clone(best=0), ("setting-range", "stage 'clone'", "best")),
        (lambda: clone(min_return=float("nan")), ("setting-range", "stage 'clone'", "min_return")),
        (lambda: clone(min_log_std=float("-inf")), ("setting-range", "stage 'clone'", "min_log_std")),
        (lambda: clone(evaluation_episodes=-1), ("setting-range", "stage 'clone'", "evaluation_episodes")),
        (lambda: tune(max_steps=0.5), ("setting-type", "stage 'tune'", "max_steps")),
        (lambda: tune(critic_fit_steps=-1), ("setting-range", "stage 'tune'", "critic_fit_steps")),
        (lambda: tune(anchor_kl=-1), ("setting-range", "stage 'tune'", "anchor_kl")),
        (lambda: tune(anchor_steps=None), ("setting-type", "stage 'tune'", "anchor_steps")),
        (lambda: tune(demonstration_loss=-1), ("setting-range", "stage 'tune'", "demonstration_loss")),
        (lambda: tune(demonstration_loss=None), ("setting-type", "stage 'tune'", "demonstration_loss")),
        (lambda: tune(demonstration_steps=0.5), ("setting-type", "stage 'tune'", "demonstration_steps")),
        (lambda: tune(exploration=3), ("setting-range", "stage 'tune'", "exploration")),
        (lambda: tune(explore_again=3), ("setting-type", "stage 'tune'", "explore_again")),
        (lambda: tune(evaluation_episodes=True), ("setting-type", "stage 'tune'", "evaluation_episodes")),
        (lambda: tune(learning_rate=-1), ("setting-range", "stage 'tune'", "learning_rate")),
        (lambda: tune(batch_size=1), ("setting-range", "stage 'tune'", "batch_size")),
    ],
)
def test_what_cannot_work_is_refused_with_the_stage_named(make, said):
    with refused(*said):
        make()


def test_a_path_of_demonstrations_may_be_a_path():
    stage = clone(expert=None, demonstrations=Path("demos") / "a.npz")
    assert stage.demonstrations == "demos/a.npz" and hash(stage)
    assert str(stage) == "clone demos/a.npz in CartPole-v1"


def test_stages_read_like_prose():
    assert str(clone(until=UNTIL)) == "clone 100 episodes of plan in CartPole-v1, until success of at least 0.9"
    assert str(tune()) == "train in CartPole-v1 until success of at least 0.9, at most 100,000 steps"


def test_a_stage_tells_the_settings_that_are_not_the_defaults():
    told = str(tune(demonstration_loss=0.1, on_collapse="return", rehearse=0.25, learning_rate=Linear(1e-3, 1e-4)))
    assert told == (
        "train in CartPole-v1 until success of at least 0.9, at most 100,000 steps, 25% of the copies in earlier "
        "variants; learning_rate=0.001 to 0.0001, on_collapse='return', demonstration_loss=0.1"
    )
    assert str(clone(until=UNTIL, held_out=0.2)).endswith("in CartPole-v1, until success of at least 0.9; held_out=0.2")
    wide, plain = SuccessThreshold(0.9, margin=0.1), RewardThreshold(200, margin=20)
    assert str(wide & plain) == "success of at least 0.9 (margin 0.1) and a mean return of at least 200 (margin 20)"


def test_the_anchors_weight_falls_to_nothing_in_a_straight_line():
    stage = tune(anchor_steps=1000)
    needed = [stage.anchor_weight(PPO(), steps, needed=True) for steps in (0, 500, 1000, 5000)]
    assert needed == [0.1, 0.05, 0.0, 0.0]
    assert stage.anchor_weight(PPO(), 0) == stage.anchor_weight(A2C(), 0, needed=True) == 0.0
    assert tune(anchor_kl=0.3).anchor_weight(A2C(), 0) == 0.3
    assert tune(anchor_steps=0).anchor_weight(PPO(), 0, needed=True) == 0.0


def test_so_does_the_weight_of_the_demonstrations_which_are_needed_only_where_it_is_there():
    stage = tune(demonstration_loss=0.4, demonstration_steps=1000)
    assert [stage.demonstration_weight(steps) for steps in (0, 500, 1000, 5000)] == [0.4, 0.2, 0.0, 0.0]
    assert stage.demonstrations_needed == "demonstration_loss=0.4"
    assert not any(s.demonstrations_needed for s in (tune(), tune(demonstration_loss=0.4, demonstration_steps=0)))


def test_demonstrations_come_from_a_cloning_stage_before():
    needy = tune(demonstration_loss=0.1)
    for stages in ([clone(), needy], [clone(), tune(), needy], [tune(), clone(), needy], [tune()]):
        refuse_undemonstrated(stages)
    for stages in ([needy], [tune(), needy], [needy, clone()]):
        with refused("stage-order", where="stage 'tune'"):
            refuse_undemonstrated(stages)


def test_a_stage_too_short_to_learn_in_is_refused():
    agent = Agent(n_envs=4)
    tune(max_steps=5_120).check_place([], agent)
    with refused("setting-conflict", where="stage 'tune'", name="max_steps"):
        tune(max_steps=5_119).check_place([], agent)
    with refused("setting-conflict", where="stage 'tune'", name="max_steps"):
        tune(max_steps=13_311, critic_fit_steps=8_192).check_place([clone()], agent)
    tune(max_steps=13_312, critic_fit_steps=8_192).check_place([clone()], agent)
    tune(max_steps=5_120).check_place([clone()], agent)


def test_settings_that_the_agent_cannot_follow_are_refused():
    with refused("setting-unknown", where="stage 'tune'", name="clip_range"):
        tune(clip_range=0.1).check_place([], Agent("A2C"))
    with refused("setting-conflict", where="stage 'tune'", name="batch_size"):
        tune(batch_size=1024).check_place([], Agent(n_envs=4))
    clone().check_place([], Agent("A2C"))
