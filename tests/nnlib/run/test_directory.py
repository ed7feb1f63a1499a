"""The run directory: what it stores reads back, a damaged file is a typed error, the metrics' view joins rounds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shards import write_dataset

from jobs.driver import driver
from nnlib.config.schema import Config
from nnlib.core.errors import MismatchError, NnjobsError, UsageError
from nnlib.core.layout import ModelState
from nnlib.run.directory import CONFIG, FINAL_METRICS, FINAL_MODEL, METRICS_VIEW, SPEC, RunDirectory
from nnlib.run.final_result import FinalResult
from nnlib.run.metrics_view import metrics_lines, view_text
from nnlib.run.model_file import model_digest, named_arrays
from nnlib.run.planner import make_spec
from nnlib.run.round_length import round_count
from nnlib.run.spec import JobSpec, initial_vector


def made(where: Path, **sections: Any) -> JobSpec:
    y = np.arange(60) % 3
    x = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32) + y[:, None].astype(np.float32)
    dataset = write_dataset(where / "data", x, y, shards=2, classes=3)
    document: dict[str, Any] = {
        "data": {"path": str(where / "data")},
        "run_dir": str(where / "run"),
        "workers": 2,
        "split": {"seeds": [0, 1], "validation": 0.2},
        "model": {"hidden": [3]},
        "train": {"epochs": 5, "epochs_per_round": 2},
    }
    for section, values in sections.items():
        document[section] = {**document.get(section, {}), **values}
    return make_spec(Config.model_validate(document), dataset)[0]


def test_a_run_exists_with_its_spec(tmp_path: Path) -> None:
    spec = made(tmp_path)
    with pytest.raises(UsageError, match="no run here"):
        RunDirectory.open(str(tmp_path / "run"))
    run = RunDirectory(str(tmp_path / "run"))
    run.refuse_if_exists()
    run.write_spec(spec)
    again = RunDirectory.open(str(tmp_path / "run"))
    assert again.spec() == spec
    assert again.config() == spec.config
    assert [layout.fingerprint for layout in again.rounds(spec).layouts] == [
        spec.model(trial).layout.fingerprint for trial in spec.trials
    ]
    with pytest.raises(UsageError, match="holds a run already"):
        again.refuse_if_exists()


def test_the_spec_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, run = made(tmp_path), RunDirectory(str(tmp_path / "run"))
    order: list[str] = []
    monkeypatch.setattr(run.storage, "write", lambda name, data: order.append(name))
    run.write_spec(spec)
    run.finish(FinalResult(1, 1, "classification", "", ()), {"0.a": np.ones(1)})
    assert order == [CONFIG, SPEC, FINAL_MODEL, FINAL_METRICS]


def test_a_damaged_spec_is_a_typed_error(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path / "run"))
    run.write_spec(made(tmp_path))
    path = tmp_path / "run" / SPEC
    good = json.loads(path.read_bytes())

    def refusal(data: Any) -> str:
        path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
        with pytest.raises(MismatchError) as caught:
            run.spec()
        assert caught.value.where.get("file") == str(path) or "dataset" in caught.value.where
        return str(caught.value)

    for text in (b"", b"{", b"[]", b"\xff\xfe", path.read_bytes()[:-5]):
        refusal(text)
    assert "format_version None" in refusal({})
    assert "format_version 2" in refusal({**good, "format_version": 2})
    for key in ("config", "dataset", "trials"):
        assert key in refusal({name: value for name, value in good.items() if name != key})
        wrong: list[Any] = [None, 5, "x", [5], [{}]]
        for value in wrong:
            refusal({**good, key: value})
    changes: list[dict[str, Any]] = [{"rule": {}}, {"train_rows": 5}, {"scaler": {"scaler.kind": {}}}]
    for change in changes:
        refusal({**good, "trials": [{**good["trials"][0], **change}]})
    refusal({**good, "config": {**good["config"], "no such key": 1}})


def test_every_damage_of_a_spec_is_read_or_refused(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path / "run"))
    run.write_spec(made(tmp_path))
    path = tmp_path / "run" / SPEC
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [data[:end] for end in range(0, len(data) - 2, 97)]
    for place in rng.integers(0, len(data), 1000).tolist():
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(rng.integers(0, 8))
        damaged.append(bytes(flipped))
    for text in damaged:
        path.write_bytes(text)
        try:
            run.spec()
        except NnjobsError as error:
            assert error.exit_code in (2, 3)


def test_final_models_are_those_that_were_scored(tmp_path: Path) -> None:
    spec, run = made(tmp_path), RunDirectory(str(tmp_path / "run"))
    run.write_spec(spec)
    assert run.final() is None
    models = [ModelState(initial_vector(spec, trial)) for trial in spec.trials]
    arrays: dict[str, Any] = {}
    for trial, model in zip(spec.trials, models, strict=True):
        arrays |= named_arrays(trial.index, model, spec.model(trial).layout)
    planned = round_count(spec.config)
    assert planned is not None
    final = FinalResult(3, planned, "classification", model_digest(models), ())
    run.finish(final, arrays)
    assert [model.vector.tobytes() for model in run.final_models(spec)] == [model.vector.tobytes() for model in models]
    assert run.final() == final
    run.finish(replace(final, model_sha256=model_digest(models[::-1])), arrays)
    with pytest.raises(MismatchError, match="model_sha256") as caught:
        run.final_models(spec)
    assert caught.value.where["file"] == str(tmp_path / "run" / FINAL_MODEL)
    run.finish(replace(final, rounds_planned=planned - 1), arrays)
    assert run.final() is None  # it was finished, and then given more epochs


def test_the_view_joins_training_with_the_scores_of_the_model_it_gave(tmp_path: Path) -> None:
    spec = made(tmp_path)
    result = driver.train(spec.config)
    run = RunDirectory.open(result.run_dir)
    spec = run.spec()
    store = run.rounds(spec)
    final = run.final()
    text = view_text(metrics_lines(store, store.rounds(), final))
    lines = [json.loads(line) for line in text.splitlines()]
    assert run.storage.read(METRICS_VIEW).decode() == text
    assert [(line["round"], line["trial"], line["epoch"]) for line in lines] == [
        (round_, trial, min(2 * round_, 5)) for round_ in range(4) for trial in range(2)
    ]
    for line in lines:
        assert line["split"] == spec.trials[line["trial"]].split
        assert (line["training"] is None) == (line["round"] == 0)
        assert line["test"]["rows"] == sum(spec.trials[line["trial"]].test_rows)
        assert line["validation"]["rows"] == sum(spec.trials[line["trial"]].validation_rows)
    for trial in range(2):
        last = next(line for line in lines if (line["round"], line["trial"]) == (3, trial))
        assert last["test"]["accuracy"] == result.trials[trial].test_accuracy
        (entry,) = (entry for entry in store.log.metrics(2).trials if entry.trial == trial)
        second = next(line for line in lines if (line["round"], line["trial"]) == (1, trial))
        # round 2's job scored the model of round 1
        assert second["test"] == {**entry.scores.test.values(), **entry.scores.test.to_json()}
        assert len(second["training"]["workers"]) == 2 and len(second["training"]["workers"][0]["losses"]) == 2
    unfinished = [line.to_json() for line in metrics_lines(store, store.rounds(), None)]
    assert "test" not in unfinished[-1] and unfinished[-1]["training"] == lines[-1]["training"]
