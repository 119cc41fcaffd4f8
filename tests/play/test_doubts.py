"""What is allowed and yet hardly meant is told: poor experts, clones that fell short, reward against success."""

import numpy as np
import pytest
from building import cloning, curriculum, echo, tuning
from toys import Corridor

from rlstages import Environment, Expert, RewardThreshold, SuccessThreshold, train
from rlstages.demonstrations.episodes import Demonstration
from rlstages.events import Warned
from rlstages.play.doubts import doubts_about_clone, doubts_about_expert, doubts_about_reward
from rlstages.specs.criteria.episodes import Episode, chance_of_less, score
from rlstages.storage.run_directory import read_events
from rlstages.training.preflight import preflight

HERE = __name__


class Dawdle(Corridor):
    """Every step before the goal is paid, so whoever solves the task has less."""

    def step(self, action):
        observation, _, there, ended, info = super().step(action)
        return observation, 1.0, there, ended, info


class Silent(Corridor):
    """Writes its key only when it is solved."""

    def step(self, action):
        observation, reward, there, ended, info = super().step(action)
        return observation, reward, there, ended, info if there else {}


def at_random(env):
    drawn = np.random.default_rng(int(env.unwrapped.np_random.integers(2**31)))
    return lambda observation: int(drawn.integers(2))


def shown(returns, successes, before=False):
    blank = np.zeros((2, 1), np.float32)
    return [
        Demonstration(blank, np.zeros(1, np.int64), np.array([float(total)]), success, before)
        for total, success in zip(returns, successes, strict=True)
    ]


def episodes(returns, successes):
    return [Episode(0, i, float(r), 1, s) for i, (r, s) in enumerate(zip(returns, successes, strict=True))]


def doubts(expert, environment, **settings):
    plan = curriculum(cloning(environment=environment, expert=Expert(expert, episodes=40), **settings))
    return preflight(plan).doubts


def test_ranks_agree_with_scipys_test():
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(0)
    for size, step in ((6, 1.0), (9, 0.5), (30, 0.1)):
        low, high = np.round(rng.normal(0, 1, size) / step) * step, np.round(rng.normal(0.7, 1, size + 3) / step) * step
        wanted = mannwhitneyu(low, high, alternative="less", method="asymptotic").pvalue
        assert chance_of_less(low, high) == pytest.approx(wanted, abs=1e-12)
    assert chance_of_less([1.0] * 5, [1.0] * 5) == 1.0


def test_an_able_expert_is_not_doubted():
    assert doubts("toys:plan_ahead", Environment("toys:Corridor")) == ()
    assert doubts_about_expert("It", echo(), shown([1] * 8, [True] * 8), episodes([1] * 8, [True] * 8)) == []
    assert doubts_about_expert("It", echo(), shown([0] * 4, [False] * 4)) == []


def test_an_expert_that_never_succeeds_is_told_with_the_likely_reason():
    (plain,) = doubts_about_expert("It", echo(), shown([1] * 6, [False] * 6), remedy="look there")
    (early,) = doubts_about_expert("It", echo(success="done"), shown([1] * 6, [False] * 6, before=True))

    assert "It solves no episode" in plain and "look there" in plain and "0 of 6" in plain
    assert 'success_at="any"' in early and "6 of them" in early


def test_an_expert_below_the_next_gate_is_told():
    half = shown([1, 0] * 20, [True, False] * 20)

    (short,) = doubts_about_expert("It", echo(), half, gate=SuccessThreshold(0.9))
    assert "does not reach the next gate" in short and "success 0.50 over 40" in short
    assert doubts_about_expert("It", echo(), half, gate=SuccessThreshold(0.5)) == []
    (short,) = doubts_about_expert("It", echo(), shown(range(20), [None] * 20), gate=RewardThreshold(50.0))
    assert "return 9.5" in short
    assert "does not reach the next gate" in "".join(
        doubts(f"{HERE}:at_random", Environment("toys:Corridor"), until=SuccessThreshold(0.95))
    )


def test_an_expert_at_chance_level_is_told():
    found = "".join(doubts(f"{HERE}:at_random", Environment("toys:Corridor")))

    assert "The expert at_random is not better than random actions in Corridor beyond luck" in found
    (by_return,) = doubts_about_expert("It", echo(), shown(range(20), [None] * 20), episodes(range(20), [None] * 20))
    assert "return 9.5 against 9.5" in by_return and "success" not in by_return
    better = shown(range(30, 50), [None] * 20)
    assert doubts_about_expert("It", echo(), better, episodes(range(20), [None] * 20)) == []


def test_solved_episodes_that_bring_less_are_told_of_in_preflight():
    environment = Environment(f"{HERE}:Dawdle")
    less = [said for said in doubts("toys:plan_ahead", environment) if "bring less return" in said]

    assert len(less) == 1 and "Dawdle" in less[0] and "against 5)" in less[0]
    assert not any("bring less" in said for said in doubts("toys:plan_ahead", Environment("toys:Corridor")))
    assert doubts_about_reward(environment, episodes([1] * 7 + [2] * 40, [True] * 7 + [False] * 40)) == []


def test_solved_episodes_that_bring_less_are_told_of_once_in_training(tmp_path):
    environment = Environment(f"{HERE}:Dawdle")
    settings = {"until": SuccessThreshold(0.99, margin=0.005, max_episodes=2_000), "max_steps": 1_500}
    plan = curriculum(
        tuning("one", environment, on_timeout="advance", **settings), tuning("two", environment, **settings)
    )

    train(plan, out=tmp_path / "run")

    said = [
        e for e in read_events(tmp_path / "run") if isinstance(e.payload, Warned) and "bring less" in e.payload.message
    ]
    assert len(said) == 1


def test_a_clone_far_below_its_expert_is_told_with_what_to_try():
    able, poor, start = (score(episodes([r] * 48, [s] * 48)) for r, s in ((10, True), (1, False), (0, False)))
    falling, flat = [1.0, 0.8, 0.6, 0.5, 0.4, 0.3], [1.0, 0.5, 0.4, 0.4, 0.4, 0.4]

    (told,) = doubts_about_clone(start, poor, able, falling)
    assert "far below its expert (success 0.00 against 1.00)" in told and "still falling after 6 of 6 epochs" in told
    for losses in (flat, []):
        (told,) = doubts_about_clone(start, poor, able, losses)
        assert "max_epochs" not in told and "more episodes" in told
    assert doubts_about_clone(start, able, able, falling) == []
    by_return = [score(episodes(rng, [None] * 48)) for rng in (range(48), range(100, 148), range(1000, 1048))]
    assert "return 123.5 against 1024" in doubts_about_clone(*by_return, [])[0]
    assert doubts_about_clone(by_return[0], by_return[2], by_return[2], []) == []


def test_a_clone_that_learned_too_little_is_told_in_its_run(tmp_path):
    settings = {"max_epochs": 1, "learning_rate": 1e-6, "evaluation_episodes": 48}
    plan = curriculum(cloning(environment=Environment("toys:Corridor"), expert=Expert("toys:plan_ahead"), **settings))
    train(plan, out=tmp_path / "run")

    said = [e.payload.message for e in read_events(tmp_path / "run") if isinstance(e.payload, Warned)]
    assert any(message.startswith("The clone is far below its expert (success 0.") for message in said)


def test_a_key_that_is_written_only_when_solved_is_enough():
    silent = Environment(f"{HERE}:Silent")
    plan = curriculum(tuning(environment=silent))

    assert any("end without 'is_success'" in doubt for doubt in preflight(plan).doubts)
