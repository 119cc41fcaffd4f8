"""The loop over stages: one network through all of them, what it leaves behind, and how it goes on."""

import json
import signal
import threading
from dataclasses import replace
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from building import Recorder, Stop, agent, cloning, curriculum, echo, mostly_slow, payloads, tuning
from refusing import refused

from rlstages import Environment, Expert, Pause, RewardThreshold, SuccessThreshold, resume, train
from rlstages.environments.seeding import Purpose, episode_seed
from rlstages.errors import Fault
from rlstages.events import (
    EpochFinished,
    Judged,
    RetentionMeasured,
    RolloutFinished,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
    Warned,
)
from rlstages.learners.learner import read_policy
from rlstages.stages.cloning import CloningRunner
from rlstages.stages.fine_tuning.runner import FineTuningRunner
from rlstages.storage.checkpoints import checkpoint_names, sha256
from rlstages.storage.record import read_record
from rlstages.storage.run_directory import read_events
from rlstages.training import start

POLE = Environment("rlstages_envs.cartpole:cartpole", max_steps=60, success=40.0)
SHORT_POLE = Environment("rlstages_envs.cartpole:cartpole", max_steps=60, pole_length=0.3, success=40.0)
ALWAYS, NEVER = Environment("toys:Always"), Environment("toys:Never")
SURE = SuccessThreshold(0.5, window=4, max_episodes=120)


def easy(name="easy", environment=ALWAYS, **settings):
    # Many frozen episodes, so that the gate does not open in the first rollout.
    until = replace(SURE, frozen_episodes=60)
    return tuning(name, environment, **{"until": until, "max_steps": 1_500, "critic_fit_steps": 0, **settings})


def hard(name="hard", **settings):
    return easy(name, NEVER, **settings)


def steps_of(path):
    return [event.global_step for event in read_events(path)]


def test_the_same_network_goes_through_all_stages(here, monkeypatch):
    seen = []
    for kind in (CloningRunner, FineTuningRunner):
        step = kind.step

        def watch(self, step=step):
            seen.append((self.stage.name, self.learner.policy, self.learner.weights()))
            step(self)

        monkeypatch.setattr(kind, "step", watch)
    plan = curriculum(
        cloning(environment=POLE, expert=Expert("rlstages_envs:balance", episodes=5), max_epochs=4),
        tuning("same pole", POLE, max_steps=1_500, until=RewardThreshold(1e9), on_timeout="advance"),
        tuning("short pole", SHORT_POLE, max_steps=6_000),
        normalize_observations=True,
    )

    result = train(plan, out="run")

    assert result.outcome == "reached"
    assert len({id(policy) for _, policy, _ in seen}) == 1
    assert list(dict.fromkeys(name for name, _, _ in seen)) == ["clone", "same pole", "short pole"]
    for before, after in (("clone", "same pole"), ("same pole", "short pole")):
        left = read_policy(here / "run" / result.stages[before].policy)
        entered = next(weights for name, _, weights in seen if name == after)
        assert all(torch.equal(value, entered[name]) for name, value in left.items())
    assert seen[-1][2]["features_extractor.standardizers.obs_.count"] > 1_000


def test_a_result_says_how_the_run_ended(here):
    result = train(
        curriculum(cloning(environment=echo()), easy(environment=echo(), until=SURE, max_steps=20_000)), out="run"
    )

    assert result.path == type(result.path)("run")
    assert (result.outcome, result.reason) == ("reached", "The curriculum is done.")
    assert list(result.stages) == ["clone", "easy"]
    assert result.stages["clone"].outcome == "completed"
    assert result.stages["easy"].outcome == "reached"
    assert result.stages["easy"].verdict.met


def test_a_run_leaves_a_record_events_policies_demonstrations_and_checkpoints(here):
    plan = curriculum(cloning(environment=ALWAYS, expert=Expert("toys:tell_zero", episodes=4)), easy())
    result = train(plan, seed=3, out="run")

    run = here / "run"
    assert {path.name for path in run.iterdir()} == {
        "run.json",
        "lock",
        "events.jsonl",
        "checkpoints",
        "policies",
        "demonstrations",
    }
    record = read_record(run)
    assert record.curriculum == plan and record.seed == 3
    kinds = [type(payload) for payload in payloads(run)]
    assert kinds[0] is RunStarted and kinds[-1] is RunFinished
    assert kinds.count(StageStarted) == kinds.count(StageFinished) == 2
    for stage in result.stages.values():
        assert sha256((run / stage.policy).read_bytes()) == stage.digest
    clone, tuned = result.stages["clone"], result.stages["easy"]
    assert clone.parent == sha256((run / "demonstrations" / "00-clone.safetensors").read_bytes())
    assert tuned.parent == clone.digest
    names = checkpoint_names(run / "checkpoints")
    assert [name.endswith("-end") for name in names] == [False, True, True, False]
    for line in (run / "events.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_steps_never_go_back(here):
    train(curriculum(easy("one"), easy("two"), hard(on_timeout="advance")), out="run")

    steps = steps_of(here / "run")
    assert steps == sorted(steps) and steps[-1] > 1_500


def test_runs_go_to_free_places_under_runs(here):
    first, second = (train(curriculum(easy()), seed=2) for _ in range(2))

    assert [str(result.path) for result in (first, second)] == ["runs/tiny-s2", "runs/tiny-s2-2"]


def test_the_same_seed_gives_the_same_run_and_another_seed_another(here):
    plan = curriculum(cloning(episodes=4), tuning(max_steps=20_000))
    digests = [
        [stage.digest for stage in train(plan, seed=seed, out=f"run{n}").stages.values()]
        for n, seed in enumerate((1, 1, 2))
    ]

    assert digests[0] == digests[1] != digests[2]
    assert digests[0][0] != digests[2][0]


@pytest.mark.slow
def test_a_run_whose_expert_is_another_run_keeps_its_own_randomness(here):
    train(curriculum(easy()), seed=9, out="expert")
    plan = curriculum(
        cloning(environment=ALWAYS, expert=Expert("expert", episodes=2), max_epochs=1),
        hard(on_timeout="advance", max_steps=640),
    )
    drawn = []
    for seed in (1, 2):
        assert train(plan, seed=seed, out=f"run{seed}").outcome == "reached"
        drawn.append(torch.rand(1).item())

    assert drawn[0] != drawn[1]


def test_a_missed_threshold_stops_the_run_and_more_steps_take_it_further(here):
    until = SuccessThreshold(0.8, window=20)
    plan = curriculum(tuning(max_steps=700, until=until), easy(environment=echo()), learning_rate=2e-3)

    first = train(plan, out="run")
    again = resume("run", max_steps=60_000)

    assert first.outcome == "missed"
    assert first.reason.startswith("Stage 'tune': 700 steps were spent and success of at least 0.8 was not reached")
    assert list(first.stages) == ["tune"]
    assert again.outcome == "reached"
    assert list(again.stages) == ["tune", "easy"]
    assert again.stages["tune"].stage_steps > 700
    assert read_record(here / "run").curriculum.stages[0].max_steps == 60_000
    assert [payload.outcome for payload in payloads("run", StageFinished)] == ["missed", "reached", "reached"]
    assert len(payloads("run", StageStarted)) == 2
    steps = steps_of(here / "run")
    assert steps == sorted(steps)


def test_fewer_steps_are_refused_and_nothing_changes(here):
    train(curriculum(hard()), out="run")
    before = (here / "run" / "run.json").read_bytes()

    with refused("setting-range", where="stage 'hard'", name="max_steps"):
        resume("run", max_steps=1_000)

    assert (here / "run" / "run.json").read_bytes() == before


def test_a_missed_threshold_may_be_passed_over(here):
    plan = curriculum(
        cloning(environment=NEVER, expert=Expert("toys:tell_zero", episodes=2), until=SURE, on_failure="advance"),
        hard(on_timeout="advance"),
        easy(),
    )
    result = train(plan, out="run")

    assert result.outcome == "reached"
    assert [stage.outcome for stage in result.stages.values()] == ["missed", "missed", "reached"]


def test_a_clone_that_misses_its_threshold_stops_the_run(here):
    plan = curriculum(cloning(environment=NEVER, expert=Expert("toys:tell_zero", episodes=2), until=SURE), easy())
    result = train(plan, out="run")

    assert result.outcome == "missed"
    assert result.reason.startswith("Stage 'clone': The clone: success 0.00 over")
    assert list(result.stages) == ["clone"]
    with refused("run-unready", where="run", name="max_steps"):
        resume("run", max_steps=100_000)


@pytest.mark.parametrize(
    ("kind", "number", "stage"),
    mostly_slow(
        [(StageStarted, 1, "clone"), (EpochFinished, 2, "clone"), (RolloutFinished, 1, "easy"), (Judged, 1, "easy")], 3
    ),
)
def test_an_interrupted_run_is_saved_and_goes_on(kind, number, stage, here):
    plan = curriculum(
        cloning(environment=ALWAYS, expert=Expert("toys:tell_zero", episodes=4)), easy(critic_fit_steps=64)
    )
    whole = train(plan, out="whole")

    first = train(plan, out="run", trackers=[Stop(kind, number)])
    assert first.outcome == "interrupted"
    assert first.reason == f"Interrupted in stage '{stage}'; resume goes on from here."
    again = resume("run")

    assert again.outcome == "reached"
    assert [p.outcome for p in payloads("run", RunFinished)] == ["interrupted", "reached"]
    for found in (StageStarted, StageFinished, EpochFinished):
        assert len(payloads("run", found)) == len(payloads("whole", found))
    assert [payload.resumed for payload in payloads("run", RunStarted)] == [False, True]
    assert again.stages["clone"].digest == whole.stages["clone"].digest
    steps = steps_of(here / "run")
    assert steps == sorted(steps)


def test_the_handler_of_ctrl_c_is_put_back(here):
    before = signal.getsignal(signal.SIGINT)

    train(curriculum(easy()), out="run")

    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_may_be_trained_outside_the_main_thread(here):
    results = []
    thread = threading.Thread(target=lambda: results.append(train(curriculum(easy()), out="run")))
    thread.start()
    thread.join()

    assert results[0].outcome == "reached"


def test_trackers_are_told_everything_and_closed_once(here):
    recorder = Recorder()

    train(curriculum(easy()), out="run", trackers=[recorder])

    assert [event.payload for event in recorder.events] == payloads("run")
    assert recorder.closed == 1


def test_a_plain_function_follows_a_run(here, capsys):
    events = []
    train(curriculum(easy()), out="run", trackers=[events.append, print])
    assert [event.payload for event in events] == payloads("run")
    assert capsys.readouterr().out.count("Event(") == len(events)


async def follow_later(event):
    pass


class FollowsLater:
    async def __call__(self, event):
        pass


def pausing(kind, number=1):
    left = [number]

    def pause(event):
        left[0] -= isinstance(event.payload, kind)
        return Pause("It is late.") if left[0] == 0 else None

    return pause


@pytest.mark.parametrize(
    ("kind", "number", "last"),
    [(RunStarted, 1, StageStarted), (RolloutFinished, 2, None), (StageFinished, 1, StageFinished)],
)
def test_a_tracker_pauses_a_run_which_goes_on_to_the_same_end(kind, number, last, here):
    plan = curriculum(
        cloning(environment=ALWAYS, expert=Expert("toys:tell_zero", episodes=4)), easy(critic_fit_steps=64)
    )
    whole = train(plan, out="whole")

    paused = train(plan, out="run", trackers=[pausing(kind, number)])
    assert (paused.outcome, paused.reason) == ("paused", "It is late.")
    assert payloads("run")[-1] == RunFinished("paused", "It is late.")
    if last is not None:
        assert isinstance(payloads("run")[-2], last), "nothing more was done"
    again = resume("run")

    assert again.outcome == "reached"
    digests = [{name: end.digest for name, end in result.stages.items()} for result in (whole, again)]
    assert digests[0] == digests[1]
    assert len(payloads("run", StageStarted)) == len(payloads("whole", StageStarted))


def test_a_pause_at_the_end_or_a_word_that_is_returned_pauses_nothing(here):
    late = [pausing(RetentionMeasured), pausing(RunFinished)]
    run = train(curriculum(easy()), out="run", trackers=[lambda event: "stop", *late])
    assert run.outcome == "reached"
    with refused("setting-missing", where="Pause", name="reason"):
        Pause("")


def test_a_tracker_that_raises_stops_the_run_which_can_be_resumed(here):
    before, after = Recorder(), Recorder()

    def trip(event):
        if isinstance(event.payload, RolloutFinished):
            raise LookupError("no such table")

    whole = train(curriculum(easy()), out="whole")
    with pytest.raises(LookupError, match="no such table"):
        train(curriculum(easy()), out="run", trackers=[before, trip, after])

    *_, rollout, failed = payloads("run")
    assert isinstance(rollout, RolloutFinished) and failed == RunFinished("failed", "no such table")
    assert [event.payload for event in before.events] == payloads("run")
    assert rollout not in [event.payload for event in after.events]
    assert (before.closed, after.closed) == (1, 1)
    assert resume("run").stages["easy"].digest == whole.stages["easy"].digest


@pytest.mark.parametrize(
    "wrong",
    [
        print,
        "print",
        [None],
        ["print"],
        [Recorder],
        [lambda: None],
        [lambda a, b: None],
        [follow_later],
        [FollowsLater()],
        3,
    ],
)
def test_what_cannot_follow_a_run_is_refused_before_it(here, wrong):
    with refused("setting-type", name="trackers"):
        train(curriculum(easy()), out="run", trackers=wrong)
    assert not (here / "run").exists()


@pytest.mark.parametrize("number", [np.int64(3), 3.0, np.float32(3)])
def test_seeds_and_limits_are_taken_as_other_tools_give_them(here, number):
    run = train(curriculum(tuning(until=RewardThreshold(1e9), max_steps=700)), out="run", seed=number)
    assert run.outcome == "missed" and json.loads((here / "run" / "run.json").read_text())["seed"] == 3
    assert resume("run", max_steps=np.float64(800)).outcome == "missed"
    with refused("setting-type", where="resume", name="max_steps"):
        resume("run", max_steps=900.5)


def test_a_run_directory_that_is_there_is_refused_before_anything_is_tried(here):
    (here / "run").mkdir()
    with refused("out-taken", where="run"):
        train(curriculum(tuning(environment=Environment("not_there:at_all"))), out="run")


def test_a_tracker_is_closed_when_the_run_fails(here):
    recorder = Recorder()
    seed = episode_seed(0, 0, Purpose.TRAINING, 1, 0)
    fault = easy(environment=echo(fault="reward", fault_step=8, fault_seed=seed), max_steps=10_000)
    where = f"{fault.environment}: copy 1, step 8 of its episode 0"

    with refused("environment-failed", where=where, name="reward", kind=Fault):
        train(curriculum(fault), out="run", trackers=[recorder])

    assert recorder.closed == 1
    with refused("environment-failed", where=where, name="reward", kind=Fault):
        resume("run")


def test_a_finished_run_says_that_it_is_done(here):
    train(curriculum(easy()), out="run")

    result = resume("run")

    assert (result.outcome, result.reason) == ("reached", "The curriculum is done.")
    assert list(result.stages) == ["easy"]


def test_a_run_starts_from_the_policy_of_another(here):
    first = train(curriculum(easy()), out="first")
    left = read_policy(here / "first" / first.stages["easy"].policy)

    second = train(curriculum(hard(max_steps=640, on_timeout="advance")), out="second", initial="first")

    assert second.outcome == "reached"
    assert read_record(here / "second").initial == "first"
    again = curriculum(cloning(environment=ALWAYS, expert=Expert("toys:tell_zero", episodes=2), max_epochs=1))
    learner = start.learner_of(start.new_record(again, 0, read_record(here / "first").spaces, {}))
    start.start_from(learner, again, here / "first")
    assert all(torch.equal(value, learner.weights()[name]) for name, value in left.items())
    assert learner.objective == "reinforcement" and learner.trusted is not None


def test_what_a_policy_was_trained_for_is_that_of_the_last_stage_that_ended(here):
    plan = curriculum(cloning(environment=ALWAYS, expert=Expert("toys:tell_zero", episodes=2)), easy())
    train(plan, out="run", trackers=[Stop(RolloutFinished)])
    learner = start.learner_of(read_record(here / "run"))

    start.start_from(learner, plan, here / "run")

    assert learner.objective == "cloning"


@pytest.mark.slow
def test_a_run_of_another_network_cannot_be_started_from(here):
    train(curriculum(easy()), out="first")

    with refused("policy-misfit", where="first"):
        train(curriculum(easy(), network=(8,)), out="second", initial="first")
    with refused("file-missing", where="nowhere"):
        train(curriculum(easy()), out="second", initial="nowhere")

    assert not (here / "second").exists()


def test_a_damaged_checkpoint_is_passed_over_and_named(here):
    assert train(curriculum(easy()), out="run", trackers=[Stop(RolloutFinished)]).outcome == "interrupted"
    newest = here / "run" / "checkpoints" / checkpoint_names(here / "run" / "checkpoints")[-1]
    (newest / "state.json").write_bytes(b"{}")

    result = resume("run")

    assert result.outcome == "reached"
    assert newest.name in payloads("run", Warned)[0].message


def test_a_run_that_dies_before_its_first_step_says_its_doubts_when_it_goes_on(here):
    doubtful = Environment("toys:Drifting")
    with pytest.raises(ZeroDivisionError):
        train(curriculum(easy(environment=doubtful)), out="run", watch=lambda learner: 1 // 0)
    doubts = [event.message for event in payloads("run", Warned)]
    assert any("cannot be brought back" in doubt for doubt in doubts)

    resume("run", watch=lambda learner: "enough")

    assert [event.message for event in payloads("run", Warned)] == doubts


def test_a_seed_that_is_none_is_refused_before_anything_is_written(here):
    for seed in (-1, 1.5, "one", True, 2**32):
        with refused(ANY, name="seed"):
            train(curriculum(easy()), seed=seed)

    assert list(here.iterdir()) == []


def test_a_curriculum_may_be_given_by_name_or_file(here):
    (here / "by_file.py").write_text(
        "from rlstages import *\n"
        "def curriculum():\n"
        "    stage = FineTuning('easy', Environment('toys:Always'), until=SuccessThreshold(0.5, window=4),\n"
        "                       max_steps=1500, critic_fit_steps=0)\n"
        f"    return Curriculum('by file', agent={agent()!r}, stages=[stage])\n"
    )

    assert train("by_file.py", out="run").outcome == "reached"
    with refused("name-unknown", name="curriculum"):
        train("room")


def test_a_step_limit_must_hold_the_critic_fit_of_another_runs_clone(here):
    train(curriculum(cloning(environment=ALWAYS, expert=Expert("toys:tell_zero", episodes=2), max_epochs=1)), out="a")

    with refused("setting-conflict", where="stage 'easy'", name="max_steps"):
        train(curriculum(easy(max_steps=700, critic_fit_steps=640)), out="b", initial="a")
    assert not (here / "b").exists()
