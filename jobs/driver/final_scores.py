"""The end of a run: score the last models, choose which to keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from jobs.mapreduce.launcher import RoundLauncher, model_files
from nnlib.core.arrays import Vector
from nnlib.core.errors import MismatchError
from nnlib.core.metrics import metrics_of
from nnlib.core.run_result import DivergedTrial, RunResult, TrialName, TrialResult
from nnlib.evaluation.model_selection import chosen_combination, combinations_of
from nnlib.run.checkpoint import Checkpoint
from nnlib.run.final_result import FinalResult, FinalTrial
from nnlib.run.model_file import model_digest, named_arrays, pack
from nnlib.run.round_metrics import TrialScores
from nnlib.run.round_store import RoundStore
from nnlib.training.advance import watch
from nnlib.training.round_events import mean
from nnlib.training.round_result import TrialOutput


def final_scores(
    site: RoundLauncher,
    store: RoundStore,
    last: Checkpoint,
    rounds: int | None,
    outputs: Mapping[int, TrialOutput] | None = None,
    *,
    detailed: bool = True,
) -> tuple[FinalResult, dict[str, Vector]]:
    """Choose which model of each trial is kept; returns their scores, and their arrays by name.

    ``rounds`` is the number of rounds planned. ``outputs`` are the scores of the last models, if they are known; else
    a job of 0 epochs makes them. With ``train.keep: best`` a trial's model is the one of the round with the least
    validation loss, or the best `train.stop.metric`. Rounds are not scored in detail, so another job scores such models
    again, unless ``detailed`` is false: then no score has details.
    """
    spec, everyone = site.spec, range(len(site.spec.trials))
    if outputs is None:
        outputs = site.run("score", last.round, everyone, *model_files(store, last))
    trials: list[FinalTrial] = []
    arrays: dict[str, Vector] = {}
    kept = []
    for index in everyone:
        state, trial, scores = replace(last.trials[index]), spec.trials[index], outputs[index].scores
        assert scores is not None
        model, round_ = state.model, state.round
        if spec.config.train.keep == "best" and state.status != "diverged":
            if state.status == "active":
                watch(state, state.round, scores.validation, spec.config)
            if state.best_round is not None and state.best_round != state.round:
                round_ = state.best_round
                model = store.model(index, round_)
                scores = _scores_of(store, index, round_)
        arrays |= named_arrays(index, model, spec.model(trial).layout)
        kept.append(model)
        trials.append(
            FinalTrial(
                trial=index,
                fold=trial.fold,
                folds=spec.config.split.folds,
                overrides=trial.overrides,
                status=state.status,
                reason=state.reason,
                round=round_,
                scores=scores,
            )
        )
    final = FinalResult(last.round, rounds, spec.dataset.task, model_digest(kept), tuple(trials))
    if not detailed:
        return final.without_details(), arrays
    earlier = [trial.trial for trial in trials if trial.round != last.trials[trial.trial].round]
    if earlier:
        final = _with_details(site, final, arrays, earlier, model_files(store, last)[1])
    return final, arrays


def _with_details(
    site: RoundLauncher, final: FinalResult, arrays: Mapping[str, Vector], earlier: Sequence[int], state: str | None
) -> FinalResult:
    """Score the models of the ``earlier`` trials again, in detail.

    ``state`` is the address of an averaged optimizer state of any round: tasks read one, though scores do not depend on
    it. Where workers were missing, other rows were scored than in the model's own round: then its scores stay without
    details.
    """
    outputs = site.run("score", final.rounds, earlier, site.session.put("kept.safetensors", pack(arrays)), state)
    trials = list(final.trials)
    for index in earlier:
        again, before = outputs[index].scores, trials[index].scores
        assert again is not None
        if again.without_details() == before.without_details():
            trials[index] = replace(trials[index], scores=again)
    return replace(final, trials=tuple(trials))


def _scores_of(store: RoundStore, trial: int, round_: int) -> TrialScores:
    """The scores of a trial's model after ``round_`` rounds: the next round's job made them."""
    for entry in store.log.metrics(round_ + 1).trials:
        if entry.trial == trial and entry.scored_round == round_:
            return entry.scores
    raise MismatchError("the scores of the best round are not there", round=round_, trial=trial)


def result_of(final: FinalResult, run_dir: str, seconds: float) -> RunResult:
    """Make the result of a run from its final scores; ``seconds`` is what the command took."""
    classes = final.task == "classification"
    trials = tuple(map(_trial_result, final.trials))
    is_sweep = any(trial.overrides for trial in final.trials)
    return RunResult(
        scores={name: mean([trial.scores.get(name) for trial in trials]) for name in _names(trials, final.task)},
        trials=trials,
        model_sha256=final.model_sha256,
        rounds=final.rounds,
        seconds=round(seconds, 3),
        run_dir=run_dir,
        diverged=tuple(
            DivergedTrial(trial.trial, _name_of(trial), trial.reason)
            for trial in final.trials
            if trial.status == "diverged"
        ),
        chosen=chosen_combination(combinations_of(final.trials)) if is_sweep else None,
        is_regression=not classes,
    )


def _names(trials: Sequence[TrialResult], task: str) -> list[str]:
    """The metrics that any trial has, in the order of the table."""
    return [name for name in metrics_of(task) if any(name in trial.scores for trial in trials)]


def _trial_result(trial: FinalTrial) -> TrialResult:
    return TrialResult(
        name=_name_of(trial),
        scores=trial.test.values(),
        status=trial.status,
        round=trial.round,
        missing=trial.scores.missing,
        approximate=trial.test.error,
    )


def _name_of(trial: FinalTrial) -> TrialName:
    return TrialName(trial.split, trial.fold if trial.folds else None, trial.overrides)
