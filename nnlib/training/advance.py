"""From a checkpoint and a round's result to the next checkpoint: pure, so that replaying a round is running it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from nnlib.config.schema import Config
from nnlib.core.metrics import METRICS
from nnlib.optim import build_outer
from nnlib.run.checkpoint import Checkpoint, TrialState
from nnlib.run.ledger import round_facts
from nnlib.run.round_length import epochs_after
from nnlib.run.round_metrics import RoundMetrics, TrialMetrics, TrialTraining, WorkerTraining
from nnlib.run.score_summary import ScoreSummary
from nnlib.run.spec import JobSpec
from nnlib.training.round_result import TrialOutput


def advance(spec: JobSpec, before: Checkpoint, outputs: Mapping[int, TrialOutput]) -> Checkpoint:
    """The checkpoint after a round: every trial of the job stopped early, diverged, or moved by the outer step."""
    epochs = epochs_after(spec.config, before.metrics)
    trials, entries = list(before.trials), []
    for index, output in outputs.items():
        trials[index] = _next_state(spec.settings(spec.trials[index]), before.trials[index], before.round, output)
        entries.append(_trial_metrics(spec, index, before.round, output, trials[index]))
    kernels = sorted({record.numerics for output in outputs.values() for record in output.records.values()})
    metrics = RoundMetrics(before.round + 1, epochs.stop, epochs, tuple(entries))
    return Checkpoint(metrics.round, trials, metrics, round_facts(spec, metrics, kernels))


def epochs_left(spec: JobSpec, checkpoint: Checkpoint) -> range:
    """The global epochs of the round that follows a checkpoint; empty if none does."""
    if all(trial.status != "active" for trial in checkpoint.trials):
        return range(0)
    return epochs_after(spec.config, checkpoint.metrics)


def watched_metric(config: Config) -> str:
    """Return the name of the metric that early stopping and `train.keep: best` watch on the validation rows."""
    return config.train.stop.metric if config.train.stop is not None else "loss"


def watch(state: TrialState, round_: int, validation: ScoreSummary, config: Config) -> None:
    """Update early stopping's memory: the best value of `watched_metric` so far, and how many scored rounds were no
    better. A value that is not defined is no better."""
    name = watched_metric(config)
    min_delta = config.train.stop.min_delta if config.train.stop is not None else 0.0
    value, best = validation.value(name), state.best_value
    if value is not None and (best is None or METRICS[name].is_better(value, best, min_delta)):
        state.best_value, state.best_round, state.waited = value, round_, 0
    else:
        state.waited += 1


def _next_state(config: Config, old: TrialState, round_: int, output: TrialOutput) -> TrialState:
    """A trial after the job of round ``round_``. A stopped or diverged trial keeps the model it went in with."""
    state = replace(old)
    assert output.scores is not None
    if config.train.stop is not None or config.train.keep == "best":
        watch(state, round_, output.scores.validation, config)
        if config.train.stop is not None and state.waited >= config.train.stop.patience:
            state.status, state.reason = "stopped", _stop_reason(state, config)
            return state
    if output.diverged is not None:
        state.status, state.reason = "diverged", str(output.diverged).splitlines()[0]
        return state
    assert output.average is not None
    size = old.weights.size
    outer = build_outer(config.sync.outer, size)
    weights, memory = outer.apply(old.weights, output.average[:size], old.outer.astype(np.float64))
    if not np.isfinite(weights).all():
        state.status, state.reason = "diverged", f"round {round_}: the outer step gave a weight that is not finite"
        return state
    state.weights, state.optimizer, state.outer = weights, output.average[size:], memory
    state.buffers = output.buffers
    state.round = round_ + 1
    return state


def _stop_reason(state: TrialState, config: Config) -> str:
    name = watched_metric(config)
    if state.best_round is None and name != "loss":
        return f"no validation {name}: it is not defined on these rows (a class may have none)"
    return f"no better validation {name} since round {state.best_round}"


def _trial_metrics(
    spec: JobSpec, index: int, scored_round: int, output: TrialOutput, state: TrialState
) -> TrialMetrics:
    """A trial's part of a round's metrics: scores of the model it started from, and its training."""
    training = None
    if output.average is not None and state.round == scored_round + 1:
        workers = tuple(
            WorkerTraining(worker, record.training.examples, record.training.losses, output.drift[worker])
            for worker, record in sorted(output.records.items())
            if record.training is not None
        )
        examples = sum(worker.examples for worker in workers)
        loss = sum(worker.examples * worker.losses[-1] for worker in workers) / examples
        training = TrialTraining(loss, examples, workers)
    assert output.scores is not None
    return TrialMetrics(index, spec.trials[index].fold, scored_round, output.scores, training, state.status)
