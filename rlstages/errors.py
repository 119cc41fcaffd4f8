"""Errors that the user can correct, exit codes, and checks of values."""

from __future__ import annotations

import difflib
import math
import signal
import sys
from collections.abc import Iterable
from enum import IntEnum
from typing import Any, Literal

MAX_SEED = 2**32 - 1
"""Largest seed of NumPy's generators."""


class ExitCode(IntEnum):
    """The exit codes of the command line, besides 0."""

    FAULT = 1
    INPUT = 2
    MISSED = 3
    INTERRUPTED = 130


Code = Literal[
    # Of what a person writes: curricula, and arguments in Python.
    "setting-type",
    "setting-range",
    "setting-unknown",
    "setting-missing",
    "setting-conflict",
    "choice-unknown",
    "name-invalid",
    "name-unknown",
    "name-taken",
    "import-failed",
    "call-misplaced",
    "kind-invalid",
    "stage-order",
    "comparison-invalid",
    "option-invalid",
    # Of what is tried before a run, or while its demonstrations are recorded.
    "environment-invalid",
    "spaces-unsupported",
    "expert-invalid",
    "demonstrations-invalid",
    "policy-misfit",
    "unavailable",
    # Of files and run directories.
    "file-missing",
    "file-damaged",
    "file-unusable",
    "file-unconfirmed",
    "out-taken",
    "run-busy",
    "run-changed",
    "run-unready",
    "untrusted",
    # Of what happens during a run.
    "environment-failed",
    "episode-endless",
    "loss-not-finite",
    "runner-invalid",
    "resources-short",
    "tracking-failed",
    "runs-failed",
    # Of packages that give none.
    "other",
]
"""The kinds of errors, which docs/errors.md describes one by one."""


class CodedError(Exception):
    """What `InputError` and `Fault` have in common.

    Args:
        sentence: Message for a person: what is wrong, where, and what to do.
        code: Kind of error, for a script; the default is that of the class. docs/errors.md has the table.
        where: Object that the error belongs to: `Agent`, `stage 'walk'`, a file.
        name: Name of the wrong setting, option or key.
        value: Value that was given for it.
        trace: Traceback of the user's own code that raised, or nothing.
    """

    code: Code = "other"

    def __init__(
        self,
        sentence: str,
        code: Code | None = None,
        where: object = "",
        name: str = "",
        value: Any = None,
        *,
        trace: str = "",
    ) -> None:
        super().__init__(sentence)
        self.code = code or self.code
        self.where, self.name, self.value = str(where), name, value
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process is not sent the value, which may be anything.
        return type(self), self.args, {**vars(self), "value": None}


class InputError(CodedError, ValueError):
    """Bad input: one sentence that says what is wrong, where, and what to do. The command line exits with 2."""

    def retold(self, sentence: str, *, where: object = "") -> InputError:
        """Return the error with another sentence, and with a place around its own where one is given."""
        place = self.where if self.where.startswith(str(where)) else f"{where}: {self.where}".removesuffix(": ")
        return InputError(sentence, self.code, place, self.name, self.value, trace=self.trace)


class Fault(CodedError, RuntimeError):
    """Training cannot go on: one sentence says what happened and where. The command line exits with 1."""


def text_of(error: BaseException) -> str:
    """Return an exception's text in one line without a full stop, or its type if the text is empty."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def reason_of(error: BaseException) -> str:
    """Return an exception's type and text in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def signal_name(number: int) -> str:
    """Return the name of a signal, or its number if it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def in_short(value: Any) -> str:
    """Return the repr of a value, or its type if the repr is long."""
    text = " ".join(repr(value).split())
    kind = type(value).__name__
    return text if len(text) <= 40 else f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a did-you-mean clause, ignoring case, or an empty string if no known word is similar."""
    names = list(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if not near:
        lower = {name.lower(): name for name in names}
        near = [lower[name] for name in difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.6)]
    return f" Did you mean {near[0]!r}?" if near else ""


def require(condition: bool, sentence: str, code: Code, where: object = "", name: str = "", value: Any = None) -> None:
    """Raise `InputError` with the sentence, the code and the fields unless the condition holds."""
    if not condition:
        raise InputError(sentence, code, where, name, value)


def require_sound(condition: bool, sentence: str, where: object = "", name: str = "") -> None:
    """Raise `InputError` for a damaged file unless the condition holds, which says what a sound one is like."""
    require(condition, sentence, "file-damaged", where, name)


def _wrong(kind_fits: bool) -> Code:
    return "setting-range" if kind_fits else "setting-type"


def _not_text(value: Any) -> str:
    """Return advice for text in place of a number, because some YAML readers read 3e-4 as text."""
    return ", without quotes (YAML reads 3e-4 as text, and 3.0e-4 as a number)" if isinstance(value, str) else ""


def require_int(where: str, name: str, value: Any, least: int = 1) -> None:
    """Require an integer of at least `least`."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    sentence = f"{where}: {name} is {value!r}; give a whole number of at least {least}."
    require(whole and value >= least, sentence, _wrong(whole), where, name, value)


def require_seed(what: str, value: Any) -> None:
    """Require an integer that every random generator accepts as a seed."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    sentence = f"{what} is {value!r}; give a whole number from 0 to {MAX_SEED:,}."
    require(whole and 0 <= value <= MAX_SEED, sentence, _wrong(whole), name="seed", value=value)


def require_number(
    where: str, name: str, value: Any, least: float = -math.inf, most: float = math.inf, *, above: float = -math.inf
) -> None:
    """Require a finite number with `least <= value <= most` and `value > above`."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    limits = [f"at least {least:g}"] if math.isfinite(least) else []
    limits += [f"above {above:g}"] if math.isfinite(above) else []
    limits += [f"at most {most:g}"] if math.isfinite(most) else []
    wanted = " and ".join(limits)
    require(
        number and abs(value) <= sys.float_info.max and least <= value <= most and value > above,
        f"{where}: {name} is {value!r}; give a finite number{' ' if wanted else ''}{wanted}{_not_text(value)}.",
        _wrong(number),
        where,
        name,
        value,
    )


def require_bool(where: str, name: str, value: Any) -> None:
    """Require `True` or `False`."""
    sentence = f"{where}: {name} is {value!r}; give True or False."
    require(isinstance(value, bool), sentence, "setting-type", where, name, value)


def require_choice(where: str, name: str, value: Any, choices: Iterable[str]) -> None:
    """Require one of a few words."""
    known = list(choices)
    hint = nearest(value, known) if isinstance(value, str) else ""
    sentence = f"{where}: {name} is {value!r}; it must be one of {', '.join(map(repr, known))}.{hint}"
    require(value in known, sentence, "choice-unknown", where, name, value)


def require_name(where: str, value: Any) -> None:
    """Require a name that is usable in file names and headings."""
    ok = isinstance(value, str) and 0 < len(value) <= 80 and value.isprintable() and value == value.strip()
    sentence = f"{where}: the name is {value!r}; give 1 to 80 printable characters without blanks at the ends."
    require(ok, sentence, "name-invalid", where, "name", value)
