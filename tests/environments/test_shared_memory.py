"""Observations of copies in processes of their own lie in memory without a name."""

import os
from pathlib import Path

import numpy as np
import pytest
from building import echo
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from rlstages.environments.make import make_vec_env
from rlstages.environments.monitor import monitor_of
from rlstages.environments.shared_memory import NAME, SharedObservations

SPACES = [
    spaces.Box(-1.0, 1.0, (3,), np.float32),
    spaces.Box(-1.0, 1.0, (2, 5), np.float64),
    spaces.Box(0, 255, (7, 3, 3), np.uint8),
    spaces.Discrete(5, start=2),
    spaces.MultiDiscrete([3, 4]),
    spaces.MultiBinary(3),
    spaces.Box(-1.0, 1.0, (), np.float32),
]
SPACES.append(spaces.Dict({str(number): space for number, space in enumerate(SPACES)}))


@settings(max_examples=60)
@given(space=st.sampled_from(SPACES), copies=st.integers(1, 5), seed=st.integers(0, 99), data=st.data())
def test_what_one_process_writes_another_reads(space, copies, seed, data):
    ours = SharedObservations(space, copies)
    theirs = SharedObservations(space, copies, ours.handle)
    ours.close_handle()
    space.seed(seed)
    written = [space.sample() for _ in range(copies)]
    for copy in data.draw(st.permutations(range(copies))):
        theirs.write(copy, written[copy])

    read = ours.read()
    theirs.write(0, space.sample())

    for key in space.spaces if isinstance(space, spaces.Dict) else [None]:
        rows, part = (read, space) if key is None else (read[key], space[key])
        expected = np.stack([row if key is None else row[key] for row in written])
        np.testing.assert_array_equal(rows, expected)
        assert rows.dtype == part.dtype and rows.flags.c_contiguous and rows.flags.owndata


def maps(pid):
    return [line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if NAME in line]


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the system has no memory without a name")
def test_the_memory_has_no_name_and_goes_with_the_copies():
    before = len(os.listdir("/proc/self/fd")), len(maps("self"))
    for _ in range(3):
        env = make_vec_env(echo(sees="image", vectorize="subprocess"), 3, 0, 0)
        env.reset()
        processes = monitor_of(env).venv.processes
        assert all(len(maps(process.pid)) == 1 and "(deleted)" in maps(process.pid)[0] for process in processes)
        assert len(maps("self")) == before[1] + 1
        env.close()
        del env, processes
    # The fork server's own connection stays.
    assert len(os.listdir("/proc/self/fd")) <= before[0] + 3
    assert len(maps("self")) == before[1]


@pytest.mark.parametrize("sees", ["vector", "image", "dict", "discrete"])
def test_observations_stay_as_they_were(sees):
    env = make_vec_env(echo(sees=sees, steps=5, vectorize="subprocess"), 2, 0, 0)
    here = make_vec_env(echo(sees=sees, steps=5), 2, 0, 0)
    seen, expected = [env.reset()], [here.reset()]
    for _ in range(12):
        seen.append(env.step(np.array([0, 1]))[0])
        expected.append(here.step(np.array([0, 1]))[0])
    env.close()
    np.testing.assert_equal(seen, expected)
