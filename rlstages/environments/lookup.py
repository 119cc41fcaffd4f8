"""Lookup of the callable that makes an environment, or many that are stepped in one call."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym

from rlstages.environments.autoreset import Autoreset, autoreset_of
from rlstages.errors import InputError, nearest
from rlstages.specs.environment import Environment
from rlstages.specs.references import import_registering, is_reference, resolve


def maker_of(id: str) -> Callable[..., Any]:
    """Return the callable that makes an environment: a named one, or that of gymnasium's registry.

    Raises:
        InputError: If there is none.
    """
    if is_reference(id):
        found = resolve(id)
        if callable(found):
            return found  # type: ignore[no-any-return]
        sentence = f"{id!r} is a {type(found).__name__}, which cannot be called to make an environment."
        raise InputError(sentence, "environment-invalid", id)
    find_spec(id)
    return partial(gym.make, id)


def find_spec(id: str) -> Any:
    """Return gymnasium's registry entry for an id, after importing the module that the id names.

    Raises:
        InputError: If there is none.
    """
    module, colon, name = id.rpartition(":")
    if colon:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            sentence = f"{id!r}: there is no module {error.name!r}; install it, or correct the name."
            raise InputError(sentence, "import-failed", module, error.name or module) from None
        except Exception as error:
            raise InputError(
                f"{id!r}: {module!r} cannot be imported: {type(error).__name__}: {error}", "import-failed", module
            ) from error
    try:
        if not colon and name not in gym.registry:
            import_registering()
        return gym.spec(name)
    except InputError:
        raise
    except gym.error.Error as error:
        hint = nearest(name, gym.registry) or nearest(re.sub(r"-v\d+$", "", name), gym.registry)
        reason = "" if hint else f" {error}"
        if not hint and id.isidentifier():
            reason = f" Of a function write module:{id} or, on the command line, FILE.py:{id}."
        raise InputError(
            f"There is no environment {id!r}.{hint}{reason}", "name-unknown", name="environment", value=id
        ) from None


def takes_copies(maker: Callable[..., Any]) -> bool:
    """Return whether a maker makes any number of environments that are stepped in one call: it takes `num_envs`."""
    try:
        return "num_envs" in inspect.signature(maker).parameters
    except (TypeError, ValueError):
        return False


def batched_maker(spec: Environment) -> Callable[..., Any] | None:
    """Return what makes the batched form of an environment, `maker(num_envs=n, **kwargs)`, if that is to be used.

    `vectorize="auto"` uses it wherever each episode keeps a seed of its own; and where there is no other form, which
    is so for a callable that takes `num_envs`.

    Raises:
        InputError: If the spec asks for one and there is none.
    """
    if spec.vectorize not in ("auto", "batched"):
        return None
    found = None if spec.wrappers else _batched_form(spec)
    if found is None and spec.vectorize == "batched":
        sentence = (
            f"{spec} has no batched form whose copies are reset by reset_mask or in the next step, or it has wrappers; "
            'leave out vectorize="batched".'
        )
        raise InputError(sentence, "setting-conflict", spec, "vectorize")
    return found


def _batched_form(spec: Environment) -> Callable[..., Any] | None:
    if is_reference(spec.id):
        maker = maker_of(spec.id)
        return maker if takes_copies(maker) else None
    entry = find_spec(spec.id)
    if entry.vector_entry_point is None:
        return None
    found = resolve(entry.vector_entry_point) if isinstance(entry.vector_entry_point, str) else entry.vector_entry_point
    mode = autoreset_of(found)
    if mode is Autoreset.OTHER or (mode is Autoreset.NEXT_STEP and spec.vectorize == "auto"):
        return None
    # As gymnasium.make_vec passes them on, with the names of all its versions.
    limit = {} if entry.max_episode_steps is None else {"max_episode_steps": entry.max_episode_steps}
    given = {**limit, **entry.kwargs}
    return partial(found, **{name: value for name, value in given.items() if name not in spec.kwargs})
