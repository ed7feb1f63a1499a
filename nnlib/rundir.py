"""The run directory: everything a run knows, at one address.

``config.yaml`` (resolved, with versions), ``spec.json`` (what every task reads: config, dataset manifest, trials with
their splits and scaling), ``rounds/`` (see `nnlib.checkpoint`), ``final/`` (the models that are kept and their
scores), ``metrics.jsonl`` (a view made from the rounds), ``events.jsonl`` and ``log`` (attempts, hosts, times: never
hashed). It is its owner's alone, for a log may quote what data and machines say; `nnlib.export` makes files to share.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable
from typing import Any

from nnlib import FORMAT_VERSION
from nnlib.checkpoint import ROUNDS, RoundStore, Vector, flat_vector, model_digest, pack, parse_json, unpack
from nnlib.config.render import from_resolved, to_yaml
from nnlib.config.schema import Config
from nnlib.errors import MismatchError, StorageError, UsageError
from nnlib.ledger import canonical
from nnlib.lock import FOLDER
from nnlib.periods import round_count
from nnlib.plan import JobSpec
from nnlib.storage import Storage, storage

CONFIG = "config.yaml"
SPEC = "spec.json"
METRICS_VIEW = "metrics.jsonl"
EVENTS = "events.jsonl"
LOG = "log"
GROUP = "collective"
"""What a running collective job leaves for its driver, and its workers for each other; gone when it ends."""
FINAL_MODEL = "final/model.safetensors"
FINAL_METRICS = "final/metrics.json"
REMAKE = "delete final/ and run the same training with --resume: it is made again from the last round"


class RunDirectory:
    """Reads and writes a run; commits of rounds go through its `RoundStore`."""

    def __init__(self, address: str) -> None:
        self.storage: Storage = storage(address, private=True)
        self.address = self.storage.root

    def refuse_if_exists(self) -> None:
        """Raise `UsageError` if there is a run here: a new one must not write over it."""
        if self.exists():
            raise UsageError(
                "this directory holds a run already",
                hint="go on with it by --resume, start another elsewhere by --run-dir, or from its model by --from",
                run=self.address,
            )

    @classmethod
    def open(cls, address: str) -> RunDirectory:
        """An existing run; raises `UsageError` if there is none."""
        run = cls(address)
        if not run.exists():
            raise UsageError("there is no run here (no spec.json)", run=run.address)
        return run

    def exists(self) -> bool:
        return self.storage.exists(SPEC)

    def write_spec(self, spec: JobSpec) -> None:
        """Store what every task reads; the spec last, because with it the run exists."""
        self.storage.write(CONFIG, to_yaml(spec.config).encode())
        self.storage.write(SPEC, canonical(spec.to_json()))

    def abandon(self) -> None:
        """Delete a run that has no round yet, whose data or configuration turned out to be wrong: what is mended is
        another run. Other files of its directory stay."""
        if self.storage.names(ROUNDS) == ["000000"]:
            for name in (SPEC, CONFIG, ROUNDS, EVENTS, LOG, FOLDER):
                self.storage.delete(name)
            if not self.storage.names():
                self.storage.delete("")

    def config(self) -> Config:
        return from_resolved(self.storage.read(CONFIG).decode(), f"{self.address}/{CONFIG}")

    def spec(self) -> JobSpec:
        file = f"{self.address}/{SPEC}"
        data = parse_json(self.storage.read(SPEC), file)
        if data.get("format_version") != FORMAT_VERSION:
            raise MismatchError(
                f"has format_version {data.get('format_version')}, this nnjobs reads {FORMAT_VERSION}",
                hint="use the nnjobs that trained the run",
                file=file,
            )
        try:
            spec = JobSpec.from_json(data)
            self.rounds(spec)  # every trial's settings and model
            canonical(spec.to_json())  # what cannot be written again (infinite numbers) cannot be gone on with
            return spec
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise MismatchError(
                f"lacks or garbles {error}", hint="the file was altered or damaged", file=file
            ) from error

    def rounds(self, spec: JobSpec) -> RoundStore:
        return RoundStore(self.storage, [spec.model(trial).layout for trial in spec.trials])

    def finish(self, metrics: dict[str, Any], arrays: dict[str, Any]) -> None:
        """Store the kept models, then their scores: a run is finished when ``final/metrics.json`` is there."""
        self.storage.write(FINAL_MODEL, pack(arrays))
        self.storage.write(FINAL_METRICS, canonical({"format_version": FORMAT_VERSION, **metrics}))

    def final(self) -> dict[str, Any] | None:
        """The scores of a finished run; None while rounds are missing (also of a run that was finished and then given
        more epochs)."""
        if not self.storage.exists(FINAL_METRICS):
            return None
        file = f"{self.address}/{FINAL_METRICS}"
        final = parse_json(self.storage.read(FINAL_METRICS), file, REMAKE)
        if not {"rounds", "rounds_planned", "task", "trials", "model_sha256"} <= set(final):
            raise MismatchError("altered or damaged, for it lacks what it should say", hint=REMAKE, file=file)
        return final if final.get("rounds_planned") == round_count(self.spec().config) else None

    def final_arrays(self) -> dict[str, Any]:
        return unpack(self.storage.read(FINAL_MODEL), f"{self.address}/{FINAL_MODEL}")

    def final_weights(self, spec: JobSpec) -> list[Vector]:
        """The kept weights of every trial; raises `MismatchError` if they are not those that were scored."""
        file = f"{self.address}/{FINAL_MODEL}"
        arrays = self.final_arrays()
        vectors = [flat_vector(trial.index, arrays, spec.model(trial).layout, file) for trial in spec.trials]
        if model_digest(vectors) != (self.final() or {}).get("model_sha256"):
            raise MismatchError(
                f"does not match the model_sha256 of {FINAL_METRICS}: one of them was altered or damaged",
                hint=REMAKE,
                file=file,
            )
        return vectors


class Journal:
    """A file of lines that grows while the run does, rewritten as a whole now and then and at the end."""

    def __init__(self, place: Storage, name: str) -> None:
        self._storage, self._name = place, name
        self._text = place.read(name) if place.exists(name) else b""
        self._written = 0.0
        self._size = len(self._text)  # of the file

    def line(self, text: str) -> None:
        self._text += text.encode("utf-8", "backslashreplace") + b"\n"
        new = len(self._text) - self._size
        if self._storage.journal_is_due(time.monotonic() - self._written, self._size, new):
            self.flush()

    def record(self, **facts: Any) -> None:
        """A line of JSON with the time."""
        self.line(json.dumps({"time": round(time.time(), 3), **facts}, sort_keys=True, default=str))

    def flush(self) -> None:
        """Write what is new. A journal that cannot be written must not end a run: rounds tell of a full disk."""
        self._written = time.monotonic()
        with contextlib.suppress(StorageError):
            new = len(self._text) > self._size
            if new and self._storage.exists(SPEC):  # a run that was moved away needs no log in its old place
                self._storage.write(self._name, self._text)
                self._size = len(self._text)


SCORED = ("test", "validation", "split", "missing")
"""What a line of the metrics takes from a trial's scores; ``missing`` is there where a quorum's workers were."""


def metrics_lines(store: RoundStore, rounds: Iterable[int], final: dict[str, Any] | None) -> list[str]:
    """``metrics.jsonl``: a line per trial and round, with that round's training and the scores of the model it gave.

    The model of round n is scored by the job of round n + 1 (the last one by the final job), so the view joins them.
    """
    scores: dict[tuple[int, int], dict[str, Any]] = {}
    training: dict[tuple[int, int], dict[str, Any]] = {}
    epochs: dict[int, int] = {0: 0}
    for round_ in rounds:
        metrics = store.told_metrics(round_)
        epochs[round_] = metrics.get("epoch", 0)
        for entry in metrics.get("trials", []):
            key = (entry["trial"], entry["scored_round"])
            scores[key] = {name: entry[name] for name in SCORED if name in entry}
            if entry.get("training") is not None:
                training[entry["trial"], round_] = entry["training"]
    for entry in (final or {}).get("trials", []):
        key = (entry["trial"], entry["round"])
        scores[key] = {name: entry[name] for name in SCORED if name in entry}
    lines = []
    for trial, round_ in sorted(set(scores) | set(training), key=lambda pair: (pair[1], pair[0])):
        line = {
            "round": round_,
            "epoch": epochs.get(round_),
            "trial": trial,
            **scores.get((trial, round_), {}),
            "training": training.get((trial, round_)),
        }
        lines.append(json.dumps(line, sort_keys=True, separators=(",", ":")))
    return lines
