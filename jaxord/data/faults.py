"""Faults of a data set's rows, which stop a training and are all collected by a verification.

Readers work the same in both: what finds a fault asks here whether to raise or to go on.
"""

import contextlib
import contextvars
import dataclasses

_ACTIVE = contextvars.ContextVar("faults", default=None)


@dataclasses.dataclass
class Faults:
    """Collected faults.

    Attributes:
      files: {path: reason} of files that cannot be read.
      labels: [(fields of the row, its list file, reason)] of labels that are none, read as nan.
    """

    files: dict = dataclasses.field(default_factory=dict)
    labels: list = dataclasses.field(default_factory=list)


@contextlib.contextmanager
def collecting():
    """Collects the faults that readers find inside the block, instead of raising the first."""
    token = _ACTIVE.set(Faults())
    try:
        yield _ACTIVE.get()
    finally:
        _ACTIVE.reset(token)


def active():
    """The Faults to add to; None if a fault is to be raised."""
    return _ACTIVE.get()
