"""Predicting a dataset by a job: a part for each of its shards, made by any runner's map tasks.

Parts that exist are not made again, so a command that was interrupted goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from jobs.batch.launcher import MapLauncher
from jobs.batch.predict_job import PredictJob
from jobs.runners.addresses import reachable
from nnlib import FORMAT_VERSION
from nnlib.config.kinds import distributions_of
from nnlib.config.schema import Runtime
from nnlib.core.errors import JobError, UsageError
from nnlib.data.dataset import MANIFEST, Dataset
from nnlib.inference.label_matching import Remarks
from nnlib.inference.prediction_file import score_facts
from nnlib.inference.prediction_parts import SUMMARY, PartRecord, Prediction, part_name
from nnlib.inference.prediction_rows import DatasetMatching, check_kept
from nnlib.inference.prediction_settings import USUAL, PredictionSettings
from nnlib.inference.trained_model import TrainedModel
from nnlib.run.frozen import FROZEN
from nnlib.run.ledger import canonical
from nnlib.run.spec import WorkerPlan
from nnlib.storage import file_at, storage
from nnlib.storage.output_folder import claimed_folder
from nnlib.storage.outputs import refuse_overlap
from nnlib.training.scores import merge_scores

TASK_BYTES = 32 << 20
"""Shards of a task together, at least (where cores would not idle): starting a container takes seconds."""

PARALLEL_READS = 8
"""Parts that are read at once."""

UBER_WORK = 4e9
"""Floating-point operations (of a forward pass) that one core does in about the time of starting a container."""


def predict(
    run: str,
    source: str,
    output: str,
    runtime: Runtime,
    *,
    trial: int = 0,
    tasks: int | None = None,
    settings: PredictionSettings = USUAL,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Predict every row of a dataset into the folder ``output``: a Parquet file for each shard, then ``SUMMARY``.

    ``tasks``: map tasks, by default as many as shards that are large. Returns what ``--json`` prints. Raises
    `UsageError` where the data is no dataset, `DataError` where there is none or the model cannot read it, and
    `MismatchError` where the folder holds other predictions. The folder must not be the run or the data, hold them or
    lie in them (`UsageError`), and no other command may write into it (`StorageError`).
    """
    if not storage(source).exists(MANIFEST) and _holds_data(source):
        raise UsageError(
            "with -r the data must be a dataset",
            hint="import it first (nnjobs data import), or predict without -r",
            data=source,
        )
    model = TrainedModel.load(run, trial=trial)
    config = model.spec.config.model_copy(update={"runtime": runtime})
    model = replace(model, spec=replace(model.spec, config=config))
    dataset = replace(Dataset.open(source), address=reachable(source, runtime.runner, "a dataset"))
    prediction = Prediction(model, dataset, reachable(output, runtime.runner, "a folder"), settings)
    settings.check(model.classes)  # what is wrong raises here, before any task does
    DatasetMatching.of(model, dataset)
    check_kept(dataset, settings.keep)
    refuse_overlap(prediction.output, (run, source))
    with claimed_folder(prediction.storage, prediction.content, prediction.own_content):
        return _predict(prediction, runtime, tasks, note)


def _predict(
    prediction: Prediction, runtime: Runtime, tasks: int | None, note: Callable[[str], None]
) -> dict[str, Any]:
    folder = prediction.storage
    parts = _read_parts(prediction)
    missing = [shard for shard, facts in enumerate(parts) if facts is None]
    if missing:
        if len(missing) < len(parts):
            note(f"{len(parts) - len(missing)} of {len(parts)} parts are there already")
        folder.delete(SUMMARY)
        try:
            _make(prediction, missing, runtime, tasks, note)
        finally:
            folder.sweep(of=prediction.content.__contains__)
        parts = _read_parts(prediction)
    if any(facts is None for facts in parts):
        raise JobError("parts are missing that tasks have reported", output=folder.root)
    return _summarize(prediction, [facts for facts in parts if facts is not None], len(missing), runtime, note)


def _holds_data(address: str) -> bool:
    """Whether an address names a file, or a folder with files."""
    if storage(address).names():
        return True
    folder, name = file_at(address.rstrip("/"))
    return folder.exists(name)


def _read_parts(prediction: Prediction) -> list[PartRecord | None]:
    """The facts that each shard's part has about itself; None where there is no part."""
    shards = range(len(prediction.dataset.shards))
    names = set(prediction.storage.names())
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        return list(pool.map(lambda shard: prediction.read_part(shard) if part_name(shard) in names else None, shards))


def _make(
    prediction: Prediction, missing: Sequence[int], runtime: Runtime, tasks: int | None, note: Callable[[str], None]
) -> None:
    spec, dataset, model = prediction.model.spec, prediction.dataset, prediction.model
    facts, weights = prediction.to_files()
    files = {"--spec": ("predict.json", facts), "--model": ("model.safetensors", weights)}
    packed = distributions_of([spec.settings(model.trial).model])
    if (frozen := spec.frozen_bytes()) is not None:
        files["--frozen"] = (FROZEN, frozen)
    out = [prediction.storage.root]
    with MapLauncher(
        runtime, spec.config.name, dataset.address, files, note, PredictJob.__module__, packed, out
    ) as launcher:
        size = sum(dataset.shards[shard].bytes for shard in missing)
        at_most = tasks or max(-(-size // TASK_BYTES), launcher.slots or 1)
        count = min(at_most, len(missing))
        lines = [WorkerPlan(task, tuple(missing[task::count])).to_line() for task in range(count)]
        rows = sum(dataset.shards[shard].rows for shard in missing)
        shape = spec.model(model.trial)
        group = min(dataset.row_group_rows, max(dataset.shards[shard].rows for shard in missing))
        launcher.run(
            PredictJob,
            "predict",
            lines,
            memory_mb=-(-(4 * shape.layout.size * shape.layout.itemsize + 24 * group * dataset.features) // (1 << 20)),
            is_small=rows * shape.row_operations / 3.0 <= UBER_WORK,
        )


def _summarize(
    prediction: Prediction, parts: Sequence[PartRecord], made: int, runtime: Runtime, note: Callable[[str], None]
) -> dict[str, Any]:
    """Join the parts' scores and write the summary; return what ``--json`` prints."""
    kernels = sorted({part.numerics for part in parts})
    if len(kernels) > 1 and runtime.numerics == "strict":
        raise JobError(
            f"parts were computed with different bits (numerics {', '.join(kernels)}): other numpy, BLAS or torch "
            "kernels",
            hint="delete the folder and use equal machines and packages, or set runtime.numerics to loose",
            output=prediction.output,
        )
    trained_on = prediction.model.spec.dataset
    classes = len(trained_on.classes)
    summary = merge_scores([part.score for part in parts], trained_on.task, classes)
    rows = sum(part.rows for part in parts)
    names = [part_name(shard) for shard in range(len(parts))]
    stored = {
        "format_version": FORMAT_VERSION,
        "prediction": prediction.identity,
        "dataset": prediction.dataset.fingerprint,
        "numerics": kernels,
        "rows": rows,
        "score": summary.to_json(),
        "parts": [{"name": name, "rows": part.rows} for name, part in zip(names, parts, strict=True)],
    }
    folder = prediction.storage
    folder.write(SUMMARY, canonical(stored))
    remarks = Remarks()
    for part in parts:
        remarks.merge(part.remarks)
    for sentence in remarks.sentences(classes > 0):
        note(f"note: {sentence}")
    result: dict[str, Any] = {"rows": rows, "output": folder.root, "trial": prediction.model.trial.index}
    return {**result, "parts": len(parts), "made": made, **score_facts(summary), **remarks.to_json()}
