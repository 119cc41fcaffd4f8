"""Forks sessions of training, so that each starts at once: what is slow to import is imported before.

It reads a line of JSON for each session and answers with the process id of the child, then with its exit status.
"""

import json
import os
import sys

import ladders
import torch
from imitation.algorithms import bc  # noqa: F401

import rlstages_envs  # noqa: F401
from rlstages import resume, train
from rlstages.training import trainer


def session(task):
    trainer.CHECKPOINT_SECONDS = task["checkpoint_seconds"]
    if task["command"] == "train":
        train(ladders.ladder(ladders.Case(**task["case"])), seed=3, out=task["run"])
    else:
        resume(task["run"])


def main():
    torch.set_num_threads(1)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            # Whatever the session prints must not be taken for an answer.
            os.dup2(2, 1)
            session(json.loads(line))
            sys.stderr.flush()
            os._exit(0)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(status, flush=True)


if __name__ == "__main__":
    main()
