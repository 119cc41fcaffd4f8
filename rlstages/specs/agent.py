"""The learner's algorithm and network, and the settings that stages share, as frozen data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from typing import Any, Literal

from rlstages.errors import require
from rlstages.specs.algorithms.base import AlgorithmSpec, algorithm_named, owner_of, refuse_foreign
from rlstages.specs.algorithms.ppo import PPO
from rlstages.specs.plain import settle
from rlstages.specs.serialization import serializable
from rlstages.specs.settings import about, check_settings, documented, per_stage
from rlstages.specs.unknown import refusing_unknown


def _fold(cls: type, given: dict[str, Any]) -> dict[str, Any]:
    """Put settings of the algorithm that were given to the agent where they belong: into the algorithm."""
    own = {spec_field.name for spec_field in fields(cls)}
    folded = [name for name in given if name not in own and owner_of(name, stages=False) is not None]
    named = given.get("algorithm", "PPO")
    algorithm = named if isinstance(named, AlgorithmSpec) else algorithm_named(named)()
    settings = {name: given[name] for name in given if name in folded and given[name] is not None}
    refuse_foreign("Agent", type(algorithm), settings)
    kept = {name: value for name, value in given.items() if name not in folded}
    return {**kept, "algorithm": replace(algorithm, **settings)}  # type: ignore[type-var]


@serializable
@refusing_unknown(fold=_fold, also=[setting.name for setting in fields(PPO)])
@documented
@dataclass(frozen=True)
class Agent:
    """The learner's algorithm and network, and the settings that all stages share.

    `Agent("A2C", n_steps=16)` is short for `Agent(A2C(n_steps=16))`.
    """

    algorithm: Any = field(
        default=PPO(),
        metadata=about(
            'The algorithm with its settings, such as `PPO(n_steps=256)`, or its name for the defaults: `"PPO"`, '
            '`"A2C"`, or one that an installed package adds.'
        ),
    )
    _: KW_ONLY
    policy: Literal["MlpPolicy", "CnnPolicy", "MultiInputPolicy"] = field(
        default="MlpPolicy",
        metadata=about(
            "stable-baselines3's policy: `MlpPolicy` for vectors, `CnnPolicy` for images, `MultiInputPolicy` for "
            "dictionaries."
        ),
    )
    network: tuple[int, ...] = field(
        default=(64, 64), metadata=about("Units of the hidden layers, of actor and critic each.", least=1)
    )
    activation: Literal["tanh", "relu"] = field(
        default="tanh", metadata=about("Activation function of the hidden layers.")
    )
    n_envs: int = field(default=16, metadata=about("Environments that are stepped side by side.", least=1))
    normalize_observations: bool = field(
        default=False,
        metadata=about(
            "Standardise observations by running statistics that live inside the policy. An input that has never "
            "varied counts as 0."
        ),
    )
    normalize_rewards: bool = field(
        default=False,
        metadata=about(
            "Scale rewards by the running standard deviation of the discounted return, afresh in each stage."
        ),
    )
    log_std_init: float = field(
        default=0.0,
        metadata=about("Initial log standard deviation of a continuous policy, as a share of half an action's range."),
    )
    action_mode: Literal["stochastic", "deterministic"] = field(
        default="stochastic",
        metadata=about("How actions are chosen wherever the policy is judged: gates, evaluations and reports alike."),
    )
    device: str = field(
        default="cpu",
        metadata=about("`cpu`, `cuda`, `cuda:1`, `mps` or `auto`. Small networks are fastest on the CPU."),
    )
    threads: int | None = field(
        default=None,
        metadata=about(
            "CPU threads of torch and NumPy. `None` stands for 1, with which small networks are fastest, and for "
            "torch's own choice with `CnnPolicy`. Another number gives other last bits.",
            least=1,
        ),
    )
    engine: Literal["auto", "torch", "numpy"] = field(
        default="auto",
        metadata=about(
            "What computes the actions and gradients of PPO and A2C: `torch`, for any policy, to the last bit as "
            "stable-baselines3 does; `numpy`, several times faster for small networks of vectors on the CPU, with "
            "random draws of its own; or `auto`, which chooses and says why. The network is the same."
        ),
    )

    def __post_init__(self) -> None:
        """Refuse settings that are out of range or do not fit the algorithm."""
        where = "Agent"
        settle(self)
        known = isinstance(self.algorithm, AlgorithmSpec)
        sentence = f"Agent: algorithm is {self.algorithm!r}; give a name, or settings such as PPO(n_steps=256)."
        require(known, sentence, "setting-type", "Agent", "algorithm", self.algorithm)
        listed = isinstance(self.network, tuple)
        sentence = f"{where}: network is {self.network!r}; give a list, which is for actor and critic each."
        require(listed, sentence, "setting-type", where, "network", self.network)
        check_settings(where, self)
        device_ok = isinstance(self.device, str) and re.fullmatch(r"auto|(cpu|cuda|mps)(:\d+)?", self.device)
        sentence = f"{where}: device is {self.device!r}; give 'cpu', 'cuda', 'cuda:1', 'mps' or 'auto'."
        require(bool(device_ok), sentence, "choice-unknown", where, "device", self.device)

    @property
    def rollout_steps(self) -> int:
        """Environment steps, over all environments, between two updates."""
        spec: AlgorithmSpec = self.algorithm
        return spec.steps_between_updates(self.n_envs)

    def settings(self, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the algorithm's settings that stages may change, as they are in force: a stage's, or the agent's."""
        spec: AlgorithmSpec = replace(self.algorithm, **(overrides or {}))
        found = {name: getattr(spec, name) for name in per_stage(type(spec))}
        return {name: value for name, value in found.items() if value is not None}
