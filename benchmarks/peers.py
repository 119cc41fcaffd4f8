"""Other libraries beside stable-baselines3 and the engines, interleaved in one run.

    taskset -c 0 python benchmarks/peers.py [--quick | --tasks Pendulum] [--json]

The same environment, network (two hidden layers of 64, tanh), batches, epochs and settings as in
benchmarks/throughput.py, one rollout and its update a turn. `learned` is the mean return of 20 episodes of the
likeliest actions after all turns, played outside the time: a loop that computes fast and learns nothing would show
there. The peers want packages that have no place among the project's; from the project's root:

    python3 -m venv /tmp/peers
    /tmp/peers/bin/pip install -c constraints.txt -r benchmarks/requirements-peers.txt -e .
    /tmp/peers/bin/pip install --no-deps imitation==1.0.1

A peer whose packages are missing is skipped, and named. torch and NumPy use one thread; `taskset` keeps XLA's on one
core too. Programs are compiled in two turns before those that count.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from dataclasses import replace
from importlib import import_module
from types import ModuleType

from scoring import mean_return
from throughput import (
    BASE,
    BATCHED,
    CONFIGURATIONS,
    ENVIRONMENTS,
    Contender,
    Row,
    Settings,
    batched,
    installed,
    ours,
    show,
    stock,
    take_turns,
)

from rlstages import Environment
from rlstages.environments.make import make_vec_env
from rlstages.environments.seeding import Purpose
from rlstages.reproducibility import limited_threads

TASKS = ["CartPole", "Pendulum", "Hopper"]
PEERS = {
    "SBX": "sbx",
    "CleanRL-style": "peer_cleanrl",
    "tianshou": "peer_tianshou",
    "skrl": "peer_skrl",
    "PureJaxRL-style": "peer_xla",
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few turns, CartPole only")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--turns", type=int, default=0, help="turns of each contender (default 15, quick 3)")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: where others use the machine")
    arguments = parser.parse_args()
    turns = arguments.turns or (3 if arguments.quick else 15)
    clock = time.perf_counter if arguments.clock == "wall" else time.process_time
    libraries = installed_peers()
    rows: list[Row] = []
    with limited_threads(1):
        for environment in TASKS[:1] if arguments.quick else installed(arguments.tasks):
            for configuration, settings in CONFIGURATIONS.items():
                spec = ENVIRONMENTS[environment]
                contenders = own(environment, settings)
                contenders |= {
                    name: peer(module, spec, settings)
                    for name, module in libraries.items()
                    # The program needs an environment that is written in JAX, and has not all of them.
                    if spec.id in getattr(module, "TASKS", [spec.id])
                }
                found = take_turns(environment, configuration, contenders, settings, turns, clock)
                test = make_vec_env(spec, 20, 0, 0, Purpose.EVALUATION)
                rows += [replace(row, learned=mean_return(contenders[row.contender].act, test)) for row in found]
                test.close()
    show(rows, arguments.json)


def own(environment: str, settings: Settings) -> dict[str, Contender]:
    """Return stable-baselines3 and the engines."""
    spec = ENVIRONMENTS[environment]
    contenders = {BASE: stock(spec, settings)}
    contenders |= {engine: ours(spec, settings, engine) for engine in ("torch", "numpy")}
    if environment in BATCHED:
        contenders["numpy, batched"] = ours(spec, settings, "numpy", batched(environment, settings["n_envs"]))
    return contenders


def installed_peers() -> dict[str, ModuleType]:
    """Return the peers whose packages are installed, and name the others."""
    found = {}
    for name, module in PEERS.items():
        try:
            found[name] = import_module(module)
        except ModuleNotFoundError as error:
            print(f"{name} is skipped: there is no module {error.name!r}; see --help.", file=sys.stderr)
    return found


def peer(module: ModuleType, spec: Environment, settings: Settings) -> Contender:
    """Return a peer; SBX has stable-baselines3's own methods."""
    return stock(spec, settings, make=module.PPO) if module.__name__ == "sbx" else module.contender(spec, settings)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main()
