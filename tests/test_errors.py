import math
import signal
from pathlib import Path

import pytest

from rlstages.errors import (
    Fault,
    InputError,
    in_short,
    nearest,
    require,
    require_bool,
    require_choice,
    require_int,
    require_name,
    require_number,
    require_seed,
    signal_name,
)
from rlstages.training.stopping import add_place


def sentence_of(call, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def test_input_error_is_a_value_error_with_the_sentence():
    assert sentence_of(require, False, "This is wrong.", "setting-range") == "This is wrong."
    assert issubclass(InputError, ValueError)
    require(True, "never said", "setting-range")


def test_the_nearest_word_is_offered_and_a_far_one_is_not():
    assert nearest("max_step", ["max_steps", "seed"]) == " Did you mean 'max_steps'?"
    assert nearest("xyz", ["max_steps", "seed"]) == ""
    assert nearest("ppo", ["A2C", "PPO"]) == " Did you mean 'PPO'?"


def test_a_long_value_is_named_by_its_type():
    assert in_short([1, 2]) == "[1, 2]"
    assert in_short(list(range(100))) == "a list"
    assert in_short(OverflowError("long" * 100)) == "an OverflowError"


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "3", None, math.nan])
def test_a_count_must_be_a_whole_number(value):
    assert sentence_of(require_int, "Agent", "n_envs", value) == (
        f"Agent: n_envs is {value!r}; give a whole number of at least 1."
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, "1", None, 10**400, -(10**400)])
def test_a_number_must_be_finite(value):
    assert "give a finite number" in sentence_of(require_number, "here", "x", value)


def test_a_number_keeps_its_limits_and_the_sentence_names_them():
    require_number("here", "x", 1, least=0.0, most=1.0)
    assert sentence_of(require_number, "here", "x", 2, least=0.0, most=1.0) == (
        "here: x is 2; give a finite number at least 0 and at most 1."
    )
    assert "above 0" in sentence_of(require_number, "here", "x", 0, above=0.0)
    assert "at least 0" in sentence_of(require_number, "here", "x", -1, least=0.0)


@pytest.mark.parametrize("value", ["A2D", None, 3, ["PPO"], {}])
def test_a_choice_must_be_one_of_the_words(value):
    assert "it must be one of 'PPO', 'A2C'." in sentence_of(require_choice, "Agent", "algorithm", value, ["PPO", "A2C"])


def test_a_choice_nearly_right_gets_a_hint():
    assert sentence_of(require_choice, "a", "b", "ppo2", ["PPO", "ppo"]).endswith("Did you mean 'ppo'?")


@pytest.mark.parametrize("value", ["yes", 1, 0, None])
def test_a_switch_must_be_true_or_false(value):
    assert sentence_of(require_bool, "Agent", "x", value).endswith("give True or False.")


@pytest.mark.parametrize("value", ["", " a", "a ", "a\nb", "x" * 81, 5, None, "\x00"])
def test_a_name_must_be_printable_and_short(value):
    assert "80 printable characters" in sentence_of(require_name, "stage", value)


def test_names_of_any_script_are_taken():
    require_name("stage", "zwei Räume 二")


@pytest.mark.parametrize("value", [-1, 2**32, True, 1.0, "3", None])
def test_a_seed_must_be_one_that_every_generator_takes(value):
    assert sentence_of(require_seed, "The seed", value) == (
        f"The seed is {value!r}; give a whole number from 0 to 4,294,967,295."
    )
    require_seed("The seed", 0)
    require_seed("The seed", 2**32 - 1)


def test_every_signal_can_be_named():
    assert {signal_name(number) for number in signal.Signals} == {one.name for one in signal.Signals}
    assert signal_name(signal.SIGRTMIN + 6) == f"signal {signal.SIGRTMIN + 6}"


@pytest.mark.parametrize(
    "error, begun, said, unsaid",
    [
        (Fault("It died."), False, "'rlstages resume run' goes on from there.", "mended"),
        (Fault("It died."), True, "'rlstages resume run' goes on from there.", "mended"),
        (InputError("It is wrong."), True, "'rlstages resume run' goes on from there once that is mended", "another"),
        (InputError("It is wrong."), False, "Mend that, and train with another --out.", "resume"),
    ],
)
def test_resuming_is_offered_where_it_would_not_fail_again(error, begun, said, unsaid):
    add_place(error, 48, Path("run"), begun)
    assert said in str(error) and unsaid not in str(error)
