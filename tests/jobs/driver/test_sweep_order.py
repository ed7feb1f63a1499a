"""A sweep whose keys are not in alphabetical order: spec.json sorts them, the trials keep the order of the run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from driver_experiment import blobs, config
from shards import write_dataset

from jobs.driver import driver
from jobs.driver.verification import Verification, verify, verify_trials
from jobs.experiments.evaluation import evaluate
from nnlib.core.events import RoundDone
from nnlib.evaluation.model_selection import choose, combinations_of
from nnlib.run.directory import RunDirectory
from nnlib.run.planner import make_spec

SWEEP = {"train.lr": [0.05, 0.2], "model.hidden": [[2], [3]]}
COMBINATIONS = [(0.05, [2]), (0.05, [3]), (0.2, [2]), (0.2, [3])]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, and a finished run of such a sweep."""
    folder = tmp_path_factory.mktemp("sweep")
    x, y = blobs(200)
    write_dataset(folder / "data", x, y, shards=4, classes=3)
    driver.train(swept(folder, folder / "run"))
    return folder


def swept(folder: Path, run: Path | None, **changes: Any) -> Any:
    settings = {"sweep": SWEEP, "split__seeds": [0, 1], "split__validation": 0.2, "train__epochs": 4, "workers": 2}
    return config(str(folder / "data"), run, **{**settings, **changes})


def overrides(run: Path) -> list[tuple[float, list[int]]]:
    trials = RunDirectory.open(str(run)).spec().trials
    return [(trial.overrides["train.lr"], trial.overrides["model.hidden"]) for trial in trials if trial.split == 0]


def test_it_verifies_whatever_the_order_of_its_keys(place: Path) -> None:
    assert overrides(place / "run") == COMBINATIONS
    assert list(RunDirectory.open(str(place / "run")).spec().config.sweep) == sorted(SWEEP)
    found = verify(str(place / "run"), every=True)
    assert found.problems == [] and found.recomputed == [0, 1, 2]


@pytest.mark.parametrize("change", ["overrides", "rows", "twice"])
def test_a_trial_that_is_not_planned_is_named(place: Path, tmp_path: Path, change: str) -> None:
    run = Path(shutil.copytree(place / "run", tmp_path / "run"))
    spec = json.loads((run / "spec.json").read_bytes())
    trial = spec["trials"][2]
    if change == "overrides":
        trial["overrides"] = {"train.lr": 0.05, "model.hidden": [4]}
    elif change == "rows":
        trial["train_rows"][0] += 1
    else:
        spec["trials"][2] = {**spec["trials"][0], "index": 2}
    (run / "spec.json").write_text(json.dumps(spec))
    assert "ledger line 0: trials are not those of spec.json" in verify(str(run)).problems
    # Also if somebody had altered the ledger to match.
    altered, found = RunDirectory.open(str(run)).spec(), Verification(str(run), 0)
    verify_trials(make_spec(altered.config, altered.dataset)[0].trials, altered.trials, found)
    assert found.problems == ["spec.json: trial 2 is not what its split seed gives"]


def test_it_goes_on_to_the_bits_of_one_that_was_never_stopped(place: Path, tmp_path: Path) -> None:
    def stop(event: object) -> None:
        if isinstance(event, RoundDone) and event.round == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        driver.train(swept(place, tmp_path / "run"), listen=stop)
    driver.train(swept(place, tmp_path / "run"), resume=True)
    for name in ("final/metrics.json", "final/model.safetensors", "metrics.jsonl", "rounds/000002/ledger.json"):
        assert (tmp_path / "run" / name).read_bytes() == (place / "run" / name).read_bytes(), name


def test_another_run_starts_from_the_same_combination(place: Path, tmp_path: Path) -> None:
    """Its sweep is written in alphabetical order, so its trials are numbered otherwise."""
    other = swept(place, tmp_path / "other", sweep=dict(sorted(SWEEP.items())), train__epochs=0)
    driver.train(other, start_from=str(place / "run"))
    assert overrides(tmp_path / "other") == [(lr, hidden) for hidden in ([2], [3]) for lr in (0.05, 0.2)]
    run, again = RunDirectory.open(str(place / "run")), RunDirectory.open(str(tmp_path / "other"))
    models = {_key(trial): model for trial, model in zip(run.spec().trials, run.final_models(run.spec()), strict=True)}
    for trial, model in zip(again.spec().trials, again.final_models(again.spec()), strict=True):
        assert model.vector.tobytes() == models[_key(trial)].vector.tobytes()


def _key(trial: Any) -> str:
    return json.dumps([trial.split, dict(trial.overrides)], sort_keys=True)


def test_an_evaluation_chooses_one_of_its_combinations(place: Path, tmp_path: Path) -> None:
    wanted = swept(place, None).model_copy(
        update={"evaluate": swept(place, None).evaluate.model_copy(update={"workers": [2], "control": False})}
    )
    result = evaluate(wanted, str(tmp_path / "evaluation"), report=False)
    final = RunDirectory.open(str(place / "run")).final()
    assert final is not None
    best = choose(combinations_of(final.trials))
    assert best is not None
    (choice,) = result["chosen"].values()
    assert choice["overrides"] == best.overrides
    scores = {(score["overrides"], score["split"]): score["accuracy"] for score in result["scores"]}
    assert scores == {
        (json.dumps(dict(trial.overrides), sort_keys=True), trial.split): trial.test.value("accuracy")
        for trial in final.trials
    }
