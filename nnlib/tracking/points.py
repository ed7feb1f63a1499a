"""A run's committed rounds as points of curves."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nnlib.run.directory import EVENTS, RunDirectory
from nnlib.run.round_length import combined_drift
from nnlib.tracking.protocol import Point

SCORES = ("accuracy", "top_5_accuracy", "r2", "mse", "mae", "loss")


def round_points(metrics: Mapping[str, Any], when: float, seconds: float | None) -> list[Point]:
    """The points of one round, from its metrics: what its job scored belongs to the epoch it started from, what it
    trained to the epoch it ended with. Means are over the trials that it trained."""
    first, end = metrics["epochs"]
    entries = metrics["trials"]
    trained = [entry["training"] for entry in entries if entry["training"] is not None]
    values: dict[str, float] = {"train/epochs_in_round": end - first, "train/trials": len(trained)}
    if trained:
        values["train/loss"] = statistics.fmean(each["loss"] for each in trained)
    if (drift := combined_drift(entries)) is not None:
        values["train/drift"] = drift
    if seconds is not None:
        values["time/round_seconds"] = seconds
    return [Point(first, when, score_values(entries)), Point(end, when, values)]


def score_values(entries: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean scores over the trials, by name: ``test/accuracy`` ..."""
    found = {}
    for part in ("test", "validation"):
        for score in SCORES:
            values = [entry[part][score] for entry in entries if entry[part].get(score) is not None]
            if values:
                found[f"{part}/{score}"] = statistics.fmean(values)
    return found


class History:
    """The committed rounds of a run as points. One thread may use it beside the driver that commits."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._store = run.rounds(run.spec())

    def committed(self) -> set[int]:
        return set(self._store.rounds())

    def points(self, round_: int, when: float, seconds: float | None) -> list[Point]:
        return round_points(self._store.metrics(round_), when, seconds)

    def recorded(self, newest: int) -> Iterable[Point]:
        """Of all rounds up to ``newest``, with the times that the run's events tell of them."""
        events = self._events()
        for round_ in range(1, newest + 1):
            event = events.get(round_, {})
            yield from self.points(round_, event.get("time", time.time()), event.get("seconds"))

    def final(self, when: float) -> list[Point]:
        """The scores of the kept models, at the run's last epoch."""
        final = self._run.final()
        if final is None:
            return []
        epoch = self._store.metrics(self._store.newest())["epoch"]
        values = {f"kept/{name}": value for name, value in score_values(final["trials"]).items()}
        return [Point(epoch, when, values)]

    def _events(self) -> dict[int, dict[str, Any]]:
        storage = self._run.storage
        lines = storage.read(EVENTS).splitlines() if storage.exists(EVENTS) else []
        events = [json.loads(line) for line in lines]
        return {event["round"]: event for event in events if event.get("event") == "round"}
