"""Some copies of a stage rehearse earlier stages' environments: what they play is learned from and not counted."""

import numpy as np
import pytest
from building import RESETS_ITSELF, VECTOR_CARTPOLE, agent, cloning, curriculum, echo, learner_for, payloads, tuning
from refusing import refused
from stepping import Tune, same
from test_fine_tuning import SURE

from rlstages import Environment, SuccessThreshold, resume, train
from rlstages.environments.joined import parts_of
from rlstages.environments.monitor import monitor_of
from rlstages.events import RolloutFinished, StageStarted
from rlstages.specs.stages.sequence import earlier_environments
from rlstages.storage.checkpoints import read_checkpoint, write_checkpoint

ALWAYS, NEVER = Environment("toys:Always"), Environment("toys:Never")
POINTMAZE = "rlstages_envs:rlstages/PointMaze-v0"


class Rehearse(Tune):
    """A fine-tuning stage with earlier environments, stepped by hand."""

    def __init__(self, stage, earlier, learner=None, seed=0, **settings):
        before = [tuning(str(number), environment) for number, environment in enumerate(reversed(earlier))]
        super().__init__(stage, learner, seed=seed, before=before, **settings)


def copies_of(runner):
    return [(str(monitor_of(part)._reports.environment), part.num_envs) for part in parts_of(runner.parts.envs.env)]


def test_copies_are_the_stages_own_and_those_of_earlier_stages():
    stage = tuning(environment=echo(steps=9), rehearse=0.5)
    run = Rehearse(stage, [echo(steps=5), echo(steps=3)], n_envs=6).steps(2)

    assert copies_of(run.runner) == [("Echo(steps=9)", 3), ("Echo(steps=5)", 2), ("Echo(steps=3)", 1)]


@pytest.mark.parametrize(("own", "earlier", "success"), [(NEVER, ALWAYS, 0.0), (ALWAYS, NEVER, 1.0)])
def test_rehearsed_episodes_are_never_counted(own, earlier, success):
    until = SuccessThreshold(0.5, window=20, max_episodes=120)
    run = Rehearse(tuning(environment=own, until=until, rehearse=0.75, critic_fit_steps=0), [earlier])

    result = run.finish()

    assert result.outcome == ("reached" if success else "missed")
    counted = [event for event in run.rollouts() if event.episodes]
    assert counted and {event.success for event in counted} == {success}


def test_rehearsed_steps_count_and_are_learned_from():
    run = Rehearse(tuning(environment=NEVER, until=SURE, rehearse=0.25, critic_fit_steps=0), [ALWAYS]).steps(2)

    assert run.runner.stage_steps == run.learner.global_step == 64
    rewards = run.learner.algorithm.model.rollout_buffer.rewards
    assert (rewards[:, :3] == 0.0).all() and (rewards[:, 3] == 1.0).all()


def test_returns_of_all_copies_have_one_scale():
    stage = tuning(environment=echo(steps=9), rehearse=0.25, critic_fit_steps=0)
    run = Rehearse(stage, [echo(steps=3)], normalize_rewards=True).steps(3)

    assert copies_of(run.runner)[1] == ("Echo(steps=3)", 1)
    assert run.runner.parts.envs.env.ret_rms.count == pytest.approx(128, abs=0.1)
    assert run.runner.parts.envs.env.returns.shape == (4,)


FORMS = {
    "in-process": ({}, [echo(steps=11), echo(steps=7), echo(steps=5)]),
    "subprocess": ({}, [echo(steps=11, vectorize="subprocess"), echo(steps=7), echo(steps=5, vectorize="subprocess")]),
    "image": ({"policy": "CnnPolicy"}, [echo(sees="image", steps=n) for n in (11, 7, 5)]),
    "batched": ({}, [Environment(POINTMAZE, size=size, max_steps=21) for size in (5, 4, 3)]),
}


@pytest.mark.skipif(not RESETS_ITSELF, reason="gymnasium's own vector environments do not reset themselves yet")
def test_resets_of_a_rehearsed_batch_are_no_steps():
    own = Environment("rlstages_envs.cartpole:cartpole", success=400.0)
    earlier = [Environment(VECTOR_CARTPOLE, vectorize="batched", success=400.0)]
    stage = tuning(environment=own, rehearse=0.5, critic_fit_steps=0, until=SuccessThreshold(1.0))
    run = Rehearse(stage, earlier, learner_for(own, agent(normalize_rewards=True))).steps(4)

    idle = run.learner.algorithm.model.rollout_buffer.idle
    assert not idle[:, :2].any()
    assert run.runner.stage_steps < 3 * 64
    assert run.runner.parts.envs.env.ret_rms.count == pytest.approx(run.runner.stage_steps, abs=0.1)


@pytest.mark.parametrize("form", FORMS)
def test_a_stage_that_rehearses_goes_on_to_the_last_bit(form, tmp_path):
    settings, (own, *earlier) = FORMS[form]
    settings = {**settings, "normalize_rewards": True}
    stage = tuning(environment=own, rehearse=0.5, critic_fit_steps=0, until=SuccessThreshold(1.0))

    def begin():
        return Rehearse(stage, earlier, learner_for(own, agent(**settings)))

    whole = begin().steps(3)
    write_checkpoint(tmp_path, "a", {"learner": whole.learner.state_dict(), "runner": whole.runner.state_dict()})
    whole.steps(3).runner.close()

    again, state = begin(), read_checkpoint(tmp_path / "a")
    again.runner.load_state_dict(state["runner"])
    again.learner.load_state_dict(state["learner"])
    again.steps(3).runner.close()

    assert same(whole.learner.weights(), again.learner.weights())
    np.testing.assert_equal(again.runner.state_dict(), whole.runner.state_dict())
    assert not [event for event in again.recorder.events if "did not bring" in str(event.payload)]


def test_copies_that_do_not_come_back_are_named_with_their_environment():
    stage = tuning(environment=echo(), rehearse=0.5)
    earlier = [Environment("toys:Drifting")]
    run = Rehearse(stage, earlier).steps(4)
    again = Rehearse(stage, earlier, run.learner)
    again.runner.load_state_dict(run.runner.state_dict())

    again.steps(1)

    [warned] = [event.payload.message for event in again.recorder.events if "did not bring" in str(event.payload)]
    assert warned.startswith("Drifting: ") and "bring copies 0, 1 back" in warned


def test_earlier_environments_are_those_of_all_stages_before_each_once_the_latest_first():
    one, two, three = (echo(steps=n) for n in (3, 4, 5))
    plan = [cloning("clone", one), tuning("a", one), tuning("b", two), tuning("c", one), tuning("d", three)]

    found = [earlier_environments(plan[:index], stage.environment) for index, stage in enumerate(plan)]

    assert found == [[], [], [one], [two], [one, two]]


@pytest.mark.parametrize(
    ("share", "n_envs", "copies"), [(0.0, 8, 0), (0.01, 8, 1), (0.2, 8, 2), (0.2, 16, 3), (0.5, 3, 2), (0.5, 2, 1)]
)
def test_a_share_is_at_least_one_copy(share, n_envs, copies):
    assert tuning(rehearse=share).rehearsal_copies(n_envs) == copies


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (-0.1, ("setting-range", "stage 'tune'", "rehearse")),
        (1.0, ("setting-range", "stage 'tune'", "rehearse")),
        (float("nan"), ("setting-range", "stage 'tune'", "rehearse")),
        ("half", ("setting-type", "stage 'tune'", "rehearse")),
    ],
)
def test_a_share_out_of_range_is_refused(share, said):
    with refused(*said):
        tuning(rehearse=share)


def test_what_cannot_be_rehearsed_is_refused():
    with refused("stage-order", where="stage 'tune'", name="rehearse"):
        curriculum(cloning(), tuning(rehearse=0.2))
    for n_envs, share in ((1, 0.2), (4, 0.9)):
        stage = tuning(environment=echo(steps=9), rehearse=share, max_steps=100_000)
        with refused("setting-conflict", where="stage 'tune'", name="rehearse"):
            curriculum(cloning(), stage, n_envs=n_envs, n_steps=64)


def test_a_whole_run_rehearses_says_so_and_is_repeated_by_its_seed(here):
    plan = curriculum(
        cloning(environment=echo(steps=4), episodes=4, max_epochs=1),
        tuning("tune", echo(steps=6), rehearse=0.25, max_steps=1_000, on_timeout="advance"),
        n_envs=4,
    )
    results = [train(plan, seed=1, out=f"run{number}") for number in range(2)]

    assert len({result.stages["tune"].digest for result in results}) == 1
    assert ", 25% of the copies in earlier variants; " in payloads("run0", StageStarted)[1].description
    assert payloads("run0", RolloutFinished)
    assert resume("run0").outcome == "reached"
