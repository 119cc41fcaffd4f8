"""The command line, run in this process."""

import sys
from dataclasses import dataclass

from rlstages.cli import main


@dataclass
class Outcome:
    code: int
    out: str
    err: str


class Commands:
    """Runs commands and keeps what they print."""

    def __init__(self, monkeypatch, capsys):
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *arguments):
        self.monkeypatch.setattr(sys, "argv", ["rlstages", *map(str, arguments)])
        self.capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as error:
            code = error.code or 0
        printed = self.capsys.readouterr()
        return Outcome(code, printed.out, printed.err)
