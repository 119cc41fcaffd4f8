"""Runs the W&B tracker over events as the trainer would: each is a line of the event log first."""

from rlstages.tracking.wandb.tracker import wandb_tracker


def write(directory, events):
    (directory / "events.jsonl").write_text("".join(event.to_json() + "\n" for event in events))


def follow(directory, events, mode="offline", **options):
    """Return what the tracker warned of."""
    said = []
    tracker = wandb_tracker(directory, mode, warn=said.append, **options)
    (directory / "events.jsonl").write_text("")
    with (directory / "events.jsonl").open("a") as log:
        for event in events:
            log.write(event.to_json() + "\n")
            log.flush()
            tracker(event)
    tracker.close()
    return said


def logs(directory):
    return sorted((directory / "wandb").glob("*run-*/run-*.wandb"))
