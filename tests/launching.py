"""Jobs that run Python code in place of `rlstages`, as quick as a process can be."""

import sys
from dataclasses import dataclass

from rlstages.experiments.jobs import Job


@dataclass(frozen=True)
class Script(Job):
    """Its one argument is the code."""

    @property
    def command(self):
        return [sys.executable, "-c", *self.arguments]


def script(where, name, code, **more):
    return Script(name, (code,), where / "logs" / f"{name}.txt", **more)
