import os
import socket
import subprocess
import sys

import pytest
import realistic
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlstages.events import Event, RunStarted
from rlstages.tracking.tensorboard import tensorboard_tracker


def follow(directory, events, **options):
    tracker = tensorboard_tracker(directory, **options)
    for event in events:
        tracker(event)
    tracker.close()


def scalars(directory):
    accumulator = EventAccumulator(str(directory / "tensorboard"))
    accumulator.Reload()
    return {
        tag: [(p.step, round(p.value, 4)) for p in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]
    }


def test_metrics_are_on_their_axes(tmp_path):
    _, events = realistic.story()
    follow(tmp_path, events)
    found = scalars(tmp_path)
    assert [step for step, _ in found["clone/loss"]] == [1, 2, 3, 4, 5]
    assert [value for _, value in found["rollout/return"]][-2:] == [200, 250]
    steps = [step for step, _ in found["rollout/return"]]
    assert steps == sorted(steps) and steps[-1] > 30_000
    assert [value for _, value in found["eval/confirm_attempt"]] == [1, 2, 1]
    assert {value for _, value in found["stage/index"]} == {0, 1, 2, 3}


def test_resume_leaves_no_points_of_the_lost_future(tmp_path):
    plan, events = realistic.story()
    cut = next(i for i, event in enumerate(events) if event.stage_name == "again")
    follow(tmp_path, events)
    follow(
        tmp_path, [Event(RunStarted("abcd1234", plan, 7, {}, True), events[cut - 1].global_step)], history=events[:cut]
    )
    found = scalars(tmp_path)
    assert [step for step, _ in found["clone/loss"]] == [1, 2, 3]
    assert max(step for step, _ in found["rollout/return"]) < events[cut].global_step
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_file_does_not_name_the_host(tmp_path):
    _, events = realistic.story()
    follow(tmp_path, events[:3])
    (file,) = (tmp_path / "tensorboard").iterdir()
    assert socket.gethostname() not in file.name.removeprefix("events.out.tfevents.")


def test_points_are_on_disk_after_each_event(tmp_path):
    _, events = realistic.story()
    tracker = tensorboard_tracker(tmp_path)
    for event in events[:6]:
        tracker(event)
    assert "clone/loss" in scalars(tmp_path)
    tracker.close()


def test_disk_that_refuses_is_a_warning(tmp_path):
    (tmp_path / "tensorboard").write_text("in the way")
    _, events = realistic.story()
    said = []
    follow(tmp_path, events, warn=said.append)
    assert len(said) == 1


def test_heavy_packages_are_not_imported(tmp_path):
    code = (
        "import pathlib, sys; from rlstages.tracking.tensorboard import tensorboard_tracker;"
        "from rlstages.tracking import console, wandb; import realistic;"
        f"tracker = tensorboard_tracker(pathlib.Path({str(tmp_path)!r}));"
        "[tracker(event) for event in realistic.story()[1]]; tracker.close();"
        "print(sorted({'torch', 'stable_baselines3', 'tensorflow', 'wandb'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"
    assert list((tmp_path / "tensorboard").iterdir())


@pytest.mark.parametrize("number", [0, 5])
def test_closing_early_is_fine(tmp_path, number):
    follow(tmp_path, realistic.story()[1][:number])
