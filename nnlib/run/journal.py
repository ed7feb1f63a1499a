"""Files of lines that grow while a run does: ``log`` and ``events.jsonl``."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass

from nnlib.core.errors import MismatchError, StorageError
from nnlib.run.directory import EVENTS, SPEC, RunDirectory
from nnlib.run.run_events import KINDS, RoundEvent, RunEvent, StartEvent
from nnlib.storage import Storage


class Journal:
    """A file of lines that grows while the run does, rewritten as a whole now and then and at the end."""

    def __init__(self, storage: Storage, name: str) -> None:
        """Go on with the file ``name``, without a last line that a killed driver may have left torn."""
        self._storage, self._name = storage, name
        text = storage.read(name) if storage.exists(name) else b""
        self._text = text[: text.rfind(b"\n") + 1]
        self._written = 0.0
        self._size = len(self._text)  # of the file

    def line(self, text: str) -> None:
        """Add a line."""
        self._text += text.encode("utf-8", "backslashreplace") + b"\n"
        new = len(self._text) - self._size
        if self._storage.journal_is_due(time.monotonic() - self._written, self._size, new):
            self.flush()

    def record(self, event: RunEvent) -> None:
        """Add an event, with the time, as a line of JSON."""
        self.line(json.dumps({"time": round(time.time(), 3), **event.to_json()}, sort_keys=True, default=str))

    def flush(self) -> None:
        """Write what is new. A journal that cannot be written must not end a run: a full disk ends it at a commit."""
        self._written = time.monotonic()
        with contextlib.suppress(StorageError):
            new = len(self._text) > self._size
            if new and self._storage.exists(SPEC):  # a run that was moved away needs no log in its old place
                self._storage.write(self._name, self._text)
                self._size = len(self._text)


@dataclass(frozen=True)
class RecordedEvent:
    """An event and when it was recorded, in seconds since 1970; None where the file does not say."""

    time: float | None
    event: RunEvent


@dataclass(frozen=True)
class RecordedRound:
    """A round that counts: when it was recorded, with how many tasks at once the driver ran it, and its costs."""

    time: float | None
    slots: int
    event: RoundEvent


def read_events(run: RunDirectory) -> list[RecordedEvent]:
    """Read a run's events, in the order they were recorded; [] if it has lost them.

    Kinds that are not known are left out, and so is a last line that a killed driver left torn. Raises `MismatchError`
    for any other line that is no event.
    """
    if not run.storage.exists(EVENTS):
        return []
    *lines, _ = run.storage.read(EVENTS).split(b"\n")  # behind the last line's end there is nothing, or a torn line
    return [event for number, line in enumerate(lines, 1) if (event := _parse(line, number, run)) is not None]


def _parse(line: bytes, number: int, run: RunDirectory) -> RecordedEvent | None:
    try:
        data = json.loads(line)
        kind = KINDS.get(data["event"])
        return None if kind is None else RecordedEvent(data.get("time"), kind.from_json(data))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise MismatchError(
            f"line {number} is no event: {error}", hint="delete that line", file=f"{run.address}/{EVENTS}"
        ) from error


def last_rounds(events: Iterable[RecordedEvent]) -> list[RecordedRound]:
    """Choose the record of each round that counts, in the order of the rounds: the one that was committed last.

    A driver that goes on after round n does the rounds behind n again, whatever an earlier one recorded of them.
    """
    slots, rounds = 1, dict[int, RecordedRound]()
    for recorded in events:
        event = recorded.event
        if isinstance(event, StartEvent):
            slots = event.slots
            rounds = {number: each for number, each in rounds.items() if number <= event.round}
        elif isinstance(event, RoundEvent):
            rounds[event.round] = RecordedRound(recorded.time, slots, event)
    return [rounds[number] for number in sorted(rounds)]
