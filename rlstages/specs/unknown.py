"""Advice for unknown settings, in particular those of stable-baselines3."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from rlstages.errors import Code, InputError, in_short, nearest

_T = TypeVar("_T", bound=type)
_LAYERS = "write network=[64, 64], which is for actor and critic each"
_NO_REPLAY = "it is of algorithms with a replay buffer, and there are none here"
_NORMALIZE = "write normalize_observations=True or normalize_rewards=True"
WORDS = {
    "net_arch": _LAYERS,
    "policy_kwargs": f"{_LAYERS}, and activation='relu' or 'tanh'",
    "activation_fn": "write activation='relu' or 'tanh'",
    "lr": "write learning_rate",
    "lr_schedule": "write learning_rate=Linear(start, end)",
    "total_timesteps": "write max_steps in each FineTuning stage",
    "n_timesteps": "write max_steps in each FineTuning stage",
    "verbose": "the command line shows the run, and train(..., console=True) does",
    "tensorboard_log": "write train(..., track='offline'), or --track offline: TensorBoard's files come with it",
    "env": "each stage has its own Environment(...)",
    "seed": "write train(..., seed=0), or --seed 0",
    "vec_normalize": _NORMALIZE,
    "norm_obs": _NORMALIZE,
    "norm_reward": _NORMALIZE,
    "normalize": _NORMALIZE,
    "normalize_advantage": "PPO's advantages are always normalised, and A2C's never",
    "use_sde": "there is no state-dependent exploration here",
    "buffer_size": _NO_REPLAY,
    "learning_starts": _NO_REPLAY,
    "tau": _NO_REPLAY,
    "train_freq": _NO_REPLAY,
    "gradient_steps": _NO_REPLAY,
}


class UnknownSetting(InputError, TypeError):
    """An argument that a spec does not have."""

    code: Code = "setting-unknown"


Fold = Callable[[type, dict[str, Any]], dict[str, Any]]


def refusing_unknown(*agents: str, fold: Fold | None = None, also: Sequence[str] = ()) -> Callable[[_T], _T]:
    """Refuse unknown keyword arguments of a spec, with advice on what to write instead (class decorator).

    Args:
        *agents: Names that belong to the agent, if the spec is a stage.
        fold: Function that moves short forms among the keyword arguments to their places.
        also: Names of the short forms.
    """

    def wrap(cls: _T) -> _T:
        made: Any = cls.__init__  # type: ignore[misc]
        known = [field.name for field in fields(cls)]
        takes = inspect.signature(made).parameters.values()
        nameless = [taken.name for taken in takes if taken.kind is taken.POSITIONAL_OR_KEYWORD][1:]

        @functools.wraps(made)
        def init(self: Any, *args: Any, **given: Any) -> None:
            by_place = dict(zip(nameless, args, strict=False))
            if fold is not None and len(args) <= len(nameless) and not by_place.keys() & given.keys():
                args, given = (), fold(cls, {**by_place, **given})
            unknown = next((name for name in given if name not in known), None)
            if unknown is not None:
                raise UnknownSetting(
                    _sentence(cls.__name__, unknown, [*known, *also], agents), where=cls.__name__, name=unknown
                )
            if len(args) > len(nameless):
                only, more = " and ".join(nameless), in_short(args[len(nameless)])
                raise UnknownSetting(
                    f"{cls.__name__} takes only {only} without a name; write name=value for {more}.", where=cls.__name__
                )
            made(self, *args, **given)

        cls.__init__ = init  # type: ignore[misc]
        return cls

    return wrap


def _sentence(owner: str, name: str, known: Sequence[str], agents: Sequence[str]) -> str:
    if name in agents:
        return f"{owner} takes no {name!r}: all stages share one network and its copies, so set it on the Agent."
    if name in WORDS:
        return f"{owner} takes no {name!r}; {WORDS[name]}."
    return f"{owner} takes no {name!r}.{nearest(name, known)}"
