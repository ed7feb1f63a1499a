"""Every error nnjobs raises on purpose, with the exit code of its kind.

An error names where it happened (file, row, key, worker ...), what is wrong and what to do. It can travel from a
mapper to the driver as a plain JSON record (`to_record`, `from_record`): never as a pickle.
"""

from __future__ import annotations

from typing import Any


class NnjobsError(Exception):
    """Base class. ``where`` holds JSON-able facts (worker=3, shard="part-00002.parquet", row=17)."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None, **where: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = {key: value for key, value in where.items() if value is not None}

    def __str__(self) -> str:
        where = ", ".join(f"{key} {value}" for key, value in self.where.items())
        text = f"{where}: {self.message}" if where else self.message
        return f"{text}\n  what to do: {self.hint}" if self.hint else text

    def to_record(self) -> dict[str, Any]:
        """The error as JSON-able data; `from_record` is the inverse."""
        return {
            "kind": type(self).__name__,
            "message": self.message,
            "hint": self.hint,
            "where": self.where,
        }


class UsageError(NnjobsError):
    """The command line was used wrongly."""

    exit_code = 2


class ConfigError(UsageError):
    """The configuration is wrong: unknown key, illegal value, impossible combination."""


class DataError(NnjobsError):
    """The data is bad: unreadable file, non-finite value, label outside the classes ..."""

    exit_code = 3


class MismatchError(DataError):
    """A check failed: a hash, count, layout or checksum is not the one that was recorded."""


class StorageError(NnjobsError):
    """The storage failed: it is full, locked or away, or refused."""

    exit_code = 4


class BusyError(StorageError):
    """Another process works on what is wanted, and may end."""


class JobError(NnjobsError):
    """A job or the cluster failed."""

    exit_code = 4


class DivergedError(NnjobsError):
    """Training produced a non-finite loss or weight."""

    exit_code = 5


ERRORS: dict[str, type[NnjobsError]] = {
    kind.__name__: kind
    for kind in (
        UsageError,
        ConfigError,
        DataError,
        MismatchError,
        StorageError,
        BusyError,
        JobError,
        DivergedError,
    )
}


def from_record(record: dict[str, Any]) -> NnjobsError:
    """Rebuild an error from `NnjobsError.to_record`; an unknown kind becomes a `JobError`."""
    error = ERRORS.get(str(record.get("kind")), JobError)(str(record.get("message")), hint=record.get("hint"))
    where = record.get("where")
    if isinstance(where, dict):
        error.where = where
    return error
