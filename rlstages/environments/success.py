"""Rules that decide whether an episode counts as solved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rlstages.environments.batched_env import info_of
from rlstages.environments.guard import traceback_of
from rlstages.environments.reports import Counts, EnvironmentFault, Reports
from rlstages.errors import reason_of
from rlstages.specs.environment import DEFAULT_SUCCESS, Success
from rlstages.specs.references import resolve

Rule = Callable[[dict[str, Any], float, int], bool | None]
LONGEST = 80
HELD_BEFORE = (
    "info[{key!r}] was true earlier in an episode that counts as failed, for its last step decides; "
    'if any step is to count, give Environment(success_at="any")'
)
ROUNDING = 1e-6
"""Tolerance for rounding in a sum of rewards, relative to the required return (at least 1)."""


class NoTruthValue(ValueError):
    """The value of a success rule is neither true nor false."""


def why_unknown(error: Exception) -> str:
    """Return the reason why the success of an episode is unknown, as half a sentence."""
    return str(error) if isinstance(error, NoTruthValue) else reason_of(error)


def success_rule(success: Success) -> Rule:
    """Return a function of an info, the return and the length so far.

    It returns `None` where the info lacks the key. Where other episodes tell, that counts as not solved: an environment
    may write the key only when it is. The function raises `NoTruthValue`, and whatever a function of the user's raises.
    """
    if isinstance(success, (int, float)):
        least = success - ROUNDING * max(1.0, abs(success))
        return lambda info, total, length: total >= least
    if ":" in success:
        named = resolve(success)
        return lambda info, total, length: truth(success, named(info, total, length))
    key = success
    return lambda info, total, length: truth(f"info[{key!r}]", info[key]) if key in info else None


def info_key(success: Success) -> str | None:
    """Return the info key of a rule, or `None` if the rule is a return or a function."""
    return success if isinstance(success, str) and ":" not in success else None


def is_true(value: Any) -> bool:
    """Return whether a value is a truth value, and true."""
    try:
        return truth("", value)
    except NoTruthValue:
        return False


def flags_in(infos: Mapping[str, Any], key: str, copies: int) -> np.ndarray:
    """Return in which environments of a batch a key of the last step's infos is true, shape `(copies,)`.

    Args:
        infos: Arrays by key, and under `_key` which environments have an entry there.
        key: Key.
        copies: Number of environments.
    """
    values = np.asarray(infos.get(key, False))
    if values.dtype.kind == "O" and values.shape == (copies,):
        # gymnasium stores NumPy's booleans and lists like this.
        values = np.array([value is not None and is_true(value) for value in values])
    if values.size != copies or values.dtype.kind not in "biuf":
        return np.zeros(copies, bool)
    held: np.ndarray = (values.reshape(copies) == 1) & np.asarray(infos.get("_" + key, True), bool)
    return held


def truth(name: str, value: Any) -> bool:
    """Convert a boolean, a number 0 or 1, or an array or list with one of these, to a boolean.

    Args:
        name: Name of what the value was found as.
        value: What an environment or a function of the user's gave.

    Raises:
        NoTruthValue: If it is anything else: a share, a text, a list of finished tasks, -1, NaN.
    """
    try:
        if hasattr(value, "detach"):
            # A torch tensor may be on another device.
            value = value.detach().cpu()
        array = np.asarray(value)
        if array.dtype.kind == "O" and array.size == 1:
            array = np.asarray(array.item())
        if array.dtype.kind in "biuf" and array.size == 1 and array.item() in (0, 1):
            return bool(array.item())
    except Exception:  # noqa: S110 - whatever an object of the user's raises, it is no truth value
        pass
    try:
        text = " ".join(repr(value).split())
    except Exception:
        text = f"a {type(value).__name__}"
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    raise NoTruthValue(
        f"{name} is {text}, neither true nor false, 0 nor 1; give Environment(success=...) a function of "
        "(info, episode_return, length) that returns True or False"
    )


class SuccessJudge:
    """Says of each copy's episode whether it counts as solved.

    Args:
        counts: Where each copy is.
        reports: Takes what is doubtful, and knows the environment whose rule is asked.

    Attributes:
        held: Whether success held in an earlier step of each copy's episode, shape `(copies,)`.
    """

    def __init__(self, counts: Counts, reports: Reports) -> None:
        spec = reports.environment
        self.held = np.zeros(len(counts.lengths), bool)
        self._counts, self._reports, self._spec = counts, reports, spec
        self._solved = success_rule(spec.success)
        self._key = info_key(spec.success)
        self._in_any_step = spec.success_at == "any"

    def look(self, infos: list[dict[str, Any]], dones: np.ndarray, batch: Mapping[str, Any] | None) -> None:
        """Note in which episodes that go on success has held, for those that count it at any step or to tell of it.

        Args:
            infos: Of the last step, one for each copy.
            dones: In which copies that step ended the episode, shape `(copies,)`.
            batch: The infos of a batch of copies, which gives them as arrays; `None` if the copies are no batch.

        Raises:
            EnvironmentFault: If it cannot be told whether an episode is solved.
        """
        if self._in_any_step:
            for copy in np.flatnonzero(~dones & ~self.held & (self._counts.lengths > 0)).tolist():
                self.held[copy] = bool(self._judge(infos[copy] if batch is None else info_of(batch, copy), copy))
        elif self._key is None:
            return
        elif batch is not None:
            self.held |= flags_in(batch, self._key, len(self.held)) & (self._counts.lengths > 0) & ~dones
        else:
            for copy, info in enumerate(infos):
                value = info.get(self._key)
                # Most environments say nothing or 'no' in most steps.
                if value is not None and value is not False and not dones[copy] and is_true(value):
                    self.held[copy] = True

    def ended(self, copy: int, info: dict[str, Any]) -> bool | None:
        """Say whether an episode that has ended counts as solved; `None` if the environment does not tell.

        Raises:
            EnvironmentFault: If it cannot be told.
        """
        solved = self._judge(info, copy)
        if solved is None and self._key not in (None, DEFAULT_SUCCESS):
            # Whoever names a key has one that may be written only when the episode is solved.
            solved = False
        if self.held[copy] and self._in_any_step:
            return True
        if self.held[copy] and not solved:
            self._reports.note(HELD_BEFORE.format(key=self._key), f"return {self._counts.returns[copy]:g}", copy)
        return solved

    def _judge(self, info: dict[str, Any], copy: int) -> bool | None:
        try:
            return self._solved(info, float(self._counts.returns[copy]), int(self._counts.lengths[copy]))
        except Exception as error:
            place = self._counts.place(copy)
            raise EnvironmentFault(
                f"{self._spec}: whether copy {copy} succeeded cannot be told ({why_unknown(error)}), at {place}.",
                where=f"{self._spec}: copy {copy}, {place}",
                name="success",
                trace=traceback_of(error) if ":" in str(self._spec.success) else "",
            ) from error
