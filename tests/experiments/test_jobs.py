"""Jobs as processes, with stand-ins for `rlstages`."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from building import surroundings
from launching import script

from rlstages.experiments.jobs import Ended, Job, run_jobs, teller


def test_jobs_run_a_few_at_a_time_and_in_order(tmp_path):
    write = f"open({str(tmp_path / 'order')!r}, 'a').write"
    jobs = [
        script(tmp_path, str(n), f"import time; {write}('+{n}'); time.sleep(0.2); {write}('-{n}')") for n in range(3)
    ]
    told = []

    ended = run_jobs(jobs, 1, lambda one: told.append(one.job.name))

    assert told == ["0", "1", "2"] == [one.job.name for one in ended]
    assert (tmp_path / "order").read_text() == "+0-0+1-1+2-2"


def test_two_at_a_time_are_there_at_the_same_time(tmp_path):
    meet = (
        "import os, sys, time, pathlib; here = pathlib.Path({!r}); (here / str(os.getpid())).touch()\n"
        "end = time.monotonic() + 20\n"
        "while len(list(here.iterdir())) < 2:\n"
        "    time.sleep(0.01); time.monotonic() < end or sys.exit(1)"
    )
    place = tmp_path / "place"
    place.mkdir()

    ended = run_jobs([script(tmp_path, name, meet.format(str(place))) for name in "ab"], 2, lambda one: None)

    assert [one.code for one in ended] == [0, 0]


def test_a_failed_job_is_told_with_its_last_words_and_stops_nothing(tmp_path):
    jobs = [
        script(tmp_path, "bad", "import sys; print('starting'); sys.exit('error: no such thing')"),
        script(tmp_path, "killed", "import os; os.kill(os.getpid(), 9)"),
        script(tmp_path, "nameless", f"import os; os.kill(os.getpid(), {signal.SIGRTMIN + 6})"),
        script(tmp_path, "silent", "import sys; sys.exit(4)"),
        script(tmp_path, "missed", "import sys; sys.exit(3)", completed=(0, 3)),
        script(tmp_path, "good", "print('fine')"),
    ]

    ended = {one.job.name: one.failure for one in run_jobs(jobs, 2, lambda one: None)}

    assert ended == {
        "bad": "error: no such thing",
        "killed": "ended by SIGKILL",
        "nameless": f"ended by signal {signal.SIGRTMIN + 6}",
        "silent": "exit code 4",
        "missed": None,
        "good": None,
    }


def test_each_job_computes_with_one_thread_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    job = script(tmp_path, "env", "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])")

    run_jobs([job], 1, lambda one: None)

    assert job.log.read_text() == "3 1\n"


def test_a_job_reads_as_what_a_person_would_type():
    job = Job("x", ("compare", "runs/my dir", "--run", "staged/0"), Path("log"))

    assert str(job) == "rlstages compare 'runs/my dir' --run staged/0"
    assert job.command[1:] == ["-m", "rlstages", "compare", "runs/my dir", "--run", "staged/0"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="this Python always looks there first")
def test_a_directory_named_as_this_package_is_not_taken_for_it(tmp_path, monkeypatch):
    """Such as a clone of its repository, in whose parent directory somebody works."""
    (tmp_path / "rlstages").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    job = Job("curricula", ("curricula",), tmp_path / "log")

    (ended,) = run_jobs([job], 1, lambda _: None)

    assert (ended.failure, "rooms" in job.log.read_text()) == (None, True)


def test_a_person_is_told_of_every_job_and_why_it_failed(tmp_path):
    told = []
    times = iter([0.0, 190.0, 200.0])
    tell = teller(2, told.append, clock=lambda: next(times))

    tell(Ended(script(tmp_path, "staged, seed 0", ""), 0, 7.4))
    tell(Ended(script(tmp_path, "staged, seed 1", ""), 1, 2.0, lost="WorkerCrashedError: The worker died."))

    assert told == [
        "  1 of 2  staged, seed 0: done in 7 s; about 3 min left",
        "  2 of 2  staged, seed 1: failed: WorkerCrashedError: The worker died.",
    ]


ENDLESS = """
import signal, sys, time
# A shell's background jobs, such as this test may be, start with it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from launching import script
from rlstages.experiments.jobs import run_jobs
here = Path(sys.argv[1])
code = (
    "from rlstages.experiments.jobs import end_with_launcher; import os, signal, sys, time; end_with_launcher()\\n"
    "signal.signal(signal.SIGTERM, lambda *_: (open('saved', 'w').close(), sys.exit(0)))\\n"
    "open('pid', 'w').write(str(os.getpid())); os.rename('pid', 'started')\\n"
    "while True: time.sleep(0.05)"
)
run_jobs([script(here, "endless", code)], 1, lambda one: None)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the signal at the parent's death is Linux's")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_jobs_save_and_end_when_what_started_them_ends(tmp_path, how):
    launcher = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(tmp_path)],
        cwd=tmp_path,
        env=surroundings(tmp_path),
        stderr=subprocess.DEVNULL,
    )
    wait_for(tmp_path / "started")
    job = int((tmp_path / "started").read_text())

    launcher.send_signal(how)
    launcher.wait(20)

    wait_for(tmp_path / "saved")
    deadline = time.monotonic() + 20
    while is_running(job):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_for(file):
    deadline = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < deadline, f"{file} does not come"
        time.sleep(0.02)


def is_running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # A process that has ended, and whose parent has not asked yet.
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
