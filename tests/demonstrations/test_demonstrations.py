import dataclasses
import io
import json
import pickle
import warnings
import zipfile
from pathlib import Path
from unittest.mock import ANY

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from refusing import refusal, told
from safetensors.numpy import save as to_safetensors
from strategies import some

from rlstages import Environment, Expert, InputError, load_demonstrations
from rlstages.demonstrations.episodes import Demonstration, Demonstrations
from rlstages.demonstrations.fitting import check_demonstrations, place_demonstrations
from rlstages.demonstrations.kept import Kept
from rlstages.play.experts import showing
from rlstages.play.recording import record
from rlstages.storage.checkpoints import sha256
from rlstages.storage.untrusted import open_arrays

BOX = spaces.Box(-10.0, 10.0, (3,))
IMAGE = spaces.Box(0, 255, (2, 4, 4), np.uint8)
PARTS = spaces.Dict({"image": IMAGE, "place/x": spaces.Box(-1.0, 1.0, (1,)), "held": spaces.Discrete(3)})
STEER = spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 5.0], np.float32))
SPACES = {
    "vectors and choices": (BOX, spaces.Discrete(4)),
    "vectors and forces": (BOX, STEER),
    "images": (IMAGE, spaces.Discrete(2, start=1)),
    "dictionaries": (PARTS, spaces.MultiDiscrete([2, 3])),
    "cells": (spaces.Discrete(9), spaces.MultiBinary(3)),
}


def samples(space, n):
    if isinstance(space, spaces.Dict):
        return {key: samples(part, n) for key, part in space.spaces.items()}
    return np.stack([np.asarray(space.sample()) for _ in range(n)])


def shown(observation_space, action_space, lengths=(3, 1, 5), success=True):
    observation_space.seed(0)
    action_space.seed(0)
    return Demonstrations(
        tuple(
            Demonstration(
                samples(observation_space, n + 1),
                samples(action_space, n),
                np.arange(n) + float(i),
                bool(i % 2) if success else None,
            )
            for i, n in enumerate(lengths)
        )
    )


def same(one, other):
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return one.dtype == other.dtype and np.array_equal(one, other)


def equal(one, other):
    return len(one) == len(other) and all(
        same(a.observations, b.observations)
        and same(a.actions, b.actions)
        and same(a.rewards, b.rewards)
        and (a.success, a.terminated, a.truncated) == (b.success, b.terminated, b.truncated)
        and (a.seed, a.options) == (b.seed, b.options)
        and np.array_equal(a.action_masks, b.action_masks)
        for a, b in zip(one.episodes, other.episodes, strict=True)
    )


# --- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("success", [True, False])
def test_episodes_come_back_from_a_file(tmp_path, kind, success):
    written = shown(*SPACES[kind], success=success)
    digest = written.save(tmp_path / "new" / "demos.safetensors")
    read = load_demonstrations(str(tmp_path / "new" / "demos.safetensors"))
    assert equal(read, dataclasses.replace(written, episodes=tuple(map(sorted_keys, written.episodes))))
    assert len(digest) == 64
    assert {digest} == {read.save(tmp_path / f"again{i}.safetensors") for i in range(8)}
    check_demonstrations("demos", read, *SPACES[kind])


def sorted_keys(episode):
    if isinstance(episode.observations, dict):
        return dataclasses.replace(episode, observations=dict(sorted(episode.observations.items())))
    return episode


def test_an_episode_that_does_not_tell_is_kept_so_where_others_tell(tmp_path):
    written = shown(BOX, STEER)
    first = dataclasses.replace(written.episodes[0], success=None)
    Demonstrations((first, *written.episodes[1:])).save(tmp_path / "a.safetensors")
    told = [episode.success for episode in written.episodes]
    assert [e.success for e in load_demonstrations(tmp_path / "a.safetensors").episodes] == [None, *told[1:]]

    silent = Demonstrations(tuple(dataclasses.replace(episode, success=None) for episode in written.episodes))
    silent.save(tmp_path / "b.safetensors")
    assert [e.success for e in load_demonstrations(tmp_path / "b.safetensors").episodes] == [None] * 3


def test_what_is_known_of_the_episodes_comes_back_from_a_file(tmp_path):
    written = shown(BOX, STEER)
    masks = np.arange(3 * 4).reshape(3, 4) % 3 == 0
    known = {"seed": 2**62, "options": {"at": [1, "x"]}, "terminated": True, "truncated": False, "action_masks": masks}
    first, second, third = written.episodes
    episodes = dataclasses.replace(first, **known), second, dataclasses.replace(third, truncated=True, options={})
    written = Demonstrations(episodes)
    digest = written.save(tmp_path / "a.safetensors")
    read = load_demonstrations(tmp_path / "a.safetensors")

    assert {digest} == {read.save(tmp_path / f"again{i}.safetensors") for i in range(4)}
    # Where an episode has no masks and others have some, it allows everything.
    allowing = [dataclasses.replace(e, action_masks=np.ones((len(e), 4), bool)) for e in episodes[1:]]
    assert equal(read, Demonstrations((episodes[0], *allowing))) and read.episodes[0].action_masks.dtype == bool
    with open_arrays(tmp_path / "a.safetensors", 2**20) as file:
        assert {"terminated", "truncated", "seeds", "options", "action_masks"} <= set(file.layouts)
    # What does not touch the observations keeps it.
    assert place_demonstrations("a", read, BOX, STEER).episodes[0].options == {"at": [1, "x"]}


def test_a_file_of_format_1_is_read(tmp_path):
    old = Path(__file__).with_name("format_1.safetensors")
    assert b"rlstages demonstrations 1" in old.read_bytes()
    read = load_demonstrations(old)

    assert [len(e) for e in read.episodes] == [4] * 3 and read.score().success == 1.0
    who = Expert("toys:tell", episodes=3)
    anew = record(Environment("toys:Echo", steps=4), who, showing(who))
    for one, other in zip(read.episodes, anew.episodes, strict=True):
        assert same(one.observations, other.observations) and same(one.actions, other.actions)
        assert same(one.rewards, other.rewards) and one.success is other.success is True
        assert (one.terminated, one.truncated, one.seed, one.options, one.action_masks) == (None,) * 5
    anew.save(tmp_path / "new.safetensors")
    assert equal(load_demonstrations(tmp_path / "new.safetensors"), anew)
    # As a run of before has it.
    assert equal(Kept(old, sha256(old.read_bytes())).demonstrations(), read)


def test_ends_may_be_told_for_every_step(tmp_path):
    over = np.array([0, 1, 0, 0, 0], bool)
    content = arrays(terminated=over, truncated=np.array([0, 0, 0, 0, 1]), seeds=np.array([-1, 4]))
    first, second = load_demonstrations(write_npz(tmp_path / "a.npz", content)).episodes
    assert (first.terminated, first.truncated, first.seed) == (True, False, None)
    assert (second.terminated, second.truncated, second.seed) == (False, True, 4)


def test_nothing_is_written_without_episodes_or_under_a_wrong_ending(tmp_path):
    assert refusal(Demonstrations(()).save, tmp_path / "a.safetensors") == (
        "demonstrations-invalid",
        "a.safetensors",
        "",
    )
    assert refusal(shown(BOX, STEER).save, tmp_path / "a.npz") == ("option-invalid", "a.npz", "")
    assert list(tmp_path.iterdir()) == []


def arrays(**changes):
    """Return the arrays of two episodes of 2 and 3 steps, changed; `None` leaves one out."""
    plain = {
        "observations": np.zeros((7, 3), np.float32),
        "actions": np.zeros(5, np.int64),
        "rewards": np.ones(5),
        "lengths": np.array([2, 3]),
        "success": np.array([True, False]),
        **changes,
    }
    return {key: array for key, array in plain.items() if array is not None}


def write_npz(path, content):
    np.savez(path, **content)
    return path


def test_an_npz_file_of_the_same_arrays_is_read(tmp_path):
    read = load_demonstrations(write_npz(tmp_path / "a.npz", arrays()))
    assert [len(e) for e in read.episodes] == [2, 3] and read.steps == 5
    assert read.episodes[1].observations.shape == (4, 3) and read.episodes[1].success is False
    compressed = tmp_path / "b.npz"
    np.savez_compressed(compressed, **arrays(rewards=np.ones(5, np.float32)))
    assert equal(load_demonstrations(compressed), read)


def test_unsigned_lengths_and_foreign_byte_order_are_understood(tmp_path):
    content = arrays(
        lengths=np.array([2, 3], np.uint64), observations=np.ones((7, 3), ">f4"), rewards=np.ones(5, ">f8")
    )
    read = load_demonstrations(write_npz(tmp_path / "a.npz", content))
    assert [len(e) for e in read.episodes] == [2, 3]
    assert read.episodes[0].observations.dtype == np.float32 and read.episodes[0].observations.dtype.isnative


MISFITS = {
    "no actions": (arrays(actions=None), "actions"),
    "no rewards": (arrays(rewards=None), "rewards"),
    "no lengths": (arrays(lengths=None), "lengths"),
    "no observations": (arrays(observations=None), "observations"),
    "wrong key": ({**arrays(observations=None), "obs": np.zeros((7, 3))}, "observations"),
    "nothing": ({"x": np.zeros(0)}, "observations"),
    "two": (arrays(rewards=None, lengths=None), "rewards"),
    "no episode": (arrays(lengths=np.zeros(0, np.int64)), "lengths"),
    "negative length": (arrays(lengths=np.array([-2, 7])), "lengths"),
    "length of zero": (arrays(lengths=np.array([0, 5])), "lengths"),
    "lengths too short": (arrays(lengths=np.array([2, 2])), "actions"),
    "lengths overflow": (arrays(lengths=np.array([2**62] * 4)), "actions"),
    "lengths are fractions": (arrays(lengths=np.array([2.0, 3.0])), "lengths"),
    "lengths are a table": (arrays(lengths=np.array([[2, 3]])), "lengths"),
    "lengths are a number": (arrays(lengths=np.array(5)), "lengths"),
    "rewards too few": (arrays(rewards=np.ones(4)), "rewards"),
    "rewards are a table": (arrays(rewards=np.ones((5, 1))), "rewards"),
    "no last observation": (arrays(observations=np.zeros((5, 3))), "observations"),
    "observation is a number": (arrays(observations=np.array(1.0)), "observations"),
    "action is a number": (arrays(actions=np.array(1)), "actions"),
    "two kinds": ({**arrays(), "observations/a": np.zeros((7, 1))}, "observations"),
    "success too long": (arrays(success=np.ones(5, bool)), "success"),
    "seeds are fractions": (arrays(seeds=np.ones(2)), "seeds"),
    "ends too many": (arrays(terminated=np.ones(7, bool)), "terminated"),
    "masks too few": (arrays(action_masks=np.ones((2, 4))), "action_masks"),
    "options are numbers": (arrays(options=np.ones(2)), "options"),
    "options are no JSON": (arrays(options=np.full(9, 255, np.uint8)), "options"),
    "options too few": (arrays(options=np.frombuffer(b"[{}]", np.uint8)), "options"),
    "success is fractions": (arrays(success=np.array([np.nan, 1.0])), "success"),
}


@pytest.mark.parametrize("name", MISFITS)
@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_arrays_that_do_not_fit_together_are_refused(tmp_path, name, ending):
    content, said = MISFITS[name]
    path = tmp_path / f"demos.{ending}"
    if ending == "npz":
        write_npz(path, content)
    else:
        path.write_bytes(to_safetensors(content))
    assert refusal(load_demonstrations, path) == ("demonstrations-invalid", path.name, said)


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def zipped(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


WHOLE_NPZ = zipped({f"{key}.npy": npy(array) for key, array in arrays().items()})
WHOLE = to_safetensors(arrays())
HUGE_SHAPE = npy(np.zeros(0)).replace(b"(0,)", b"(9" + b"9" * 17 + b",)").replace(b" " * 17 + b"\n", b"\n")


def header(content):
    text = json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text


UNREADABLE = {
    "empty.npz": b"",
    "empty.safetensors": b"",
    "text.npz": b"not a zip file",
    "text.safetensors": b"observations, actions",
    "cut.npz": WHOLE_NPZ[:-30],
    "cut in the middle.npz": WHOLE_NPZ[: len(WHOLE_NPZ) // 2],
    "cut.safetensors": WHOLE[:-1],
    "cut in the header.safetensors": WHOLE[:20],
    "flipped.npz": WHOLE_NPZ[:60] + bytes([WHOLE_NPZ[60] ^ 0xFF]) + WHOLE_NPZ[61:],
    "other format.npz": WHOLE,
    "other format.safetensors": WHOLE_NPZ,
    "bare array.npz": npy(np.zeros(3)),
    "bare pickle.npz": pickle.dumps({"observations": 1}),
    "foreign member.npz": zipped({"notes.txt": b"hello"}),
    "broken member.npz": zipped({"rewards.npy": b"\x93NUMPY\x01\x00\xff"}),
    "huge shape.npz": zipped({"rewards.npy": HUGE_SHAPE}),
    "huge header.safetensors": (2**60).to_bytes(8, "little") + b"{}",
    "header is a list.safetensors": header([1]),
    "offsets outside.safetensors": header({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}),
    "unknown type.safetensors": header({"a": {"dtype": "F99", "shape": [0], "data_offsets": [0, 0]}}),
    "half numbers.safetensors": header({"a": {"dtype": "F8_E4M3", "shape": [0], "data_offsets": [0, 0]}}),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_files_that_cannot_be_read_are_refused_in_one_sentence(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(UNREADABLE[name])
    assert refusal(load_demonstrations, path) == ("file-damaged", name, "")


@some
@given(st.data())
def test_no_change_of_a_byte_brings_out_another_error_than_input_error(tmp_path_factory, data):
    ending, whole = data.draw(st.sampled_from([("npz", WHOLE_NPZ), ("safetensors", WHOLE)]))
    place = data.draw(st.integers(0, len(whole) - 1))
    path = tmp_path_factory.mktemp("damaged") / f"a.{ending}"
    path.write_bytes(whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :])
    try:
        assert len(load_demonstrations(path)) > 0
    except InputError as error:
        assert told(error)[1].startswith(path.name)


@pytest.mark.parametrize("key", ["rewards", "actions", "observations", "success"])
def test_loading_runs_no_code(tmp_path, key):
    trap = tmp_path / "sprung"
    content = arrays(**{key: np.array([Payload(trap)] * 5, dtype=object)})
    path = tmp_path / "demos.npz"
    path.write_bytes(zipped({f"{name}.npy": npy(array) for name, array in content.items()}))
    assert refusal(load_demonstrations, path) == ("file-damaged", "demos.npz", "")
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(Payload(trap)))
    assert refusal(load_demonstrations, tmp_path / "bare.npz")[0] == "file-damaged"
    assert not trap.exists()
    pickle.loads((tmp_path / "bare.npz").read_bytes()).close()
    assert trap.exists(), "the trap itself must work"


def test_a_missing_file_and_a_directory_are_refused(tmp_path):
    assert refusal(load_demonstrations, tmp_path / "gone.npz") == ("file-missing", "gone.npz", "")
    assert refusal(load_demonstrations, tmp_path) == ("file-missing", ANY, "")


def test_what_would_unpack_to_far_more_than_it_is_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.npz"
    path.write_bytes(zipped({"rewards.npy": npy(np.zeros(8))}))
    content = bytearray(path.read_bytes())
    central = content.rindex(b"PK\x01\x02")
    content[central + 24 : central + 28] = (0xFFFFFFF0).to_bytes(4, "little")
    path.write_bytes(content)
    assert refusal(load_demonstrations, path) == ("file-damaged", "bomb.npz", "")
    path.write_bytes(zipped({"rewards.npy": npy(np.zeros(2**24))}))
    assert refusal(load_demonstrations, path) == ("file-damaged", "bomb.npz", "")


# --- fit to spaces ------------------------------------------------------------------------------------------------


def changed(kind, episode, **changes):
    """Return demonstrations in which one episode's arrays are changed by functions."""
    given_spaces = SPACES[kind]
    episodes = list(shown(*given_spaces).episodes)
    for field, change in changes.items():
        value = getattr(episodes[episode], field)
        value = {key: array.copy() for key, array in value.items()} if isinstance(value, dict) else value.copy()
        episodes[episode] = dataclasses.replace(episodes[episode], **{field: change(value)})
    return Demonstrations(tuple(episodes)), given_spaces


def at(*place, value):
    def change(array):
        target = array.astype(np.result_type(array, type(value)))
        target[place] = value
        return target

    return change


def in_part(key, change):
    return lambda parts: {**parts, key: change(parts[key])}


BAD = {
    "observation nan": (
        "vectors and forces",
        2,
        {"observations": at(4, 1, value=np.nan)},
        ("d, episode 2, step 4", "observations"),
    ),
    "observation inf": (
        "vectors and forces",
        0,
        {"observations": at(0, 0, value=np.inf)},
        ("d, episode 0, step 0", "observations"),
    ),
    "reward nan": ("vectors and forces", 1, {"rewards": at(0, value=np.nan)}, ("d, episode 1, step 0", "rewards")),
    "action nan": ("vectors and forces", 2, {"actions": at(3, 1, value=np.nan)}, ("d, episode 2, step 3", "actions")),
    "action too large": (
        "vectors and forces",
        2,
        {"actions": at(2, 1, value=5.1)},
        ("d, episode 2, step 2", "actions"),
    ),
    "action too small": (
        "vectors and forces",
        0,
        {"actions": at(1, 1, value=-0.1)},
        ("d, episode 0, step 1", "actions"),
    ),
    "action shape": ("vectors and forces", 1, {"actions": lambda a: a[:, :1]}, ("d, episode 1", "actions")),
    "observation shape": ("images", 0, {"observations": lambda o: o[:, 0]}, ("d, episode 0", "observations")),
    "choice too large": (
        "vectors and choices",
        1,
        {"actions": at(0, value=4)},
        ("d, episode 1, step 0", "actions"),
    ),
    "choice negative": ("images", 1, {"actions": at(0, value=0)}, ("d, episode 1, step 0", "actions")),
    "choice is a fraction": (
        "vectors and choices",
        2,
        {"actions": at(4, value=0.5)},
        ("d, episode 2, step 4", "actions"),
    ),
    "choices too large": ("dictionaries", 2, {"actions": at(1, 0, value=2)}, ("d, episode 2, step 1", "actions")),
    "bits too large": ("cells", 2, {"actions": at(1, 0, value=2)}, ("d, episode 2, step 1", "actions")),
    "cell outside": ("cells", 0, {"observations": at(3, value=9)}, ("d, episode 0, step 3", "observations")),
    "words": ("vectors and choices", 0, {"actions": lambda a: a.astype(str)}, ("d, episode 0", "actions")),
    "image in fractions": ("images", 0, {"observations": lambda o: o / 256}, ("d, episode 0, step 0", "observations")),
    "image in another range": (
        "images",
        1,
        {"observations": lambda o: o.astype(np.int64) + 200},
        ("d, episode 1, step 0", "observations"),
    ),
    "key missing": (
        "dictionaries",
        1,
        {"observations": lambda o: {"image": o["image"]}},
        ("d, episode 1", "observations"),
    ),
    "part nan": (
        "dictionaries",
        1,
        {"observations": in_part("place/x", at(1, 0, value=np.nan))},
        ("d, episode 1, place/x, step 1", "observations"),
    ),
    "part outside": (
        "dictionaries",
        1,
        {"observations": in_part("held", at(0, value=7))},
        ("d, episode 1, held, step 0", "observations"),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_the_spaces_is_refused_with_its_place(name):
    kind, episode, changes, said = BAD[name]
    demonstrations, given_spaces = changed(kind, episode, **changes)
    assert refusal(check_demonstrations, "d", demonstrations, *given_spaces) == ("demonstrations-invalid", *said)


def test_dictionaries_and_arrays_are_not_confused():
    assert refusal(check_demonstrations, "d", shown(BOX, STEER), PARTS, STEER) == (
        "demonstrations-invalid",
        "d, episode 0",
        "observations",
    )
    assert refusal(check_demonstrations, "d", shown(PARTS, STEER), BOX, STEER) == (
        "demonstrations-invalid",
        "d, episode 0",
        "observations",
    )


def test_no_episode_left_is_refused():
    nothing = shown(BOX, STEER).filtered(min_return=1e9)
    assert refusal(check_demonstrations, "d", nothing, BOX, STEER) == ("demonstrations-invalid", "d", "")


def test_whole_numbers_may_be_stored_as_floats_and_rounding_at_the_limits_is_forgiven():
    demonstrations, _ = changed("vectors and choices", 0, actions=lambda a: a.astype(np.float32))
    check_demonstrations("d", demonstrations, BOX, spaces.Discrete(4))
    demonstrations, _ = changed("vectors and forces", 0, actions=at(0, 0, value=1.0 + 5e-7))
    check_demonstrations("d", demonstrations, BOX, STEER)


# --- selecting ----------------------------------------------------------------------------------------------------


def with_returns(returns):
    return Demonstrations(
        tuple(Demonstration(np.full((2, 1), i), np.zeros(1), np.array([r]), None) for i, r in enumerate(returns))
    )


def numbers(demonstrations):
    return [int(episode.observations[0, 0]) for episode in demonstrations.episodes]


def test_the_best_episodes_are_kept_in_their_order_and_ties_go_to_the_first():
    demonstrations = with_returns([1.0, 5.0, 3.0, 5.0, 3.0])
    assert numbers(demonstrations.filtered(best=3)) == [1, 2, 3]
    assert numbers(demonstrations.filtered(best=99)) == [0, 1, 2, 3, 4]
    assert numbers(demonstrations.filtered(min_return=3.0)) == [1, 2, 3, 4]
    assert numbers(demonstrations.filtered(best=1, min_return=3.0)) == [1]
    assert numbers(demonstrations.filtered(min_return=6.0)) == []
    assert numbers(demonstrations) == [0, 1, 2, 3, 4]


@some
@given(st.integers(0, 60), st.floats(0.0, 0.9), st.integers(0, 2**32 - 1))
def test_a_split_divides_whole_episodes_without_loss(n, held_out, seed):
    demonstrations = with_returns(list(range(n)))
    learned, measured = demonstrations.split(held_out, seed)
    assert sorted(numbers(learned) + numbers(measured)) == list(range(n))
    assert numbers(learned) == sorted(numbers(learned)) and numbers(measured) == sorted(numbers(measured))
    assert len(learned) >= min(n, 1)
    assert (len(measured) > 0) == (held_out > 0 and n > 1)
    assert numbers(demonstrations.split(held_out, seed)[1]) == numbers(measured)


def test_a_split_has_the_share_asked_for_and_follows_its_seed():
    demonstrations = with_returns([0.0] * 50)
    assert len(demonstrations.split(0.1, 0)[1]) == 5
    assert len({tuple(numbers(demonstrations.split(0.1, seed)[1])) for seed in range(10)}) > 5


@pytest.mark.parametrize("kind", SPACES)
def test_transitions_leave_out_each_episodes_last_observation(kind):
    demonstrations = shown(*SPACES[kind])
    observations, actions = demonstrations.transitions()
    parts = list(observations.values()) if isinstance(observations, dict) else [observations]
    assert all(len(part) == len(actions) == demonstrations.steps == 9 for part in parts)
    second = demonstrations.episodes[1].observations
    second = list(second.values()) if isinstance(second, dict) else [second]
    assert all(np.array_equal(part[3], seen[0]) for part, seen in zip(parts, second, strict=True))


def test_what_was_shown_is_scored():
    result = shown(BOX, STEER).score()
    assert (result.episodes, result.steps, result.success) == (3, 9, pytest.approx(1 / 3))
    assert result.mean_return == pytest.approx((3 + 1 + 20) / 3)


# --- imitation's folders ------------------------------------------------------------------------------------------


def trajectories(*lengths, image=False, rewards=True):
    from imitation.data import types

    rng = np.random.default_rng(0)
    made = []
    for n in lengths:
        seen = rng.integers(0, 255, (n + 1, 4, 5, 3)).astype(np.uint8) if image else rng.random((n + 1, 3), np.float32)
        acts = rng.random((n, 2), np.float32) if image else rng.integers(0, 4, n)
        given = {"obs": seen, "acts": acts, "infos": np.array([{"step": i} for i in range(n)]), "terminal": True}
        made.append(types.TrajectoryWithRew(**given, rews=rng.random(n)) if rewards else types.Trajectory(**given))
    return made


def save_trajectories(path, made):
    from datasets.utils.logging import disable_progress_bar
    from imitation.data import serialize

    disable_progress_bar()
    with warnings.catch_warnings():
        # Of jsonpickle, which imitation uses.
        warnings.simplefilter("ignore", DeprecationWarning)
        serialize.save(path, made)
    return path


@pytest.mark.parametrize("image", [False, True])
def test_a_folder_that_imitation_saved_is_read(tmp_path, image):
    made = trajectories(3, 1, 5, image=image)
    read = load_demonstrations(save_trajectories(tmp_path / "shown", made))
    assert len(read) == 3
    for one, other in zip(made, read.episodes, strict=True):
        assert same(one.obs, other.observations) and same(one.acts, other.actions) and same(one.rews, other.rewards)
        assert other.success is other.terminated is other.truncated is None
    read.save(tmp_path / "shown.safetensors")
    assert equal(load_demonstrations(tmp_path / "shown.safetensors"), read)


def test_a_trajectory_that_imitation_has_cut_off_is_truncated(tmp_path):
    whole, cut = trajectories(3, 4)
    folder = save_trajectories(tmp_path / "shown", [whole, dataclasses.replace(cut, terminal=False)])
    assert [(e.terminated, e.truncated) for e in load_demonstrations(folder).episodes] == [(None, None), (False, True)]


def test_a_folder_without_rewards_and_a_pickle_say_what_to_do(tmp_path):
    folder = save_trajectories(tmp_path / "shown", trajectories(3, rewards=False))
    assert refusal(load_demonstrations, folder) == ("demonstrations-invalid", "shown", "rewards")
    (tmp_path / "model.zip").write_bytes(b"PK")
    assert refusal(load_demonstrations, tmp_path / "model.zip") == ("demonstrations-invalid", "model.zip", "")
    (tmp_path / "shown.pkl").write_bytes(pickle.dumps([]))
    assert refusal(load_demonstrations, tmp_path / "shown.pkl") == ("untrusted", "shown.pkl", "")


def test_a_damaged_folder_is_refused_in_one_sentence(tmp_path):
    folder = save_trajectories(tmp_path / "shown", trajectories(3, 4))
    [table] = folder.glob("*.arrow")
    whole = table.read_bytes()
    draw = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        content = bytearray(whole)
        content[draw.integers(len(content))] ^= 1 << draw.integers(8)
        table.write_bytes(bytes(content[: draw.choice([len(content), draw.integers(len(content))])]))
        try:
            load_demonstrations(folder)
        except InputError as error:
            assert told(error)[1] == folder.name and "\n" not in str(error)
            refused += 1
    assert refused > 50
    table.write_bytes(whole)
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**state, "_data_files": [{"filename": "../other.arrow"}]}))
    assert refusal(load_demonstrations, folder) == ("demonstrations-invalid", "shown", "")
