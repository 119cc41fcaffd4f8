"""The state of torch's optimisers as arrays and JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return an optimiser's state as arrays and JSON values."""
    state = optimizer.state_dict()
    moments = {
        str(index): {k: v.detach().cpu().numpy().copy() if isinstance(v, torch.Tensor) else v for k, v in slots.items()}
        for index, slots in state["state"].items()
    }
    return {"state": moments, "groups": state["param_groups"]}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Restore what `optimizer_state` returned."""
    moments = {
        int(index): {k: torch.as_tensor(np.array(v)) if isinstance(v, np.ndarray) else v for k, v in slots.items()}
        for index, slots in state["state"].items()
    }
    groups = [
        {key: tuple(value) if key == "betas" else value for key, value in group.items()} for group in state["groups"]
    ]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
