"""What tests say of a refusal: its code and fields. How it is worded is said in test_wording.py alone."""

import os
from contextlib import contextmanager
from unittest.mock import ANY

import pytest

from rlstages.errors import CodedError, InputError


def told(error):
    """Return an error's code, place and name; of a path the last part is enough."""
    assert isinstance(error, CodedError)
    parts = [os.path.basename(part) if os.path.isabs(part) else part for part in error.where.split(": ")]
    return error.code, ": ".join(parts), error.name


@contextmanager
def refused(code, where=ANY, name=ANY, kind=InputError):
    """Expect an error with this code and these fields."""
    with pytest.raises(kind) as caught:
        yield caught
    assert told(caught.value) == (code, where, name), str(caught.value)


def refusal(call, *args, **kwargs):
    """Return code, place and name of the `InputError` that a call ends with."""
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    return told(caught.value)
