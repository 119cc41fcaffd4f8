"""torch's optimisers without torch's compiler, which takes a second to import and which nothing here uses.

Commands have a process of their own, so here its classes may be changed; who imports the package keeps torch as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

_COMPILER = "torch._dynamo"
# What torch keeps from being compiled imports the compiler when first called, and keeps under this name what it says.
_STAND_IN = "__dynamo_disable"
_KEPT_FROM_IT = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


def leave_compiler_out() -> None:
    """Avoid the import of torch's compiler by optimisers, unless other code has imported it."""
    if _COMPILER in sys.modules:
        return
    for name in _KEPT_FROM_IT:
        method = getattr(Optimizer, name)
        plain = getattr(method, "__wrapped__", None)
        if plain is not None and not hasattr(plain, _STAND_IN):
            setattr(plain, _STAND_IN, _until_imported(method, plain))


def _until_imported(method: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if _COMPILER not in sys.modules:
            return plain(*args, **kwargs)
        delattr(plain, _STAND_IN)
        return method(*args, **kwargs)

    return call
