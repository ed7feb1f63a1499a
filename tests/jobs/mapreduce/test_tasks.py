"""Map and reduce tasks as plain functions: what they emit is whole, exact, and an error is one record."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shards import write_dataset

from jobs.mapreduce import tasks
from jobs.mapreduce.collect import collect
from jobs.mapreduce.wire import SliceKey, decode_partial, encode_partial
from jobs.runners.lines import ERROR_KEY, decode_record
from nnlib.aggregation.average import Average, Partial
from nnlib.aggregation.drift import DriftSummary, drift_summary
from nnlib.config.schema import Config
from nnlib.core import numerics
from nnlib.core.errors import DataError, DivergedError, MismatchError, NnjobsError, from_record
from nnlib.core.layout import BLOCK, ModelState, slices
from nnlib.data.decoded_rows import BLOCKS
from nnlib.data.scaling import FeatureStats, Scaler
from nnlib.data.shard_reader import ShardReader
from nnlib.data.split.rule import TEST, TRAIN
from nnlib.run.planner import make_spec
from nnlib.run.spec import JobSpec, WorkerPlan, initial_vector, partial_layout
from nnlib.training.local_result import RoundStart
from nnlib.training.local_training import local_training
from nnlib.training.worker_round import worker_data
from nnlib.training.worker_trial import WorkerTrial

Line = tuple[bytes, bytes]
FEATURES, CLASSES, ROWS, SHARDS, WORKERS = 6, 3, 120, 6, 3


@pytest.fixture(autouse=True)
def _nothing_held() -> None:
    """Rows held from another test's equal dataset would hide what is wrong with this one's files."""
    BLOCKS.clear()


def made(where: Path, x: Any = None, *, features: int = FEATURES, **sections: Any) -> tuple[JobSpec, list[WorkerPlan]]:
    rng = np.random.default_rng(0)
    y = np.arange(ROWS) % CLASSES
    if x is None:
        x = (rng.standard_normal((ROWS, features)) + y[:, None]).astype(np.float32)
    dataset = write_dataset(where, x, y, shards=SHARDS, row_group_rows=7, classes=CLASSES)
    document: dict[str, Any] = {
        "data": {"path": str(where)},
        "workers": WORKERS,
        "split": {"train": 0.6, "validation": 0.2, "seeds": [0, 5]},
        "model": {"hidden": [4]},
        "train": {"epochs": 4, "epochs_per_round": 2, "batch_size": 8},
    }
    for section, values in sections.items():
        document[section] = {**document.get(section, {}), **values} if isinstance(values, dict) else values
    return make_spec(Config.model_validate(document), dataset)


def starts(spec: JobSpec) -> dict[int, ModelState]:
    """Every trial's vector before round 0: its first weights, and zeros for optimizer state that is averaged."""
    models = {}
    for trial in spec.trials:
        weights = initial_vector(spec, trial)
        rest = partial_layout(spec, trial).size - weights.size
        models[trial.index] = ModelState(np.concatenate([weights, np.zeros(rest, weights.dtype)]))
    return models


def mapped(spec: JobSpec, plan: WorkerPlan, phase: str = "train", models: Any = None, round_: int = 0) -> list[Line]:
    models = starts(spec) if models is None else models
    epochs = range(2 * round_, 2 * round_ + 2)
    return list(tasks.map_task(spec, plan, phase, round_, range(len(spec.trials)), models, epochs))


def reduced(spec: JobSpec, lines: list[Line], models: Any = None) -> list[Line]:
    """Group the lines as a cluster would (keys and values as sorted text), and reduce each group."""
    groups: dict[bytes, list[bytes]] = defaultdict(list)
    for key, value in lines:
        groups[key].append(value)
    models = starts(spec) if models is None else models
    return [line for key in sorted(groups) for line in tasks.reduce_task(spec, key, iter(sorted(groups[key])), models)]


def error_of(lines: list[Line]) -> NnjobsError:
    """The error that a task's only line tells of."""
    ((key, value),) = lines
    assert key == ERROR_KEY
    return from_record(decode_record(value)[1])


def without_times(lines: list[Line]) -> list[Any]:
    """Lines with records decoded and their times, which differ from run to run, taken out."""
    result: list[Any] = []
    for key, value in lines:
        if key.endswith(tasks.METRICS):
            worker, record = decode_record(value)
            record.pop("seconds", None)
            result.append((key, worker, record))
        else:
            result.append((key, value))
    return result


def trained_alone(spec: JobSpec, plan: WorkerPlan, index: int) -> Partial:
    """The partial of one worker, straight from the training."""
    with worker_data(spec, plan) as data:
        work = WorkerTrial.of(spec, spec.trials[index], plan.worker, data)
        start = RoundStart(starts(spec)[index], 0, range(2))
        return next(local_training(work, start)).partial


@pytest.mark.parametrize(
    "sections",
    [
        {"features": 700, "model": {"hidden": [200]}, "sync": {"slice_elements": 1}},  # three slices
        {"train": {"optimizer": "adam", "optimizer_state": "average", "lr": 0.01}},
        {"model": {"hidden": [4], "dtype": "float64"}, "sync": {"weighting": "equal"}},
        {"train": {"optimizer": "cg"}},
        {"sampling": {"streams": "shared", "fraction": 0.9}},
        {"split": {"seeds": [0]}, "sweep": {"model.hidden": [[3], []], "train.optimizer": ["sgd", "adam"]}},
        {"split": {"seeds": [7], "folds": 3}},
    ],
    ids=["slices", "state", "equal", "cg", "shared", "sweep", "folds"],
)
def test_a_round_is_the_average_of_what_workers_train(tmp_path: Path, sections: dict[str, Any]) -> None:
    spec, plans = made(tmp_path, **sections)
    lines = [line for plan in plans for line in mapped(spec, plan)]
    assert without_times(lines) == without_times([line for plan in plans for line in mapped(spec, plan)])
    outputs = collect(spec, reduced(spec, lines[::-1]), range(len(spec.trials)))
    for index, trial in enumerate(spec.trials):
        layout = partial_layout(spec, trial)
        average = Average(range(WORKERS), layout.fingerprint, spec.config.sync.weighting)
        for plan in plans:
            average.add(trained_alone(spec, plan, index))
        expected = average.finish()
        parts = slices(layout.size, tasks.slice_elements(spec))
        assert sorted(outputs[index].parts) == list(range(len(parts)))
        got = np.concatenate([outputs[index].parts[number].weights for number in range(len(parts))])
        assert got.dtype == layout.dtype
        assert got.tobytes() == expected.tobytes()
        examples = {
            worker: record.training.examples for worker, record in outputs[index].records.items() if record.training
        }
        assert outputs[index].parts[0].examples == sum(examples.values())
        if spec.config.sampling.streams == "independent":
            assert examples == dict(enumerate(trial.train_rows))
        assert all(record.numerics == numerics.fingerprint() for record in outputs[index].records.values())
        size, start = spec.model(trial).layout.size, starts(spec)[index].vector
        for plan in plans:  # drift is of the parameters alone, whatever else travels
            own = trained_alone(spec, plan, index).weights[:size].astype(np.float64)
            mean = expected[:size].astype(np.float64)
            drift = outputs[index].drift[plan.worker]
            step, common = own - start[:size], mean - start[:size]
            assert drift.relative == pytest.approx(np.linalg.norm(own - mean) / np.linalg.norm(mean), rel=1e-9)
            cosine = step @ common / np.linalg.norm(step) / np.linalg.norm(common)
            assert drift.cosine == pytest.approx(cosine, rel=1e-9)


def test_slices_change_nothing(tmp_path: Path) -> None:
    wide = {"features": 700, "model": {"hidden": [200]}}
    results = []
    for elements in (1, 2 * BLOCK, 10**9):
        spec, plans = made(tmp_path, **wide, sync={"slice_elements": elements})  # type: ignore[arg-type]
        lines = [line for plan in plans for line in mapped(spec, plan)]
        (output, _) = collect(spec, reduced(spec, lines), range(2)).values()
        whole = np.concatenate([output.parts[index].weights for index in sorted(output.parts)])
        results.append((len(output.parts), whole.tobytes(), output.drift))
    assert [parts for parts, _, _ in results] == [3, 2, 1]
    assert results[0][1:] == results[1][1:] == results[2][1:]


def test_slices_shrink_where_many_workers_would_fill_a_reducer(tmp_path: Path) -> None:
    spec, _ = made(tmp_path)

    def elements(workers: int) -> int:
        return tasks.slice_elements(replace(spec, config=spec.config.model_copy(update={"workers": workers})))

    assert elements(1) == elements(8) == spec.config.sync.slice_elements
    assert 8 * 64 * elements(64) <= tasks.REDUCER_BYTES
    assert elements(100_000) == BLOCK


def test_shared_streams_train_the_same_and_score_their_own(tmp_path: Path) -> None:
    spec, plans = made(tmp_path, sampling={"streams": "shared", "fraction": 0.5})
    first, *others = [trained_alone(spec, plan, 0) for plan in plans]
    for other in others:
        assert (other.weights.tobytes(), other.examples) == (first.weights.tobytes(), first.examples)
    rows = [decode_record(value)[1]["test"]["rows"] for plan in plans for _, value in mapped(spec, plan, "score")[:1]]
    assert rows == list(spec.trials[0].test_rows)
    assert sum(rows) == 24


def forward(spec: JobSpec, index: int, x: Any, vector: Any) -> Any:
    """The network in three lines: relu, then softmax, in float64."""
    views = {
        name: view.astype(np.float64) for name, view in spec.model(spec.trials[index]).layout.views(vector).items()
    }
    z = np.maximum(x @ views["layer0.weight"] + views["layer0.bias"], 0) @ views["layer1.weight"] + views["layer1.bias"]
    return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)


def test_scores_equal_plain_numpy(tmp_path: Path) -> None:
    spec, plans = made(tmp_path)
    rng = np.random.default_rng(0)
    y = np.arange(ROWS) % CLASSES
    x = (rng.standard_normal((ROWS, FEATURES)) + y[:, None]).astype(np.float32)
    lines = [line for plan in plans for line in mapped(spec, plan, "score")]
    assert all(key.endswith(tasks.METRICS) for key, _ in lines)
    outputs = collect(spec, reduced(spec, lines), range(2))
    for index, trial in enumerate(spec.trials):
        test = trial.rule.parts(np.arange(ROWS), y, {}) == TEST
        probabilities = forward(spec, index, x[test], starts(spec)[index].vector)
        parts = [outputs[index].records[worker].test.to_json() for worker in range(WORKERS)]
        assert sum(part["rows"] for part in parts) == test.sum() == 24
        assert sum(part["correct"] for part in parts) == (probabilities.argmax(axis=1) == y[test]).sum()
        loss = -np.log(probabilities[np.arange(24), y[test]]).sum()
        assert math.fsum(part["losses"][0] for part in parts) == pytest.approx(loss, rel=1e-5)


def test_scaling_is_that_of_the_training_rows_whatever_the_workers(tmp_path: Path) -> None:
    scalers = []
    for workers in (1, 2, 3, 6):
        spec, plans = made(tmp_path, workers=workers)
        lines = [line for plan in plans for line in mapped(spec, plan, "scale", {})]
        outputs = collect(spec, reduced(spec, lines, {}), range(2))
        assert sorted(outputs[0].stats) == list(range(SHARDS))
        scaler = Scaler.from_stats("standard", FeatureStats.merged(outputs[1].stats[shard] for shard in range(SHARDS)))
        assert scaler is not None
        scalers.append(scaler)
    assert len({scaler.shift.tobytes() + scaler.factor.tobytes() for scaler in scalers}) == 1
    rng = np.random.default_rng(0)
    y = np.arange(ROWS) % CLASSES
    x = (rng.standard_normal((ROWS, FEATURES)) + y[:, None]).astype(np.float32)
    train = x[spec.trials[1].rule.parts(np.arange(ROWS), y, {}) == TRAIN].astype(np.float64)
    np.testing.assert_allclose(scalers[0].shift, train.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(scalers[0].factor, 1 / train.std(axis=0), rtol=1e-12)


def test_a_bad_value_is_one_record_that_names_shard_and_row(tmp_path: Path) -> None:
    x = np.ones((ROWS, FEATURES), np.float32)
    x[4 + 3 * SHARDS, 2] = np.nan  # row 22: the fourth of shard 4, which is worker 1's
    spec, plans = made(tmp_path, x)
    error = error_of(mapped(spec, plans[1]))
    assert isinstance(error, DataError)
    assert {"worker": 1, "shard": "part-00004.parquet", "row": 22}.items() <= error.where.items()
    assert "feature 2 is nan" in str(error)
    assert ERROR_KEY not in dict(mapped(spec, plans[0]))  # the others' rows are good
    with pytest.raises(DataError, match="feature 2 is nan"):
        collect(spec, reduced(spec, [line for plan in plans for line in mapped(spec, plan)]), range(2))


@pytest.mark.parametrize("phase", ["train", "score", "scale"])
def test_a_shard_that_is_not_the_manifests_is_one_record(tmp_path: Path, phase: str) -> None:
    spec, plans = made(tmp_path)
    path = tmp_path / "part-00005.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    error = error_of(mapped(spec, plans[2], phase))
    assert isinstance(error, MismatchError)
    assert (error.where["worker"], error.where["shard"]) == (2, "part-00005.parquet")


@pytest.mark.parametrize("field", ["train_rows", "test_rows", "validation_rows"])
def test_other_rows_than_planned_are_one_record(tmp_path: Path, field: str) -> None:
    spec, plans = made(tmp_path)
    rows = list(getattr(spec.trials[0], field))
    rows[1] += 1
    counts: dict[str, Any] = {field: tuple(rows)}
    changed = replace(spec, trials=(replace(spec.trials[0], **counts),))
    error = error_of(list(tasks.map_task(changed, plans[1], "train", 0, [0], starts(spec), range(2))))
    assert isinstance(error, MismatchError)
    assert f"the plan says {rows[1]}" in str(error)
    assert (error.where["worker"], error.where["split"]) == (1, 0)


def test_a_diverged_trial_does_not_stop_the_others(tmp_path: Path) -> None:
    spec, plans = made(tmp_path)
    models = starts(spec)
    models[0].vector.fill(1e38)
    lines = [line for plan in plans for line in mapped(spec, plan, models=models)]
    outputs = collect(spec, reduced(spec, lines, models), range(2))
    error = outputs[0].diverged
    assert isinstance(error, DivergedError) and error.where["round"] == 0
    assert outputs[0].parts == {} and outputs[1].diverged is None
    assert sorted(outputs[1].parts) == [0]
    assert outputs[0].records[0].test.to_json()["losses"] == [None]  # scored, and found not finite


def test_averaged_state_that_is_not_finite_is_divergence(tmp_path: Path) -> None:
    """Adam's squares can overflow while its weights are finite."""
    spec, plans = made(tmp_path, train={"optimizer": "adam", "optimizer_state": "average", "lr": 1e-3})
    models = starts(spec)
    models[0].vector[-1] = np.inf  # of v: its weight stands still, and no weight is ever infinite
    lines = mapped(spec, plans[0], models=models)
    records = {key: decode_record(value)[1] for key, value in lines if key.endswith(tasks.METRICS)}
    assert records[SliceKey(0, 0).encode() + tasks.METRICS]["diverged"]["kind"] == "DivergedError"
    assert "diverged" not in records[SliceKey(1, 0).encode() + tasks.METRICS]


def test_a_missing_worker_is_told(tmp_path: Path) -> None:
    spec, plans = made(tmp_path)
    lines = reduced(spec, [*mapped(spec, plans[0]), *mapped(spec, plans[2])])
    found = {key: value for key, value in lines if key.endswith(tasks.MISSING)}
    assert {key: decode_record(value)[1] for key, value in found.items()} == {
        SliceKey(trial, 0).encode() + tasks.MISSING: {"workers": [1]} for trial in range(2)
    }
    assert all(output.parts == {} for output in collect(spec, lines, range(2)).values())


def test_bad_partials_are_one_record_each(tmp_path: Path) -> None:
    spec, plans = made(tmp_path)
    key = SliceKey(0, 0).encode()
    good = [value for plan in plans for own, value in mapped(spec, plan) if own == key]
    fine = decode_partial(key, good[1])

    def told(values: list[bytes], name: bytes = key) -> str:
        error = error_of(list(tasks.reduce_task(spec, name, values, starts(spec))))
        assert error.where["slice"] == name.decode("ascii", "backslashreplace")
        return f"{type(error).__name__}: {error}"

    damaged = good[1][:-9] + bytes([good[1][-9] ^ 1]) + good[1][-8:]
    assert "checksum" in told([good[0], damaged])
    assert "same worker" in told([good[0], good[0]])
    assert "not in the plan" in told([good[0], encode_partial(key, replace(fine, worker=WORKERS))])
    assert "another model" in told([encode_partial(key, replace(fine, fingerprint="x"))])
    assert "expected" in told([encode_partial(key, replace(fine, weights=fine.weights[1:]))])
    infinite = fine.weights.copy()
    infinite[3] = np.inf
    assert told([encode_partial(key, replace(fine, weights=infinite))]).startswith("DivergedError")
    assert "slice 1 of 1" in told([], SliceKey(0, 1).encode())
    assert "trial 2 is not in this job" in told([], SliceKey(2, 0).encode())
    assert "not a slice key" in told([], b"nonsense \xff")


def test_records_pass_a_reducer_as_they_are(tmp_path: Path) -> None:
    spec, _ = made(tmp_path)
    for key in (ERROR_KEY, SliceKey(0, 0).encode() + tasks.METRICS, SliceKey(1, 3).encode() + tasks.STATS):
        values = [b"00000000\t{}", b"whatever"]
        assert list(tasks.reduce_task(spec, key, iter(values), {})) == [(key, value) for value in values]


def test_the_summary_of_drift() -> None:
    # distance, |step|^2, |mean step|^2, dot, |mean|^2, over two blocks
    blocks = [[4.0, 9.0, 1.0, 1.0, 9.0], [5.0, 16.0, 3.0, 2.0, 0.0]]
    assert drift_summary(blocks).to_json() == {"relative": 1.0, "cosine": pytest.approx(3 / (5 * 2))}
    assert drift_summary([[0.0] * 5]) == DriftSummary(None, None)
    tiny, huge = 1e-200, math.inf
    assert drift_summary([[tiny] * 5]).to_json() == {"relative": 1.0, "cosine": pytest.approx(1.0)}
    assert drift_summary([[huge] * 5]) == DriftSummary(None, None)
    assert drift_summary([[1.0, huge, 1.0, huge, math.nan]]) == DriftSummary(None, None)


def test_reading_is_told_as_reading_once_for_all_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, plans = made(tmp_path)
    slow, pauses, row_group = 0.01, 0, ShardReader.row_group

    def slowly(*arguments: Any, **options: Any) -> Any:
        nonlocal pauses
        pauses += 1
        time.sleep(slow)
        return row_group(*arguments, **options)

    monkeypatch.setattr(ShardReader, "row_group", slowly)
    records = [decode_record(value)[1] for key, value in mapped(spec, plans[0]) if key.endswith(tasks.METRICS)]
    first, second = (record["seconds"]["read"] for record in records)
    assert pauses > 0
    assert first >= pauses * slow
    assert second < first
