"""The command line. Nothing heavy is imported before a command runs, so `rlstages --help` is quick."""

from __future__ import annotations

import atexit
import gc
import os
import sys

from rlstages.errors import ExitCode


def main() -> None:
    """Run the command line; an input error becomes one sentence and exit code 2."""
    from rlstages.cli.app import app
    from rlstages.environments.watchdog import watching
    from rlstages.errors import Fault, InputError
    from rlstages.experiments.jobs import end_with_launcher

    end_with_launcher()
    # At its end the interpreter would look for garbage among all that torch has made, for half a second.
    atexit.register(gc.freeze)
    try:
        with watching():
            app()
    except InputError as error:
        _stop(f"{error.trace}error: {error}", ExitCode.INPUT)
    except Fault as error:
        _stop(f"{error.trace}stopped: {error}", ExitCode.FAULT)
    except BrokenPipeError:
        # The reader of our output, such as head, has gone: that is its right.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _stop(f"stopped: {place}{error.strerror or error}.", ExitCode.FAULT)


def _stop(sentence: str, code: int) -> None:
    print(sentence, file=sys.stderr)
    sys.exit(code)
