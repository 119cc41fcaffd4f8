"""Many processes want one run directory at the same instant; prints who got it, and how soon it was free again.

Each is a fork that waits for a pipe to close, tries, and says what it got. The winner is then killed.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from rlstages.errors import InputError
from rlstages.storage.run_directory import RunDirectory


def attempt(run, gate, answers):
    os.read(gate, 1)
    try:
        RunDirectory(run)
        answer = {"pid": os.getpid(), "won": True}
    except InputError as error:
        answer = {"pid": os.getpid(), "won": False, "said": str(error)}
    os.write(answers, json.dumps(answer).encode() + b"\n")
    if answer["won"]:
        time.sleep(60)


def main(run, number):
    gate, opened = os.pipe()
    reading, answers = os.pipe()
    children = []
    for _ in range(number):
        child = os.fork()
        if child == 0:
            os.close(opened)
            attempt(run, gate, answers)
            os._exit(0)
        children.append(child)
    os.close(answers)
    os.close(opened)
    found = []
    with os.fdopen(reading) as lines:
        while len(found) < number:
            found.append(json.loads(lines.readline()))
    winners = [answer["pid"] for answer in found if answer["won"]]
    for winner in winners:
        os.kill(winner, signal.SIGKILL)
    killed = time.monotonic()
    while time.monotonic() - killed < 10:
        try:
            RunDirectory(run).close()
            break
        except InputError:
            time.sleep(0.001)
    freed = time.monotonic() - killed
    for child in children:
        os.waitpid(child, 0)
    print(json.dumps({"winners": winners, "said": [a["said"] for a in found if not a["won"]], "freed": freed}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
