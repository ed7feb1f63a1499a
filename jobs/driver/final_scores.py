"""The end of a run: score the last models, choose which to keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jobs.mapreduce.launcher import RoundLauncher, model_files
from nnlib.core.errors import MismatchError
from nnlib.evaluation.model_selection import choice_facts, combinations_of
from nnlib.run.checkpoint import Checkpoint, RoundStore
from nnlib.run.model_file import model_digest, named_arrays
from nnlib.training.advance import watch
from nnlib.training.round_events import mean
from nnlib.training.round_result import TrialOutput


def final_scores(
    site: RoundLauncher,
    store: RoundStore,
    last: Checkpoint,
    rounds: int | None,
    outputs: Mapping[int, TrialOutput] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores of the kept models, and the models' arrays by name. ``outputs`` are the scores of the last models, if they
    are known; else a job of 0 epochs makes them.

    With ``train.keep: best`` a trial's model is the one of the round with the least validation loss.
    """
    spec, everyone = site.spec, range(len(site.spec.trials))
    if outputs is None:
        outputs = site.run("score", last.round, everyone, *model_files(store, last))
    entries: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    kept = []
    for index in everyone:
        state, trial, scores = replace(last.trials[index]), spec.trials[index], outputs[index].scores
        lacks = outputs[index].lacks(spec, index)
        model, round_ = state.model, state.round
        if spec.config.train.keep == "best" and state.status != "diverged":
            if state.status == "active":
                watch(state, state.round, scores["validation"]["loss"], spec.config)
            if state.best_round is not None and state.best_round != state.round:
                round_ = state.best_round
                model = store.model(index, round_)
                scores = _scores_of(store, index, round_)
                lacks = {"missing": scores["missing"]} if "missing" in scores else {}
        arrays |= named_arrays(index, model, spec.model(trial).layout)
        kept.append(model)
        entries.append(
            {
                "trial": index,
                "split": trial.split,
                "fold": trial.fold,
                "folds": spec.config.split.folds,
                "overrides": dict(trial.overrides),
                "status": state.status,
                "reason": state.reason,
                "round": round_,
                "test": scores["test"],
                "validation": scores["validation"],
                **lacks,
            }
        )
    final = {
        "rounds": last.round,
        "rounds_planned": rounds,
        "task": spec.dataset.task,
        "model_sha256": model_digest(kept),
        "trials": entries,
    }
    return final, arrays


def _scores_of(store: RoundStore, trial: int, round_: int) -> dict[str, dict[str, Any]]:
    """The scores of a trial's model after ``round_`` rounds: the next round's job made them."""
    for entry in store.metrics(round_ + 1)["trials"]:
        if entry["trial"] == trial and entry["scored_round"] == round_:
            return {name: entry[name] for name in ("test", "validation", "missing") if name in entry}
    raise MismatchError("the scores of the best round are not there", round=round_, trial=trial)


def result_of(final: dict[str, Any], run_dir: str, seconds: float) -> dict[str, Any]:
    """The object that ``--json`` prints. Of a sweep ``chosen`` tells the best combination by the validation rows, None
    if there are none."""
    classes = final["task"] == "classification"
    trials = []
    for entry in final["trials"]:
        test = entry["test"]
        line = {
            "split": entry["split"],
            **_kind_of(entry),
            "test_accuracy": test.get("accuracy"),
            "test_loss": test["loss"],
        }
        if not classes:
            line |= {"test_r2": test["r2"], "test_mse": test["mse"], "test_mae": test["mae"]}
        line |= {"missing": entry["missing"]} if "missing" in entry else {}  # a quorum: not all test rows were scored
        trials.append(line | {"status": entry["status"], "round": entry["round"]})
    result: dict[str, Any] = {
        "test_accuracy": mean([line["test_accuracy"] for line in trials]) if classes else None,
        "trials": trials,
        "model_sha256": final["model_sha256"],
        "rounds": final["rounds"],
        "seconds": round(seconds, 3),
        "run_dir": run_dir,
        "diverged": [
            {"trial": entry["trial"], "split": entry["split"], **_kind_of(entry), "reason": entry["reason"]}
            for entry in final["trials"]
            if entry["status"] == "diverged"
        ],
    }
    if any(entry["overrides"] for entry in final["trials"]):
        result["chosen"] = choice_facts(combinations_of(final["trials"]))
    if not classes:
        result["test_metric"] = {"name": "r2", "value": mean([line["test_r2"] for line in trials])}
    return result


def _kind_of(entry: dict[str, Any]) -> dict[str, Any]:
    """A trial's fold and swept keys, where there are any."""
    kind: dict[str, Any] = {"fold": entry["fold"]} if entry["folds"] else {}
    return kind | ({"overrides": entry["overrides"]} if entry["overrides"] else {})
