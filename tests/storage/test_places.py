"""Paths in printed commands can be typed as they are."""

import shlex

import pytest

from rlstages.storage.record import shell_path


@pytest.mark.parametrize("name", ["onl", "my runs/a b", "it's", "-x", "$HOME", "ä"])
def test_a_shell_reads_the_path_from_here_on(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir(parents=True)
    (read,) = shlex.split(shell_path(tmp_path / name))
    assert not read.startswith(("/", "-"))
    assert (tmp_path / read).samefile(tmp_path / name)
    assert shell_path(tmp_path / name) == shell_path(tmp_path.relative_to(tmp_path) / name)


def test_working_directory_that_is_gone_harms_nothing(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert shell_path(tmp_path / "run") == str(tmp_path / "run")


def test_elsewhere_it_is_absolute(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert shell_path(tmp_path / "there") == str(tmp_path / "there")
