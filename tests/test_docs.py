"""The example of docs/environments.md is a batch like any other, and trains to its end."""

import re
from pathlib import Path

import numpy as np
import pytest

from rlstages import Environment, load_curriculum, train
from rlstages.environments.batched_vec_env import BatchedVecEnv
from rlstages.environments.determinism import doubts_about
from rlstages.environments.make import make_vec_env
from rlstages.environments.monitor import monitor_of

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "environments.md").read_text(encoding="utf-8")


@pytest.fixture
def lines(tmp_path):
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    file = tmp_path / "lines.py"
    file.write_text(block, encoding="utf-8")
    return load_curriculum(str(file))


def test_its_forms_play_the_same_episodes_and_come_back(lines):
    environment = lines.stages[0].environment
    forms = [Environment(environment.id, vectorize=form, **environment.kwargs) for form in ("auto", "in-process")]
    envs = [monitor_of(make_vec_env(form, 4, 0, 0)) for form in forms]
    assert [isinstance(env.venv, BatchedVecEnv) for env in envs] == [True, False]
    np.testing.assert_array_equal(*(env.reset() for env in envs))
    draw = np.random.default_rng(0)
    for _ in range(120):
        actions = draw.integers(0, 2, 4)
        (*told, _), (*others, _) = (env.step(actions) for env in envs)
        np.testing.assert_equal(told, others)
    assert envs[0].take() == envs[1].take() != []
    assert doubts_about(environment) == []


def test_it_trains_to_its_end(lines, here):
    assert train(lines, out="run", seed=0).outcome == "reached"


PATHS = re.compile(r"`((?:rlstages|benchmarks|tests|envs|[a-z_]+)/[a-z_/]+\.py)`")


@pytest.mark.parametrize(
    "page", [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.stem
)
def test_modules_that_a_page_names_are_there(page):
    named = PATHS.findall(page.read_text(encoding="utf-8"))
    assert [path for path in named if not any((ROOT / base / path).exists() for base in (".", "rlstages"))] == []
