import textwrap
from pathlib import Path

import pytest

from rlstages import (
    A2C,
    PPO,
    Agent,
    BehaviorCloning,
    Environment,
    Expert,
    FineTuning,
    InputError,
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
        (lambda: BehaviorCloning("", ENV, expert=EXPERT), "BehaviorCloning: the name is ''"),
        (lambda: FineTuning("a\nb", ENV, until=UNTIL, max_steps=1), "FineTuning: the name is 'a\\nb'"),
        (lambda: clone(environment="CartPole-v1"), "stage 'clone': the environment is 'CartPole-v1'; wrap it"),
        (lambda: tune(environment=None), "stage 'tune': the environment is None; wrap it"),
        (lambda: clone(expert=None), "give either expert=Expert(...) or demonstrations='file', and not both"),
        (lambda: clone(demonstrations="a"), "give either expert=Expert(...) or demonstrations='file', and not both"),
        (lambda: clone(expert="tasks:plan"), "expert must be an Expert(...); write Expert('tasks:plan')."),
        (lambda: clone(expert=textwrap.dedent), "expert must be an Expert(...); write Expert(dedent)."),
        (lambda: clone(expert=None, demonstrations=5), "demonstrations is 5; give the path of a file"),
        (lambda: clone(expert=None, demonstrations=""), "demonstrations is ''; give the path of a file"),
        (lambda: clone(until=0.9), "until is 0.9; give a criterion such as SuccessThreshold(0.9)"),
        (lambda: tune(until=None), "until is None; give a criterion such as SuccessThreshold(0.9)"),
        (lambda: tune(until=200), "or RewardThreshold(200)"),
        (lambda: clone(on_failure="advanced"), "Did you mean 'advance'?"),
        (lambda: tune(on_timeout="go on"), "on_timeout is 'go on'"),
        (lambda: clone(max_epochs=0), "max_epochs is 0"),
        (lambda: clone(learning_rate=0), "learning_rate is 0"),
        (lambda: clone(batch_size=0), "batch_size is 0"),
        (lambda: clone(entropy_weight=-1), "entropy_weight is -1"),
        (lambda: clone(l2_weight=-1), "l2_weight is -1"),
        (lambda: clone(held_out=0.95), "held_out is 0.95"),
        (lambda: clone(patience=0), "patience is 0"),
        (lambda: clone(best=0), "best is 0"),
        (lambda: clone(min_return=float("nan")), "min_return is nan"),
        (lambda: clone(min_log_std=float("-inf")), "min_log_std is -inf"),
        (lambda: clone(evaluation_episodes=-1), "evaluation_episodes is -1"),
        (lambda: tune(max_steps=0.5), "max_steps is 0.5; give a whole number"),
        (lambda: tune(critic_fit_steps=-1), "critic_fit_steps is -1"),
        (lambda: tune(anchor_kl=-1), "anchor_kl is -1"),
        (lambda: tune(anchor_steps=None), "anchor_steps is None"),
        (lambda: tune(demonstration_loss=-1), "demonstration_loss is -1"),
        (lambda: tune(demonstration_loss=None), "demonstration_loss is None"),
        (lambda: tune(demonstration_steps=0.5), "demonstration_steps is 0.5"),
        (lambda: tune(exploration=3), "exploration is 3"),
        (lambda: tune(explore_again=3), "explore_again is 3"),
        (lambda: tune(evaluation_episodes=True), "evaluation_episodes is True"),
        (lambda: tune(learning_rate=-1), "stage 'tune': learning_rate is -1"),
        (lambda: tune(batch_size=1), "stage 'tune': batch_size is 1"),
    ],
)
def test_what_cannot_work_is_refused_with_the_stage_named(make, said):
    with pytest.raises(InputError) as caught:
        make()
    assert said in str(caught.value)


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
        with pytest.raises(InputError, match="stage 'tune': demonstration_loss=0.1, but no stage before it learns"):
            refuse_undemonstrated(stages)


def test_a_stage_too_short_to_learn_in_is_refused():
    agent = Agent(n_envs=4)
    tune(max_steps=5_120).check_place([], agent)
    with pytest.raises(InputError, match="max_steps is 5,119, but ten rollouts of 512 steps"):
        tune(max_steps=5_119).check_place([], agent)
    with pytest.raises(InputError, match="a critic fit of 8,192 take 13,312"):
        tune(max_steps=13_311, critic_fit_steps=8_192).check_place([clone()], agent)
    tune(max_steps=13_312, critic_fit_steps=8_192).check_place([clone()], agent)
    tune(max_steps=5_120).check_place([clone()], agent)


def test_settings_that_the_agent_cannot_follow_are_refused():
    with pytest.raises(InputError, match="stage 'tune': clip_range belong to PPO"):
        tune(clip_range=0.1).check_place([], Agent("A2C"))
    with pytest.raises(InputError, match="a rollout has 512 steps, less than batch_size=1024"):
        tune(batch_size=1024).check_place([], Agent(n_envs=4))
    clone().check_place([], Agent("A2C"))
