"""Environment variants, as frozen data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rlstages.errors import InputError, require, require_choice, require_number
from rlstages.specs.plain import FrozenDict, items_of, plain
from rlstages.specs.references import reference
from rlstages.specs.serialization import serializable, to_data

DEFAULT_SUCCESS = "is_success"


Success = str | float


SuccessRule = str | float | Callable[..., bool]


Wrapper = str | Callable[..., Any]


@serializable
@dataclass(frozen=True, init=False)
class Environment:
    """An environment variant in which a stage clones or trains.

    Args:
        id: Registered id (`"CartPole-v1"`, or `"module:Id-v0"` to import a module first), or a function or class that
            returns a gymnasium environment, given itself or as `"module:name"`. If it takes `num_envs`, it returns a
            `gymnasium.vector.VectorEnv` with so many environments, such as a `BatchedEnv`.
        wrappers: Wrappers, applied to each environment from left to right: functions or classes
            `wrapper(env) -> env`, given themselves or as `"module:name"`.
        success: Rule for solved episodes. A text is a key of the last step's `info` (default `"is_success"`), whose
            value must be a boolean, 0 or 1; if it is missing, the episode is not solved. A number is a return to reach.
            A function, given itself or as `"module:name"`, is called as
            `success(info, episode_return, length) -> bool`.
        success_at: When the rule must hold: at the `"end"`, or in `"any"` step of the episode, for benchmarks whose
            flag
            may be reset before the end (Meta-World).
        vectorize: `"in-process"`, `"subprocess"` (one process per environment), `"batched"` (all environments are
            stepped in one call: the id takes `num_envs`, or has a `vector_entry_point`), or `"auto"`. The latter means
            batched if then each episode has a seed of its own or there is no other form, else in-process.
        step_timeout: Maximum duration in seconds of one reset or step, or of making the environment, before the run
            stops. In this process it can interrupt only Python code; with `vectorize="subprocess"`, any code.
        kwargs: Keyword arguments of the environment whose names are parameters here.
        **more: All other keyword arguments of the environment, as in `Environment("CartPole-v1", render_mode=None)`.
            Each environment gets lists and dictionaries of its own.

    Raises:
        InputError: If something is not as described, or an argument is not plain data.
    """

    id: str
    kwargs: FrozenDict = field(default_factory=FrozenDict)
    wrappers: tuple[str, ...] = ()
    success: Success = DEFAULT_SUCCESS
    success_at: Literal["end", "any"] = "end"
    vectorize: Literal["auto", "in-process", "subprocess", "batched"] = "auto"
    step_timeout: float = 300.0

    def __init__(
        self,
        id: str | Callable[..., Any],
        *,
        wrappers: Sequence[Wrapper] = (),
        success: SuccessRule = DEFAULT_SUCCESS,
        success_at: str = "end",
        vectorize: str = "auto",
        step_timeout: float = 300.0,
        kwargs: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        if not isinstance(id, str):
            id = reference("Environment", id)
        sentence = "Environment: the id is empty; give an id such as 'CartPole-v1'."
        require(bool(id.strip()), sentence, "setting-missing", "Environment", "id")
        where = f"Environment({id!r})"
        applied = items_of(wrappers)
        is_list = isinstance(applied, tuple)
        sentence = f"{where}: wrappers is {wrappers!r}; give a list of functions or classes."
        require(is_list, sentence, "setting-type", where, "wrappers", wrappers)
        is_mapping = kwargs is None or isinstance(kwargs, Mapping)
        require(
            is_mapping, f"{where}: kwargs is {kwargs!r}; give a dictionary.", "setting-type", where, "kwargs", kwargs
        )
        odd = [key for key in kwargs or {} if not isinstance(key, str)]
        sentence = f"{where}: kwargs has the key {next(iter(odd), None)!r}; names of arguments are texts."
        require(not odd, sentence, "setting-type", where, "kwargs", kwargs)
        twice = set(kwargs or {}) & set(more)
        sentence = f"{where}: {', '.join(sorted(twice))} given twice, in kwargs= and as a keyword."
        require(not twice, sentence, "setting-conflict", where, "kwargs")
        vectorize, step_timeout, success, success_at = map(plain, (vectorize, step_timeout, success, success_at))
        require_choice(where, "success_at", success_at, ["end", "any"])
        require_choice(where, "vectorize", vectorize, ["auto", "in-process", "subprocess", "batched"])
        require_number(where, "step_timeout", step_timeout, above=0.0)
        arguments = FrozenDict({**(kwargs or {}), **more})
        try:
            to_data(arguments)
        except InputError as error:
            raise error.retold(f"{where}: {error}", where=where) from None
        object.__setattr__(self, "id", id)
        object.__setattr__(self, "kwargs", arguments)
        object.__setattr__(self, "wrappers", tuple(reference(where, w) for w in applied))
        object.__setattr__(self, "success", _success_rule(where, success))
        object.__setattr__(self, "success_at", success_at)
        object.__setattr__(self, "vectorize", vectorize)
        object.__setattr__(self, "step_timeout", float(step_timeout))

    def __str__(self) -> str:
        module, _, rest = self.id.partition(":")
        name = (rest or module).rsplit("/", 1)[-1]
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.kwargs.items())
        return f"{name}({arguments})" if arguments else name


def _success_rule(where: str, success: SuccessRule) -> Success:
    if callable(success):
        return reference(where, success)
    if isinstance(success, str):
        sentence = f"{where}: success is empty; give an info key, a number or a function."
        require(bool(success.strip()), sentence, "setting-missing", where, "success")
        return reference(where, success) if ":" in success else success
    require_number(where, "success", success)
    return success
