"""`rlstages demos record` and `rlstages demos inspect`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from rlstages.demonstrations.episodes import Demonstrations, load_demonstrations
from rlstages.demonstrations.told import ENDS
from rlstages.errors import require
from rlstages.specs.environment import Environment
from rlstages.specs.expert import Expert
from rlstages.specs.references import load_file
from rlstages.specs.serialization import to_data
from rlstages.storage.checkpoints import make_parent


def record_demonstrations(
    environment: str,
    expert: str,
    out: Path,
    episodes: int,
    seed: int,
    arguments: Mapping[str, str],
    trust_pickle: bool,
) -> None:
    """Record an expert's episodes, and write the file."""
    sentence = f"--out is {out.name}; give a name that ends in .safetensors."
    require(out.suffix == ".safetensors", sentence, "option-invalid", name="--out", value=out.name)
    require(not out.exists(), f"{out} is there already; give another --out.", "out-taken", out)
    make_parent(out)
    from stable_baselines3.common.utils import set_random_seed

    from rlstages.environments.determinism import doubt_about_seeds
    from rlstages.environments.make import make_environment
    from rlstages.environments.statistics import refuse_running_statistics
    from rlstages.play.experts import showing
    from rlstages.play.recording import record
    from rlstages.reproducibility import one_at_a_time

    where = Environment(_named(environment), kwargs={name: _value(text) for name, text in arguments.items()})
    who = Expert(_named(expert), episodes=episodes)
    with one_at_a_time("the recording of demonstrations"):
        with closing(make_environment(where)) as env:
            refuse_running_statistics(where, env)
        # What the environment or the expert draws from the global generators, as a run with this seed would have it.
        set_random_seed(seed)
        shown = record(where, who, showing(who, trust_pickle=trust_pickle), seed)
        doubt = doubt_about_seeds(where)
    digest = shown.save(out)
    if doubt is not None:
        print(f"warning: {doubt}", file=sys.stderr)
    print(f"{out}: {shown.score()}, sha256 {digest[:12]}")


def inspect_demonstrations(file: Path, as_json: bool) -> None:
    """Print the contents of a file."""
    shown = load_demonstrations(file)
    lengths = [len(episode) for episode in shown.episodes]
    returns = [episode.total_reward for episode in shown.episodes]
    facts: dict[str, Any] = {
        "episodes": len(shown),
        "steps": shown.steps,
        "length": {"least": min(lengths), "median": float(np.median(lengths)), "most": max(lengths)},
        "return": {"least": min(returns), "median": float(np.median(returns)), "most": max(returns)},
        "ends": {name: sum(bool(getattr(episode, name)) for episode in shown.episodes) for name in ENDS},
        "arrays": _arrays(shown),
        "score": to_data(shown.score(), nan_as_null=True),
    }
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    print(f"{file}: {shown.score()}, {shown.steps:,} steps")
    for name in ("length", "return"):
        print(f"  {name}: {', '.join(f'{key} {value:.4g}' for key, value in facts[name].items())}")
    if any(facts["ends"].values()):
        print(f"  ends: {', '.join(f'{count} {name}' for name, count in facts['ends'].items())}")
    for name, text in facts["arrays"].items():
        print(f"  {name}: {text}")


def _arrays(shown: Demonstrations) -> dict[str, str]:
    observations, actions = shown.transitions()
    parts = observations if isinstance(observations, dict) else {"": observations}
    named = {f"observations {key}".strip(): array for key, array in parts.items()} | {"actions": actions}
    return {
        name: f"{array.dtype} {array.shape[1:]}, from {array.min():.4g} to {array.max():.4g}"
        for name, array in named.items()
    }


def _named(text: str) -> str:
    """Import FILE.py of FILE.py:name, and return the reference `module:name`."""
    path, colon, name = text.rpartition(":")
    return f"{load_file(Path(path)).__name__}:{name}" if colon and path.endswith(".py") else text


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
