"""What happens in a run, as typed records: one line each in `events.jsonl`, the record that all trackers read."""

from rlstages.events.checks import (
    BaselinesMeasured,
    ExplorationMeasured,
    HandoverChecked,
    HandoverRecovered,
    LookedBack,
    Retained,
    RetentionMeasured,
    StageCollapsed,
)
from rlstages.events.event import Emit, Event, Follower, Payload, Tracker, require_followers
from rlstages.events.progress import (
    DemonstrationsReady,
    EpochFinished,
    Evaluated,
    Judged,
    RolloutFinished,
    RunFinished,
    RunStarted,
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
    "Follower",
    "ExplorationMeasured",
    "HandoverChecked",
    "HandoverRecovered",
    "Judged",
    "LookedBack",
    "Payload",
    "Retained",
    "RetentionMeasured",
    "RolloutFinished",
    "RunFinished",
    "RunStarted",
    "StageCollapsed",
    "StageFinished",
    "StageStarted",
    "Tracker",
    "Warned",
    "require_followers",
]
