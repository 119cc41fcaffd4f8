"""The learner's algorithm and network, and the settings that stages share, as frozen data."""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, Literal

from rlstages.errors import require, require_bool, require_choice, require_int, require_number
from rlstages.specs.plain import settle
from rlstages.specs.serialization import serializable
from rlstages.specs.unknown import refuse_unknown_algorithm, refusing_unknown


@serializable
@dataclass(frozen=True)
class Linear:
    """A value that moves in a straight line over the steps of one stage: `Linear(3e-4, 1e-5)`.

    Args:
        start: At the stage's first step.
        end: When the stage's `max_steps` are spent.
    """

    start: float
    end: float

    def __post_init__(self) -> None:
        """Refuse values that are not finite."""
        settle(self)
        require_number("Linear", "start", self.start, least=0.0)
        require_number("Linear", "end", self.end, least=0.0)

    def at(self, progress: float) -> float:
        """Return the value at a progress between 0 and 1."""
        return self.start + (self.end - self.start) * min(max(progress, 0.0), 1.0)

    def __str__(self) -> str:
        return f"{self.start:g} to {self.end:g}"


Schedule = float | Linear


def value_at(schedule: Schedule, progress: float) -> float:
    """Return a schedule's value at a progress between 0 and 1."""
    return schedule.at(progress) if isinstance(schedule, Linear) else schedule


SCHEDULED = ("learning_rate", "clip_range", "clip_range_vf")
"""The settings that may move over a stage."""


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """The settings of PPO and A2C that may differ from stage to stage. `None` means: as the agent says.

    Args:
        learning_rate: Adam's (PPO) or RMSprop's (A2C) step size, or a `Linear` schedule over the stage.
        ent_coef: Weight of the entropy bonus.
        vf_coef: Weight of the value loss.
        max_grad_norm: Gradients are scaled down to this norm.
        clip_range: PPO's clipping of the probability ratio, or a `Linear` schedule.
        clip_range_vf: PPO's clipping of how far an update moves values, in units of the returns, or a `Linear`
            schedule. Without it they move freely, which was no worse in arXiv:2006.05990.
        n_epochs: PPO's passes over each rollout.
        batch_size: PPO's minibatch.
        target_kl: PPO ends an update early when the policy has moved 1.5 times this far (KL divergence, nats).
    """

    learning_rate: Schedule | None = None
    ent_coef: float | None = None
    vf_coef: float | None = None
    max_grad_norm: float | None = None
    clip_range: Schedule | None = None
    clip_range_vf: Schedule | None = None
    n_epochs: int | None = None
    batch_size: int | None = None
    target_kl: float | None = None

    def check(self, where: str) -> None:
        """Raise `InputError` for values out of range."""
        for name in SCHEDULED:
            value = getattr(self, name)
            changing = f"{where}: {name} is a function; write Linear(start, end) for what changes over a stage."
            require(not callable(value), changing)
            if value is not None and not isinstance(value, Linear):
                require_number(where, name, value, above=0.0)
        for name in ("ent_coef", "vf_coef"):
            if getattr(self, name) is not None:
                require_number(where, name, getattr(self, name), least=0.0)
        for name in ("max_grad_norm", "target_kl"):
            if getattr(self, name) is not None:
                require_number(where, name, getattr(self, name), above=0.0)
        for name, least in (("n_epochs", 1), ("batch_size", 2)):
            if getattr(self, name) is not None:
                require_int(where, name, getattr(self, name), least)

    def given(self) -> dict[str, Any]:
        """Return the settings that are not `None`."""
        names = [f.name for f in fields(Hyperparameters)]
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


PPO_ONLY = ("clip_range", "clip_range_vf", "n_epochs", "batch_size", "target_kl")
_DEFAULTS: dict[str, dict[str, Any]] = {
    "PPO": {
        "learning_rate": 3e-4,
        "ent_coef": 0.0,
        "vf_coef": 0.5,
        "max_grad_norm": 0.5,
        "clip_range": 0.2,
        "n_epochs": 10,
        "batch_size": 256,
    },
    "A2C": {"learning_rate": 7e-4, "ent_coef": 0.0, "vf_coef": 0.5, "max_grad_norm": 0.5},
}
_STEPS = {"PPO": 128, "A2C": 8}


@serializable
@refusing_unknown()
@dataclass(frozen=True)
class Agent(Hyperparameters):
    """The learner's algorithm and network, and the settings that all stages share.

    Args:
        algorithm: `"PPO"` (arXiv:1707.06347) or `"A2C"` (arXiv:1602.01783), as stable-baselines3 implements them.
        policy: stable-baselines3's policy: `"MlpPolicy"` for vectors, `"CnnPolicy"` for images, `"MultiInputPolicy"`
            for dictionaries.
        network: Units of the hidden layers, of actor and critic each.
        activation: Of the hidden layers.
        n_envs: Copies of the environment.
        n_steps: Steps per copy between two updates; `None` stands for 128 (PPO) or 8 (A2C).
        gamma: Discount.
        gae_lambda: Of generalised advantage estimation; `None` stands for 0.95 (PPO) or 1.0 (A2C).
        normalize_observations: Standardise observations by running statistics that live inside the policy. An input
            that has never varied counts as 0.
        normalize_rewards: Scale rewards by the running standard deviation of the discounted return, afresh in each
            stage.
        log_std_init: Initial log standard deviation of a continuous policy, as a share of half an action's range.
        action_mode: How actions are chosen wherever the policy is judged: gates, evaluations and reports alike.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"` or `"auto"`. Small networks are fastest on the CPU.
        threads: CPU threads of torch and NumPy. `None` stands for 1, with which small networks are fastest, and for
            torch's own choice with `"CnnPolicy"`. Another number gives other last bits.
        engine: What computes fine-tuning's actions and gradients: `"torch"`, for any policy, to the last bit as
            stable-baselines3 does; `"numpy"`, several times faster for small networks of vectors on the CPU, with
            random draws of its own; or `"auto"`, which chooses and says why. The network is the same.

    See `Hyperparameters` for the settings that a stage may override.
    """

    algorithm: Literal["PPO", "A2C"] = "PPO"
    _: KW_ONLY
    policy: Literal["MlpPolicy", "CnnPolicy", "MultiInputPolicy"] = "MlpPolicy"
    network: tuple[int, ...] = (64, 64)
    activation: Literal["tanh", "relu"] = "tanh"
    n_envs: int = 16
    n_steps: int | None = None
    gamma: float = 0.99
    gae_lambda: float | None = None
    normalize_observations: bool = False
    normalize_rewards: bool = False
    log_std_init: float = 0.0
    action_mode: Literal["stochastic", "deterministic"] = "stochastic"
    device: str = "cpu"
    threads: int | None = None
    engine: Literal["auto", "torch", "numpy"] = "auto"

    def __post_init__(self) -> None:
        """Refuse settings that are out of range or do not fit the algorithm."""
        where = "Agent"
        settle(self)
        refuse_unknown_algorithm(self.algorithm, list(_DEFAULTS))
        require_choice(where, "algorithm", self.algorithm, _DEFAULTS)
        require_choice(where, "policy", self.policy, ["MlpPolicy", "CnnPolicy", "MultiInputPolicy"])
        require_choice(where, "activation", self.activation, ["tanh", "relu"])
        require_choice(where, "action_mode", self.action_mode, ["stochastic", "deterministic"])
        require_choice(where, "engine", self.engine, ["auto", "torch", "numpy"])
        require_int(where, "n_envs", self.n_envs)
        if self.n_steps is not None:
            require_int(where, "n_steps", self.n_steps, least=2)
        require_number(where, "gamma", self.gamma, above=0.0, most=1.0)
        if self.gae_lambda is not None:
            require_number(where, "gae_lambda", self.gae_lambda, least=0.0, most=1.0)
        require_bool(where, "normalize_observations", self.normalize_observations)
        require_bool(where, "normalize_rewards", self.normalize_rewards)
        require_number(where, "log_std_init", self.log_std_init)
        listed = isinstance(self.network, tuple)
        require(listed, f"{where}: network is {self.network!r}; give a list, which is for actor and critic each.")
        for units in self.network:
            require_int(where, "a layer of network", units)
        device_ok = isinstance(self.device, str) and re.fullmatch(r"auto|(cpu|cuda|mps)(:\d+)?", self.device)
        require(bool(device_ok), f"{where}: device is {self.device!r}; give 'cpu', 'cuda', 'cuda:1', 'mps' or 'auto'.")
        if self.threads is not None:
            require_int(where, "threads", self.threads)
        self.check(where)
        refuse_ppo_only(where, self, self.algorithm)

    @property
    def steps_per_copy(self) -> int:
        """Steps per copy between two updates."""
        return self.n_steps if self.n_steps is not None else _STEPS[self.algorithm]

    @property
    def rollout_steps(self) -> int:
        """Environment steps, over all copies, between two updates."""
        return self.n_envs * self.steps_per_copy

    @property
    def trace_decay(self) -> float:
        """The lambda of generalised advantage estimation."""
        return self.gae_lambda if self.gae_lambda is not None else {"PPO": 0.95, "A2C": 1.0}[self.algorithm]

    def settings(self, overrides: Hyperparameters | None = None) -> dict[str, Any]:
        """Return the hyper-parameters in force: the algorithm's defaults, then the agent's, then a stage's."""
        return {**_DEFAULTS[self.algorithm], **self.given(), **(overrides.given() if overrides else {})}


def refuse_ppo_only(where: str, settings: Hyperparameters, algorithm: str) -> None:
    """Refuse settings that A2C would silently ignore."""
    extra = [name for name in PPO_ONLY if getattr(settings, name) is not None]
    require(
        algorithm == "PPO" or not extra,
        f"{where}: {', '.join(extra)} belong to PPO, and the algorithm is {algorithm}; leave them out.",
    )
