"""The command line, run in this process."""

import sys
from dataclasses import dataclass

from rlstages.cli import main


@dataclass
class Outcome:
    code: int
    out: str
    err: str
    error: BaseException | None = None


class Commands:
    """Runs commands and keeps what they print."""

    def __init__(self, monkeypatch, capsys):
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *arguments):
        self.monkeypatch.setattr(sys, "argv", ["rlstages", *map(str, arguments)])
        self.capsys.readouterr()
        code, told = 0, None
        try:
            main()
        except SystemExit as error:
            code, told = error.code or 0, error.__context__
        printed = self.capsys.readouterr()
        return Outcome(code, printed.out, printed.err, told)
