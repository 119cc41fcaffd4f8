"""The learner's algorithm and network, and the settings that stages share, as frozen data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import Any, Literal

from rlstages.errors import require
from rlstages.specs.algorithms.base import AlgorithmSpec, algorithm_named, refuse_foreign, split_settings
from rlstages.specs.algorithms.ppo import PPO
from rlstages.specs.plain import settle
from rlstages.specs.serialization import serializable
from rlstages.specs.settings import check_settings, documented, per_stage, setting
from rlstages.specs.unknown import refusing_unknown


def _fold(cls: type, given: dict[str, Any]) -> dict[str, Any]:
    """Move settings of the algorithm that were given to the agent into the algorithm."""
    kept, settings = split_settings(cls, given, stages=False)
    named = given.get("algorithm", "PPO")
    algorithm = named if isinstance(named, AlgorithmSpec) else algorithm_named(named)()
    refuse_foreign("Agent", type(algorithm), settings)
    return {**kept, "algorithm": replace(algorithm, **settings)}  # type: ignore[type-var]


@serializable
@refusing_unknown(fold=_fold, also=[setting.name for setting in fields(PPO)])
@documented
@dataclass(frozen=True)
class Agent:
    """The learner's algorithm and network, and the settings that all stages share.

    `Agent("A2C", n_steps=16)` is short for `Agent(A2C(n_steps=16))`.
    """

    algorithm: Any = setting(
        PPO(),
        'Algorithm with its settings, such as `PPO(n_steps=256)`, or its name for the defaults: `"PPO"`, '
        '`"A2C"`, or one that an installed package adds.',
    )
    _: KW_ONLY
    policy: Literal["MlpPolicy", "CnnPolicy", "MultiInputPolicy"] = setting(
        "MlpPolicy",
        "Policy class of stable-baselines3: `MlpPolicy` for vectors, `CnnPolicy` for images, "
        "`MultiInputPolicy` for dictionaries.",
    )
    network: tuple[int, ...] = setting(
        (64, 64), "Sizes of the hidden layers, which actor and critic each have.", least=1
    )
    activation: Literal["tanh", "relu"] = setting("tanh", "Activation function of the hidden layers.")
    n_envs: int = setting(16, "Number of parallel environments.", least=1)
    normalize_observations: bool = setting(
        False,
        "Whether to standardise observations with running statistics, which are part of the policy. An input "
        "that has never varied counts as 0.",
    )
    normalize_rewards: bool = setting(
        False,
        "Whether to divide rewards by the running standard deviation of the discounted return. Each stage "
        "begins with new statistics.",
    )
    log_std_init: float = setting(
        0.0, "Initial log standard deviation of a continuous policy, for actions scaled to [-1, 1]."
    )
    action_mode: Literal["stochastic", "deterministic"] = setting(
        "stochastic", "How actions are chosen whenever the policy is judged: in gates, evaluations and reports."
    )
    device: str = setting("cpu", "`cpu`, `cuda`, `cuda:1`, `mps` or `auto`. Small networks are fastest on the CPU.")
    threads: int | None = setting(
        None,
        "CPU threads of torch and NumPy. `None` means 1, which is fastest for small networks, and with "
        "`CnnPolicy` torch's own choice. Another number changes the last bits of the results.",
        least=1,
    )
    engine: Literal["auto", "torch", "numpy"] = setting(
        "auto",
        "Engine that computes actions and gradients of PPO and A2C. `torch` supports every policy and equals "
        "stable-baselines3 bit for bit. `numpy` is several times faster for small networks on vector "
        "observations on the CPU, and draws other random numbers. `auto` chooses one and says why. The network "
        "is the same.",
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
        """Number of environment steps between two updates, over all environments."""
        spec: AlgorithmSpec = self.algorithm
        return spec.steps_between_updates(self.n_envs)

    def settings(self, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the current values of the algorithm's settings that stages may change.

        Args:
            overrides: Settings of a stage, which replace the agent's.
        """
        spec: AlgorithmSpec = replace(self.algorithm, **(overrides or {}))
        found = {name: getattr(spec, name) for name in per_stage(type(spec))}
        return {name: value for name, value in found.items() if value is not None}
