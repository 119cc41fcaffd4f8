"""Looks at the stage before: what they cost, when they are due, and that they go on where they were left."""

from itertools import pairwise

import numpy as np
from building import CONTRARY, UNREACHED, echo, tuning
from stepping import Tune, same

from rlstages import RewardThreshold, SuccessThreshold
from rlstages.events import LookedBack
from rlstages.reproducibility import random_state, set_random_state
from rlstages.stages.fine_tuning.look_back import LONGEST_LOOK, LOOK_SHARE, REFERENCE_EPISODES

# What a policy that knows nothing reaches: a level that is not lost soon, so that looks take several waves.
BEFORE = tuning("before", echo(), until=RewardThreshold(2.0, margin=0.1))
WAVE = 4 * 8


class Watched(Tune):
    """A fine-tuning stage that may go back, stepped by hand."""

    def __init__(self, before=BEFORE, seed=0, **settings):
        settings = {"environment": CONTRARY, "until": UNREACHED, "critic_fit_steps": 0, **settings}
        stage = tuning(on_collapse="return", **settings)
        super().__init__(stage, seed=seed, before=[before], learning_rate=1e-3)

    def until_looking(self):
        while not (self.runner.phase == "looking back" and self.runner.parts.look_back._episodes):
            self.runner.step()
            assert self.runner.result is None
        return self


def looks_of(run):
    return run.recorder.payloads(LookedBack)


def test_looks_come_at_a_fixed_cadence_that_bounds_their_cost():
    run = Watched()
    run.finish()

    ends = [look.stage_steps for look in looks_of(run) if look.over]
    reference = REFERENCE_EPISODES * 8
    assert ends[0] >= reference + WAVE / LOOK_SHARE
    assert all(later - one >= WAVE / LOOK_SHARE for one, later in pairwise(ends))
    assert all(later - one <= WAVE / LOOK_SHARE + 64 + 8 * LONGEST_LOOK for one, later in pairwise(ends))


def test_a_look_takes_more_episodes_only_while_their_mean_is_below_the_level():
    run = Watched()
    run.finish()

    looks = looks_of(run)
    assert len({look.look for look in looks}) > 1
    for look in looks:
        decided = look.decline.lost or look.decline.value >= look.decline.level
        assert look.over == (decided or look.decline.episodes >= LONGEST_LOOK)


def test_a_look_goes_on_where_it_was_left_to_the_last_bit():
    whole, first = Watched().until_looking(), Watched().until_looking()
    state, learned = first.runner.state_dict(), first.learner.state_dict()

    again = Watched()
    again.runner.load_state_dict(state)
    again.learner.load_state_dict(learned)
    told = len(whole.recorder.events)
    drawn = random_state()
    for run in (whole, again):
        # Both draw from the same global generators.
        set_random_state(drawn)
        while run.runner.result is None and run.runner.stage_steps < 2_000:
            run.runner.step()

    assert same(whole.learner.weights(), again.learner.weights())
    np.testing.assert_equal(again.runner.state_dict(), whole.runner.state_dict())
    assert looks_of(again) == [e.payload for e in whole.recorder.events[told:] if isinstance(e.payload, LookedBack)]


def test_where_nothing_was_reached_nothing_is_looked_for():
    run = Watched(tuning("before", echo(), until=SuccessThreshold(0.9)), max_steps=2_000)
    run.finish()

    assert looks_of(run) == []


def test_a_look_does_not_change_the_policy():
    run = Watched().until_looking()
    before = run.learner.weights()

    while run.runner.phase == "looking back" and run.runner.result is None:
        run.runner.step()

    assert same(before, run.learner.weights())
