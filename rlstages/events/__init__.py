"""The events of a run, as typed records: one line each in `events.jsonl`, which all trackers read."""

from rlstages.events.checks import (
    BaselinesMeasured,
    ExplorationMeasured,
    HandoverChecked,
    HandoverRecovered,
    LookedBack,
    Retained,
    RetentionMeasured,
)
from rlstages.events.event import Emit, Event, Follower, Pause, Tracker, require_followers
from rlstages.events.learning import DemonstrationsReady, EpochFinished, Evaluated, Judged, RolloutFinished
from rlstages.events.payload import Payload
from rlstages.events.progress import (
    RunFinished,
    RunStarted,
    StageCollapsed,
    StageEnd,
    StageFinished,
    StageStarted,
    Warned,
)

__all__ = [
    "BaselinesMeasured",
    "DemonstrationsReady",
    "Emit",
    "EpochFinished",
    "Evaluated",
    "Event",
    "ExplorationMeasured",
    "Follower",
    "HandoverChecked",
    "HandoverRecovered",
    "Judged",
    "LookedBack",
    "Pause",
    "Payload",
    "Retained",
    "RetentionMeasured",
    "RolloutFinished",
    "RunFinished",
    "RunStarted",
    "StageCollapsed",
    "StageEnd",
    "StageFinished",
    "StageStarted",
    "Tracker",
    "Warned",
    "require_followers",
]
