"""What tests say of a refusal: its code and fields. How it is worded is said in test_wording.py alone."""

from contextlib import contextmanager
from pathlib import Path

import pytest

from rlstages.errors import CodedError, InputError

_ANY = object()


@contextmanager
def refused(code, where=_ANY, name=_ANY, value=_ANY, kind=InputError):
    """Expect an error with this code and these fields; a path as `where` may be told in full or by its name."""
    with pytest.raises(kind) as caught:
        yield caught
    tells(caught.value, code, where, name, value)


def tells(error, code, where=_ANY, name=_ANY, value=_ANY):
    """Assert what an error says of itself, in one line for a person and in fields for a script."""
    assert isinstance(error, CodedError) and "\n" not in str(error)
    told = {"code": error.code, "where": error.where, "name": error.name, "value": error.value}
    wanted = {"code": code, "where": where, "name": name, "value": value}
    if isinstance(where, Path):
        told["where"], wanted["where"] = Path(error.where).name, where.name
    assert {key: told[key] for key in wanted if wanted[key] is not _ANY} == {
        key: wanted[key] for key in wanted if wanted[key] is not _ANY
    }, str(error)
