"""What all tests share: one torch thread, a home of their own, and no module left behind by a curriculum file."""

import sys
import warnings

import pytest
import torch
from hypothesis import HealthCheck, settings

from rlstages.specs import references

torch.set_num_threads(1)

# The same examples every time and no clock, so that a red suite means a change, on a busy machine too; `make soak`
# searches with others (--hypothesis-profile=search).
patient = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("steady", derandomize=True, database=None, **patient)
settings.register_profile("search", derandomize=False, print_blob=True, **patient)
settings.load_profile("steady")


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory, monkeypatch):
    """Keep whatever writes to the home directory, or looks for keys in it, away from the real one."""
    home = tmp_path_factory.mktemp("home")
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(home))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_DATA_DIR", str(home))


@pytest.fixture(autouse=True)
def forgets_curriculum_files(monkeypatch):
    """Let two tests use files of the same name."""
    monkeypatch.setattr(references, "_SOURCES", {})
    before = set(sys.modules)
    yield
    for name in set(references._SOURCES) - before:
        sys.modules.pop(name, None)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A directory of the test's own to work in, so that `runs/` lands there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def box2d():
    """Box2D, or a skipped test."""
    with warnings.catch_warnings():
        # SWIG's wrappers warn when they are loaded, on the Python versions that know the warning.
        warnings.simplefilter("ignore", DeprecationWarning)
        return pytest.importorskip("Box2D")
