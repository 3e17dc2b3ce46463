"""Errors: a wrong request, unusable data, a requested stop, a failure in another process."""

from __future__ import annotations


class UsageError(ValueError):
    """The request itself is wrong: an unknown name, an option outside its range (exit status 2 on the command line)."""


class DataError(ValueError):
    """What was read cannot be used: a corrupt image, a truncated file, a NaN (exit status 1 on the command line)."""


class Interrupted(Exception):
    """Training was stopped by a signal, after saving a checkpoint."""


class OtherProcessError(RuntimeError):
    """Another process failed with an error from outside this library; it has printed that error."""
