"""Hostile files: each is refused in a sentence within two seconds, and nothing in it is run."""

import sys
import time

import pytest
from hostile import CORPUS, EVIL, READ, Payload, pickle

from rlstages import InputError


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """Where code that ran would leave a file; modules that leave it stand ready to be imported."""
    path = tmp_path / "canary"
    for name in ("evil", "evil_file"):
        (tmp_path / f"{name}.py").write_text(EVIL.format(canary=str(path)))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield path
    for name in ("evil", "evil_file"):
        sys.modules.pop(name, None)


def test_the_canary_sings(canary):
    pickle.loads(pickle.dumps(Payload(canary))).close()
    assert canary.exists()
    canary.unlink()
    import evil  # noqa: F401

    assert canary.exists()


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_file_is_refused_and_runs_nothing(name, run, canary):
    (run / "evil_file.py").write_text(EVIL.format(canary=str(canary)))
    use = CORPUS[name](run, canary)
    # Of the processor, so that a busy machine takes no longer.
    started = time.process_time()
    if name in READ:
        assert len(use()) == 1
    else:
        with pytest.raises(InputError) as caught:
            use()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    took = time.process_time() - started
    assert not canary.exists() and "evil" not in sys.modules and "evil_file" not in sys.modules
    assert took < 2.0, f"{took:.1f} s"


def test_there_are_enough_of_them():
    print(f"{len(CORPUS)} hostile files")
    assert len(CORPUS) >= 30
