"""The run directory: everything a run knows, at one address.

``config.yaml`` (resolved, with versions), ``spec.json`` (what every task reads: config, dataset manifest, trials with
their splits and scaling), ``rounds/`` (see `nnlib.run.round_store`), ``final/`` (the models that are kept and their
scores), ``metrics.jsonl`` (a view made from the rounds), ``events.jsonl`` and ``log`` (attempts, hosts, times: never
hashed), ``status.json`` (what the driver does), ``cancel/`` (requests to end it), ``task-logs/``. It is its owner's
alone, for a log may quote what data and machines say; `nnlib.export` makes files to share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from nnlib import FORMAT_VERSION
from nnlib.config.code_files import code_names
from nnlib.config.code_trust import codes_of, require_trusted
from nnlib.config.options import torch_options
from nnlib.config.render import from_resolved, to_yaml
from nnlib.config.schema import Config, stored_config
from nnlib.core.arrays import Vector
from nnlib.core.errors import MismatchError, UsageError
from nnlib.core.layout import ModelState
from nnlib.run.final_result import REMAKE, FinalResult
from nnlib.run.frozen import FROZEN
from nnlib.run.lease import FOLDER, was_locked
from nnlib.run.ledger import canonical
from nnlib.run.manifest import ROUNDS
from nnlib.run.model_file import model_digest, pack, parse_json, read_model, unpack
from nnlib.run.round_length import round_count
from nnlib.run.round_store import RoundStore
from nnlib.run.spec import JobSpec
from nnlib.storage import Storage, storage

CONFIG = "config.yaml"
SPEC = "spec.json"
CODE = "code"
"""The folder of the files of ``model.files``, by name."""
METRICS_VIEW = "metrics.jsonl"
EVENTS = "events.jsonl"
LOG = "log"
STATUS = "status.json"
"""What the driver does now, or how it ended (`nnlib.run.driver_status`)."""
CANCEL = "cancel"
"""Folder of requests to end a driver, one by the name of its lease (`nnlib.run.cancel_request`)."""
TASK_LOGS = "task-logs"
"""Folder of what tasks on the driver's machine wrote, by worker (`nnlib.run.task_logs`)."""
GROUP = "collective"
"""What a running collective job leaves for its driver, and its workers for each other; gone when it ends."""
FINAL_MODEL = "final/model.safetensors"
FINAL_METRICS = "final/metrics.json"

CONTENT = frozenset(
    (
        *(CONFIG, SPEC, CODE, FROZEN, METRICS_VIEW, EVENTS, LOG, STATUS, CANCEL, TASK_LOGS, GROUP, ROUNDS),
        FINAL_MODEL.partition("/")[0],
    )
)
"""The names of all that is directly in a run directory, but for the lock."""


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

    def refuse_others(self) -> None:
        """Raise `UsageError` where a new run would replace files of others. What is there of a start that was killed is
        ours: it has taken the lock first."""
        if was_locked(self.storage):
            return
        found = sorted(set(self.storage.names()) & CONTENT)
        if self.storage.names(FOLDER):
            found.append(FOLDER)
        if found:
            raise UsageError(
                "a run would replace this, and nnjobs has not made it",
                hint="move it away, or choose another --run-dir",
                file=f"{self.address}/{found[0]}",
            )

    @classmethod
    def open(cls, address: str) -> RunDirectory:
        """An existing run; raises `UsageError` if there is none."""
        run = cls(address)
        if not run.exists():
            raise UsageError("there is no run here (no spec.json)", run=run.address)
        return run

    def exists(self) -> bool:
        """Whether there is a run here."""
        return self.storage.exists(SPEC)

    def write_spec(self, spec: JobSpec) -> None:
        """Store what every task reads, and the code and frozen parameters of its models; the spec last, because with it
        the run exists."""
        for name, text in spec.sources.items():
            self.storage.write(f"{CODE}/{name}", text.encode())
        if not self.storage.exists(FROZEN) and (frozen := spec.frozen_bytes()) is not None:
            self.storage.write(FROZEN, frozen)
        self.storage.write(CONFIG, to_yaml(spec.config).encode())
        self.storage.write(SPEC, canonical(spec.to_json(sources=False)))

    def abandon(self) -> None:
        """Delete a run that has no round yet, whose data or configuration turned out to be wrong: what is mended is
        another run. Other files of its directory stay."""
        if self.storage.names(ROUNDS) == ["000000"]:
            for name in (SPEC, CONFIG, CODE, FROZEN, ROUNDS, EVENTS, LOG, STATUS, CANCEL, TASK_LOGS, FOLDER):
                self.storage.delete(name)
            if not self.storage.names():
                self.storage.delete("")

    def config(self) -> Config:
        """Read the resolved configuration."""
        return from_resolved(self.storage.read(CONFIG).decode(), f"{self.address}/{CONFIG}")

    def spec(self) -> JobSpec:
        """Read the spec. Raises `MismatchError` where it, or code that the run brings, is damaged or of another format.

        No code is imported now, but when one of the spec's models is asked for; that raises `UsageError` for code that
        is not trusted here (`nnlib.config.code_trust`).
        """
        file = f"{self.address}/{SPEC}"
        data = parse_json(self.storage.read(SPEC), file)
        if data.get("format_version") != FORMAT_VERSION:
            raise MismatchError(
                f"has format_version {data.get('format_version')}, this nnjobs reads {FORMAT_VERSION}",
                hint="use the nnjobs that trained the run",
                file=file,
            )
        try:
            spec = JobSpec.from_json(data | self._sources(stored_config(data["config"])))
            brings_code = bool(spec.sources) or bool(codes_of(spec.config))
            for trial in spec.trials:
                spec.settings(trial)
                if not brings_code:
                    spec.model(trial)
            canonical(spec.to_json())  # what cannot be written again (infinite numbers) cannot be gone on with
            return replace(
                spec,
                frozen_file=lambda: self.storage.read(FROZEN),
                admit=partial(require_trusted, origin=self.address),
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise MismatchError(
                f"lacks or garbles {error}", hint="the file was altered or damaged", file=file
            ) from error

    def _sources(self, config: Config) -> dict[str, dict[str, str]]:
        """The run's code as `JobSpec.from_json` takes it. Raises `MismatchError` where a file is missing or no text."""
        options = torch_options(config.model)
        names = [] if options is None else code_names(options.sha256)
        sources = {}
        for name in names:
            file = f"{self.address}/{CODE}/{name}"
            if not self.storage.exists(f"{CODE}/{name}"):
                raise MismatchError("this file of the run's code is missing", hint="bring back a copy of it", file=file)
            try:
                sources[name] = self.storage.read(f"{CODE}/{name}").decode()
            except UnicodeDecodeError as error:
                raise MismatchError("altered or damaged", hint="bring back a copy of it", file=file) from error
        return {"sources": sources} if sources else {}

    def rounds(self, spec: JobSpec) -> RoundStore:
        """Return the store of the rounds of this run, whose spec is ``spec``."""
        return RoundStore(self.storage, spec.layouts)

    def finish(self, result: FinalResult, arrays: Mapping[str, Vector]) -> None:
        """Store the kept models (arrays by name), then their scores: a run is finished when ``final/metrics.json`` is
        there."""
        self.storage.write(FINAL_MODEL, pack(arrays))
        self.storage.write(FINAL_METRICS, final_bytes(result))

    def final(self) -> FinalResult | None:
        """Read the scores of a finished run; None while rounds are missing, which may be because more epochs are wanted
        of a run that was finished. Raises `MismatchError` where the file is damaged."""
        if not self.storage.exists(FINAL_METRICS):
            return None
        file = f"{self.address}/{FINAL_METRICS}"
        result = FinalResult.from_json(parse_json(self.storage.read(FINAL_METRICS), file, REMAKE), file)
        return result if result.rounds_planned == round_count(self.spec().config) else None

    def final_arrays(self) -> dict[str, Vector]:
        """Read the kept models: arrays by name."""
        return unpack(self.storage.read(FINAL_MODEL), f"{self.address}/{FINAL_MODEL}")

    def final_models(self, spec: JobSpec) -> list[ModelState]:
        """The kept model of every trial. Raises `MismatchError` if they are not those that were scored."""
        file = f"{self.address}/{FINAL_MODEL}"
        arrays = self.final_arrays()
        models = [read_model(trial.index, arrays, spec.model(trial).layout, file) for trial in spec.trials]
        final = self.final()
        if final is None or model_digest(models) != final.model_sha256:
            raise MismatchError(
                f"does not match the model_sha256 of {FINAL_METRICS}: one of them was altered or damaged",
                hint=REMAKE,
                file=file,
            )
        return models


def final_bytes(result: FinalResult) -> bytes:
    """Encode ``final/metrics.json``."""
    return canonical({"format_version": FORMAT_VERSION, **result.to_json()})
