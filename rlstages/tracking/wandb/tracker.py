"""What a training has to do with W&B: it starts the process that copies the event log, and hears where the run is."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from rlstages.errors import InputError
from rlstages.events import Event
from rlstages.specs.serialization import dumps, loads
from rlstages.storage.record import shell_path
from rlstages.storage.untrusted import read_bytes
from rlstages.tracking.wandb.session import saved_settings

FINISH_SECONDS = 20.0
INIT_SECONDS = 15.0
# The mirror's working directory is the run directory, which may be a stranger's: no module is taken from there.
_COMMAND = "import sys; del sys.path[0]; from rlstages.tracking.wandb.mirror import main; main()"
# What the mirror needs between its own end and the moment when it would be killed.
_TO_DIE_SECONDS = 2.0
_warn, _tell = logging.getLogger(__name__).warning, logging.getLogger(__name__).info
_FILE = Path("wandb") / "place.json"
_URL = re.compile(r"https?://[!-~]{1,2000}")
_FOLDER = re.compile(r"wandb/offline-run-[A-Za-z0-9_-]{1,200}")


class WandbTracker:
    """Keeps a process beside the training that copies the event log to W&B; see `wandb_tracker`.

    Attributes:
        mode: `"online"` or `"offline"`, once that is known.
        points: Number of points W&B has, once all is done, else `None`.
        url: Address of the run, if it is online and known.
        failure: Why W&B does not have all of the run, once that is known.
    """

    def __init__(
        self,
        directory: Path,
        mode: Literal["auto", "online", "offline"],
        project: str,
        system: bool,
        code: Sequence[Path],
        warn: Callable[[str], None],
        say: Callable[[str], None],
        init_seconds: float,
        finish_seconds: float,
    ) -> None:
        self.mode = mode
        self.points: int | None = None
        self.url: str | None = None
        self.failure: str | None = None
        self._directory, self._project, self._system, self._code = directory.absolute(), project, system, code
        self._warn, self._say = warn, say
        self._init_seconds, self._finish_seconds = init_seconds, finish_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._started = False
        self._heard = b""

    def __call__(self, event: Event) -> None:
        """Start the process at the first event, and hear what it has to say; never waits for it."""
        if not self._started:
            self._started = True
            self._start()
        self._hear()

    def close(self) -> None:
        """Let the process finish; it is ended when it takes too long."""
        if self._process is None:
            return
        process, deadline = self._process, time.monotonic() + self._finish_seconds
        assert process.stdin is not None and process.stdout is not None
        try:
            self._order(f"{max(self._finish_seconds - _TO_DIE_SECONDS, 0.0)}")
            while process.poll() is None and time.monotonic() < deadline:
                self._hear()
                time.sleep(0.02)
        finally:
            # Its end also ends W&B's service, which watches it.
            process.kill()
            process.wait()
            self._hear()
            process.stdin.close()
            process.stdout.close()
            self._process = None
        if self.points is None:
            late = f"W&B did not take all of this run within {self._finish_seconds:g} seconds"
            self._fail(late if time.monotonic() > deadline - _TO_DIE_SECONDS else "W&B's mirror ended before its time")

    def _start(self) -> None:
        try:
            wanted = {"mode": self.mode, "project": self._project, "init_seconds": self._init_seconds}
            wanted |= {
                "here": os.getcwd(),
                "system": self._system,
                "code": [os.path.abspath(file) for file in self._code],
            }
            self._process = subprocess.Popen(
                [sys.executable, "-c", _COMMAND, json.dumps(wanted)],
                cwd=self._directory,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_variables(),
                # Ctrl-C is for the training alone.
                start_new_session=True,
            )
        except OSError as error:
            self._fail(f"W&B's mirror cannot be started ({error.strerror})")
            return
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    def _order(self, text: str) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), text.encode())
        except BrokenPipeError:
            return

    def _hear(self) -> None:
        for message in self._messages():
            if "warning" in message:
                self._warn(message["warning"])
            elif "failure" in message:
                self._fail(message["failure"])
            elif "mode" in message:
                self.mode, self.url = message["mode"], message["url"]
                for line in place_lines(self._directory):
                    self._say(line)
            else:
                self.points = message["points"]

    def _messages(self) -> Iterator[dict[str, Any]]:
        if self._process is None or self._process.stdout is None:
            return
        try:
            self._heard += os.read(self._process.stdout.fileno(), 65_536)
        except BlockingIOError:
            return
        *lines, self._heard = self._heard.split(b"\n")
        yield from map(json.loads, lines)

    def _fail(self, reason: str) -> None:
        if self.failure is None:
            self.failure = reason
            command = f"rlstages track {shell_path(self._directory)}"
            self._warn(f"{reason}; nothing else changes, and '{command}' makes up for it later.")


def wandb_tracker(
    directory: Path,
    mode: Literal["auto", "online", "offline"],
    *,
    project: str | None = None,
    system: bool = False,
    code: Sequence[Path] = (),
    warn: Callable[[str], None] = _warn,
    say: Callable[[str], None] = _tell,
    init_seconds: float = INIT_SECONDS,
    finish_seconds: float = FINISH_SECONDS,
) -> WandbTracker:
    """Return a tracker that mirrors a run to W&B.

    A process of its own reads `directory/events.jsonl` and does all that has to do with W&B: the tracker never asks for
    anything, never raises, and never waits, but for `finish_seconds` at most when it is closed. When W&B fails, it
    warns once. What W&B has of the run already, from an earlier session, is not sent again; offline, the run is
    written anew. All files are in `directory/wandb`.

    Args:
        directory: Run directory; files named in events are relative to it.
        mode: `"online"`, `"offline"`, or `"auto"`: online where wandb finds a key, which that process asks it.
        project: W&B's project; `None` is what W&B's settings or `WANDB_PROJECT` say, else `"rlstages"`.
        system: Whether what is measured of the machine is sent too.
        code: Files of the curriculum that are sent too.
        warn: Function that takes one sentence for the user.
        say: Function that takes the lines that tell where the run is, once that is known.
        init_seconds: Maximum time in seconds for the first answer of the server.
        finish_seconds: Maximum time in seconds for closing.
    """
    project = project or os.environ.get("WANDB_PROJECT") or saved_settings().get("project") or "rlstages"
    return WandbTracker(directory, mode, project, system, code, warn, say, init_seconds, finish_seconds)


def _variables() -> dict[str, str]:
    """Return the mirror's environment: W&B's settings of this directory count, a service of this process does not."""
    variables = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    said = saved_settings()
    for name in ("base_url", "entity", "api_key"):
        if name in said:
            variables.setdefault(f"WANDB_{name.upper()}", said[name])
    if "WANDB_SWEEP_PARAM_PATH" in variables:
        # A sweep's agent names it from its own directory on.
        variables["WANDB_SWEEP_PARAM_PATH"] = os.path.abspath(variables["WANDB_SWEEP_PARAM_PATH"])
    variables["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    variables.pop("PYTHONSAFEPATH", None)
    return variables


def keep_place(url: str | None, folder: str | None) -> None:
    """Note where the run is whose directory is the working directory: its address, or its folder from there."""
    _FILE.write_text(dumps({"url": url, "folder": folder}))


def place_of(run: Path) -> dict[str, str]:
    """Return the `url` or the offline `folder` (from the run directory on) that W&B has a run in; empty if neither."""
    try:
        said = loads(read_bytes(run / _FILE))
    except (InputError, OSError):
        return {}
    if not isinstance(said, dict):
        return {}
    url, folder = said.get("url"), said.get("folder")
    # Whoever made the run directory may have written anything.
    if isinstance(url, str) and _URL.fullmatch(url):
        return {"url": url}
    if isinstance(folder, str) and _FOLDER.fullmatch(folder) and (run / folder).is_dir():
        return {"folder": folder}
    return {}


def place_lines(run: Path) -> list[str]:
    """Return where W&B has a run, in lines for the user; offline with the command that uploads it."""
    place = place_of(run)
    if "url" in place:
        return [f"W&B: {place['url']}"]
    if "folder" in place:
        # The files of an offline run are named from the run directory on.
        sync = f"(cd {shell_path(run)} && wandb sync {shlex.quote(place['folder'])})"
        return [f"W&B: offline, in {shell_path(run / place['folder'])}", f"Upload it: {sync}"]
    return []
