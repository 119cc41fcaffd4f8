"""Events: the lines of `events.jsonl`, each a record with its place in the run."""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rlstages.errors import InputError, in_short, require
from rlstages.events.payload import Payload
from rlstages.events.privacy import without_paths
from rlstages.specs.serialization import TAG, dumps, from_data, require_types, to_data

VERSION = 1


@dataclass(frozen=True)
class Event:
    """A record with its place in the run.

    Attributes:
        payload: Record of what happened.
        global_step: Environment steps of the whole run so far.
        stage_index: Index of the stage from 0, or -1 outside all stages.
        stage_name: Name of the stage; empty outside all stages.
        time: Seconds since the epoch.
    """

    payload: Payload
    global_step: int
    stage_index: int = -1
    stage_name: str = ""
    time: float = dataclasses.field(default_factory=time.time)

    def to_json(self) -> str:
        """Return the event as one line of strict JSON; numbers that are not finite become null.

        Absolute paths are cut to their last part: the event log is what is shown, uploaded and passed around.
        """
        payload = without_paths(to_data(self.payload, nan_as_null=True))
        head = {"v": VERSION, "type": payload.pop(TAG), "time": round(self.time, 3), "global_step": self.global_step}
        return dumps({**head, "stage_index": self.stage_index, "stage_name": self.stage_name, **payload})

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> Event:
        """Turn a parsed line back into an event.

        Raises:
            InputError: If the data is not an event, or is of a later version.
        """
        rest = dict(data)
        version = rest.pop("v", None)
        sentence = f"it is of version {version!r}, and this rlstages reads version {VERSION}."
        require(version == VERSION, sentence, "file-damaged", name="v")
        try:
            head = [rest.pop(key) for key in ("global_step", "stage_index", "stage_name", "time")]
            payload = from_data({TAG: rest.pop("type"), **rest})
        except KeyError as error:
            raise InputError(f"it has no {error}.", "file-damaged") from error
        sentence = f"it holds a {type(payload).__name__}, which is no event."
        require(isinstance(payload, Payload), sentence, "file-damaged", name="type")
        event = Event(payload, *head)
        require_types(event)
        return event


@dataclass(frozen=True)
class Pause:
    """The return value of a tracker that pauses the run: it is saved and stopped after the current step.

    Args:
        reason: Reason of the pause in one sentence, which becomes the reason of the run's end.
    """

    reason: str

    def __post_init__(self) -> None:
        said = isinstance(self.reason, str) and bool(self.reason)
        require(
            said,
            f"Pause: the reason is {in_short(self.reason)}; give a sentence.",
            "setting-missing",
            "Pause",
            "reason",
        )


class Tracker(Protocol):
    """Anything that follows a run's events: a console, Weights & Biases, TensorBoard."""

    def __call__(self, event: Event) -> object:
        """Take one event. Returning a `Pause` pauses the run; other values are ignored."""

    def close(self) -> None:
        """Close files and connections; called once."""


Follower = Tracker | Callable[[Event], object]
"""A tracker, or a plain function of an event."""


def require_followers(followers: Any) -> None:
    """Refuse values that cannot be trackers.

    Raises:
        InputError: Saying what it is.
    """
    several = isinstance(followers, Sequence) and not isinstance(followers, str)
    sentence = f"trackers is {in_short(followers)}; give a list of functions that take an event."
    require(several, sentence, "setting-type", name="trackers", value=followers)
    for follower in followers:
        fits = callable(follower) and not isinstance(follower, type) and _takes_one(follower)
        sentence = f"trackers has {in_short(follower)} in it; give a function that takes an event, such as print."
        require(fits, sentence, "setting-type", name="trackers", value=follower)


def _takes_one(follower: Callable[..., Any]) -> bool:
    if inspect.iscoroutinefunction(follower) or inspect.iscoroutinefunction(type(follower).__call__):
        return False
    try:
        inspect.signature(follower).bind(None)
    except TypeError:
        return False
    except ValueError:
        # The signature of some functions in C is unknown.
        pass
    return True


Emit = Callable[[Payload], None]
