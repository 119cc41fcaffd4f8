"""What comes in wrong before training, or with the demonstrations; and clocks that jump.

`pytest tests/reliability/test_faults_input.py` is this part of the table in docs/faults.md.
"""

import faulthandler
import math

import faulty
import numpy as np
import pytest
from building import cloning, curriculum, echo, lines, payloads, rlstages, tuning
from refusing import refused

from rlstages import Environment, Expert, InputError, RewardThreshold, SuccessThreshold, resume, train
from rlstages.demonstrations.episodes import Demonstration, Demonstrations
from rlstages.events import RunFinished, Warned


@pytest.fixture(autouse=True)
def ends_in_time():
    faulthandler.dump_traceback_later(300, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def shown(width=2, scale=1.0, dtype=np.float32, **more):
    """Demonstrations for `Echo(acts="box")`: observations and actions of shape (2,)."""
    draw = np.random.default_rng(0)
    wanted = [draw.uniform(-0.9, 0.9, (9, 2)) for _ in range(6)]
    wanted = more.get("wanted", wanted)
    return Demonstrations(
        tuple(
            Demonstration((scale * seen).astype(dtype), seen[:-1, :width].astype(np.float32), np.ones(8), True)
            for seen in wanted
        )
    )


def clone(demonstrations, **settings):
    demonstrations.save("shown.safetensors")
    stage = cloning(environment=echo(acts="box"), demonstrations="shown.safetensors", **settings)
    return train(curriculum(stage), out="run")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"width": 1}, ("demonstrations-invalid", "stage 'clone': shown.safetensors, episode 0", "actions")),
        (
            {"wanted": [np.full((9, 2), 3.0)]},
            ("demonstrations-invalid", "stage 'clone': shown.safetensors, episode 0, step 0", "actions"),
        ),
        (
            {"scale": np.nan},
            ("demonstrations-invalid", "stage 'clone': shown.safetensors, episode 0, step 0", "observations"),
        ),
        ({"wanted": []}, ("demonstrations-invalid", "shown.safetensors", "")),
    ],
    ids=["width", "range", "nan", "empty"],
)
def test_demonstrations_that_cannot_be_cloned(settings, sentence, here):
    with refused(*sentence):
        clone(shown(**settings))

    assert not (here / "run").exists()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"scale": 100.0}, "the demonstrations hold numbers in the observation far out of its space's bounds (first"),
        ({"dtype": np.float64}, "the demonstrations hold the observation as float64; it is converted to its space's"),
    ],
    ids=["scale", "type"],
)
def test_demonstrations_that_are_doubtful(settings, sentence, here):
    assert clone(shown(**settings)).outcome == "reached"

    # That the clone, which hardly learns, is below its expert is told last.
    warned, *_ = payloads("run", Warned)
    assert warned.message.startswith("shown.safetensors: ") and sentence in warned.message


def test_fewer_transitions_than_a_batch(here):
    assert clone(shown(wanted=[np.full((9, 2), 0.5)] * 2), batch_size=4096).outcome == "reached"


def fails(environment, expert, *said, trace):
    plan = curriculum(cloning(environment=environment, expert=Expert(expert, episodes=12)))
    with pytest.raises(InputError) as caught:
        train(plan, out="run")
    for words in said:
        assert words in str(caught.value), str(caught.value)
    assert str(caught.value).endswith("Mend that, and train with another --out.")
    assert trace in caught.value.trace
    assert [payload.outcome for payload in payloads("run", RunFinished)] == ["failed"]


def recorded(fault, file, step=4):
    from rlstages.environments.seeding import Purpose, episode_seed

    seed = episode_seed(0, 0, Purpose.DEMONSTRATION, 0, 5)
    return seed, Environment(
        "faulty:Faulty", fault=fault, seed=seed, step=step, while_there=str(file), step_timeout=3.0
    )


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("raises", "it raised RuntimeError: the motor is stuck in step()"),
        ("hangs", "it has not come back from step() within 3 seconds and was stopped"),
        ("wrong shape", "it gave the observation in the shape (2,)"),
    ],
)
def test_an_environment_that_fails_while_an_expert_shows(fault, said, here):
    file = faulty.marker(here)
    seed, environment = recorded(fault, file)
    trace = {"raises": "the motor is stuck", "hangs": "time.sleep(600)"}.get(fault, "")
    fails(environment, "faulty:tell", f"at step 3 of the episode with seed {seed}", said, trace=trace)

    file.unlink()
    assert resume("run").outcome == "reached"


def test_an_environment_that_gives_nan_while_an_expert_shows(here):
    seed, environment = recorded("nan observation", faulty.marker(here))
    said = "faulty:tell, episode 5, step 4: the observations hold a number that is not finite"
    fails(environment, "faulty:tell", said, trace="")


def test_an_expert_that_never_answers(here):
    environment = Environment("faulty:Faulty", step_timeout=3.0)
    said = "The expert faulty:stalls_later failed, at step 2 of the episode with seed "
    plan = curriculum(cloning(environment=environment, expert=Expert("faulty:stalls_later")))
    with refused("expert-invalid", where="stage 'clone': faulty:stalls_later") as caught:
        train(plan, out="run")

    assert said in str(caught.value) and "it has not come back from its action" in str(caught.value)
    assert "in act" in caught.value.trace and not (here / "run").exists()


def test_a_threshold_that_is_no_number_is_refused_when_it_is_built():
    for kind in (RewardThreshold, SuccessThreshold):
        with refused("setting-range", name="threshold"):
            kind(math.nan)


def test_a_threshold_out_of_reach_is_missed_and_said(here):
    result = train(curriculum(tuning(until=RewardThreshold(1e6), max_steps=1_000)), out="run")

    assert result.outcome == "missed" and "was not reached" in result.reason


@pytest.mark.parametrize("form", ["in-process", "subprocess"])
def test_spaces_that_differ_are_refused_before_the_first_step(form, here):
    plan = curriculum(tuning(environment=echo(vectorize=form)), tuning("box", echo(acts="box", vectorize=form)))
    with refused("spaces-unsupported", where="stage 'box'", name="observations"):
        train(plan, out="run")

    assert not (here / "run").exists()


CLOCK = """
import time
real, calls = time.time, [0]

def jumping():
    calls[0] += 1
    return real() - 3600 * (calls[0] // 20)

time.time = jumping
"""
PLAN = """
from rlstages import *

def curriculum():
    stage = FineTuning("tune", Environment("toys:Echo"), until=SuccessThreshold(0.9, window=5_000), max_steps=3_000,
                       critic_fit_steps=0, evaluation_episodes=0)
    return Curriculum("clock", agent=Agent("PPO", n_envs=4, n_steps=16, batch_size=32, n_epochs=2), stages=[stage])
"""


@pytest.mark.slow
def test_a_clock_that_goes_back_stops_nothing_and_silences_nothing(here):
    """An hour back, again and again, as a daemon that sets the time may do it."""
    (here / "plan.py").write_text(PLAN)
    ended = rlstages("train", "plan.py", "--out", "run", "--track", "none", cwd=here, before=CLOCK)

    assert (ended.returncode, ended.stderr) == (3, "")
    times = [line["time"] for line in lines("run")]
    back = sum(later < earlier - 3000 for earlier, later in zip(times, times[1:], strict=False))
    assert back >= 1, "the clock has gone back"
    assert ended.stdout.count("] training: ") >= 1 + back, ended.stdout
    again = rlstages("resume", "run", "--max-steps", "4000", "--track", "none", cwd=here, before=CLOCK)
    assert (again.returncode, again.stderr) == (3, "")
    taken = [line["stage_steps"] for line in lines("run") if line["type"] == "RolloutFinished"]
    assert taken == list(range(64, 4_033, 64))
