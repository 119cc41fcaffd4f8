import pytest
from commanding import Commands


@pytest.fixture
def rlstages(monkeypatch, capsys, here):
    return Commands(monkeypatch, capsys)
