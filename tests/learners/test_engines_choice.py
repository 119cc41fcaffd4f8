"""Which engine an agent gets, and what is said of it."""

import numpy as np
import pytest
from building import curriculum, echo, payloads, tuning
from gymnasium import spaces
from refusing import refused

from rlstages import Agent, train
from rlstages.events import RunStarted
from rlstages.learners.algorithms.on_policy.choice import choose_engine

VECTOR, IMAGE = spaces.Box(-1.0, 1.0, (3,), np.float32), spaces.Box(0, 255, (36, 36, 3), np.uint8)
TWO = spaces.Discrete(2)
OBSTACLES = [
    ({"policy": "CnnPolicy"}, IMAGE, TWO, "CnnPolicy"),
    ({"policy": "MultiInputPolicy"}, spaces.Dict({"goal": VECTOR}), TWO, "MultiInputPolicy"),
    ({}, IMAGE, TWO, "images"),
    ({}, spaces.MultiBinary(3), TWO, "observations of MultiBinary(3)"),
    ({}, VECTOR, spaces.MultiBinary(3), "actions of MultiBinary(3)"),
    ({"device": "meta"}, VECTOR, TWO, "the device meta"),
]


@pytest.mark.parametrize(("settings", "sees", "acts", "name"), OBSTACLES, ids=[case[-1] for case in OBSTACLES])
def test_what_numpy_does_not_serve_falls_back_to_torch_or_is_refused(monkeypatch, settings, sees, acts, name):
    device = settings.pop("device", None)
    agents = {engine: Agent(engine=engine, **settings) for engine in ("auto", "numpy", "torch")}
    if device:
        # This machine has none other.
        for who in agents.values():
            object.__setattr__(who, "device", device)

    assert str(choose_engine(agents["auto"], sees, acts)) == f"torch (for {name})"
    assert choose_engine(agents["torch"], sees, acts).name == "torch"
    with refused("setting-conflict", where="Agent", name="engine") as told:
        choose_engine(agents["numpy"], sees, acts)
    assert name in str(told.value)


@pytest.mark.parametrize("sees", [VECTOR, spaces.Discrete(5)], ids=str)
@pytest.mark.parametrize("acts", [TWO, spaces.MultiDiscrete([2, 3]), VECTOR], ids=str)
@pytest.mark.parametrize("algorithm", ["PPO", "A2C"])
def test_small_networks_of_vectors_are_numpys(sees, acts, algorithm):
    assert str(choose_engine(Agent(algorithm), sees, acts)) == "numpy (for small layers on the CPU)"


def test_wide_layers_are_torchs_unless_numpy_is_asked_for():
    wide = {"network": (64, 1024)}

    assert str(choose_engine(Agent(**wide), VECTOR, TWO)) == "torch (for layers of 1024 units)"
    assert choose_engine(Agent(engine="numpy", **wide), VECTOR, TWO).name == "numpy"


def test_an_unknown_engine_is_refused():
    with refused("choice-unknown", where="Agent", name="engine"):
        Agent(engine="nunpy")


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_a_run_says_what_computes_it(here, capsys, engine):
    stage = tuning(max_steps=640, critic_fit_steps=0, evaluation_episodes=0)
    result = train(curriculum(stage, engine=engine), console=True)

    assert [started.engine for started in payloads(result.path, RunStarted)] == [f"{engine} (as the agent says)"]
    assert f"engine {engine} (as the agent says)" in capsys.readouterr().out


def test_an_engine_that_cannot_serve_is_refused_before_the_first_step(here):
    stage = tuning(environment=echo(acts="multibinary"))

    with refused("setting-conflict", where="Agent", name="engine"):
        train(curriculum(stage, engine="numpy"))
    assert not list(here.iterdir())
