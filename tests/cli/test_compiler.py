"""torch's compiler stays out of a run, and is what it always was to those who use it."""

import subprocess
import sys

import pytest
from building import surroundings

LEARNER = """
import sys
from building import echo, learner_for
from rlstages.cli.compiler import leave_compiler_out
from rlstages.learners.optimizers import optimizer_state, load_optimizer_state
leave_compiler_out()
learner = learner_for(echo())
learner.algorithm.rebuild_optimizers()
load_optimizer_state(learner.policy.optimizer, optimizer_state(learner.policy.optimizer))
assert "torch._dynamo" not in sys.modules
"""
COMPILING = """
import torch, torch._dynamo
method = torch.optim.Optimizer.state_dict.__wrapped__
stand_in = vars(method).get("__dynamo_disable")
assert learner.policy.optimizer.state_dict()["param_groups"]
assert vars(method).get("__dynamo_disable") is not stand_in
assert learner.policy.optimizer.state_dict()["param_groups"]
compiled = torch.compile(lambda x: 2 * x, backend="eager")
assert compiled(torch.ones(2)).tolist() == [2.0, 2.0]
"""


@pytest.mark.slow
@pytest.mark.parametrize("more", ["", COMPILING], ids=["left out", "then used"])
def test_optimisers_are_made_saved_and_loaded_without_torchs_compiler(tmp_path, more):
    done = subprocess.run(
        [sys.executable, "-c", LEARNER + more], env=surroundings(tmp_path), capture_output=True, text=True, timeout=120
    )

    assert done.returncode == 0, done.stderr
