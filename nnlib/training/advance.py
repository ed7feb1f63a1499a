"""What a round's job turns a checkpoint into: pure, so that replaying a round is the same as running it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from nnlib.config.schema import Config
from nnlib.optim import build_outer
from nnlib.run.checkpoint import Checkpoint, TrialState
from nnlib.run.ledger import round_facts
from nnlib.run.round_length import epochs_after
from nnlib.run.spec import JobSpec
from nnlib.training.round_result import TrialOutput


def advance(spec: JobSpec, before: Checkpoint, outputs: Mapping[int, TrialOutput]) -> Checkpoint:
    """The checkpoint after a round: every trial of the job stopped early, diverged, or moved by the outer step."""
    epochs = epochs_after(spec.config, before.metrics)
    trials, entries = list(before.trials), []
    for index, output in outputs.items():
        trials[index] = _next_state(spec.settings(spec.trials[index]), before.trials[index], before.round, output)
        entries.append(_entry(spec, index, before.round, output, trials[index]))
    round_ = before.round + 1
    kernels = sorted({record["numerics"] for output in outputs.values() for record in output.records.values()})
    metrics = {"round": round_, "epoch": epochs.stop, "epochs": [epochs.start, epochs.stop], "trials": entries}
    return Checkpoint(round_, trials, metrics, round_facts(spec, round_, epochs, entries, kernels))


def epochs_left(spec: JobSpec, checkpoint: Checkpoint) -> range:
    """The global epochs of the round that follows a checkpoint; empty if none does."""
    if all(trial.status != "active" for trial in checkpoint.trials):
        return range(0)
    return epochs_after(spec.config, checkpoint.metrics)


def watch(state: TrialState, round_: int, loss: float | None, config: Config) -> None:
    """Early stopping's memory: the best validation loss so far, and how many scored rounds were no better."""
    min_delta = config.train.stop.min_delta if config.train.stop is not None else 0.0
    if loss is not None and (state.best_loss is None or loss < state.best_loss - min_delta):
        state.best_loss, state.best_round, state.waited = loss, round_, 0
    else:
        state.waited += 1


def _next_state(config: Config, old: TrialState, round_: int, output: TrialOutput) -> TrialState:
    """A trial after the job of round ``round_``. A stopped or diverged trial keeps the model it went in with."""
    state = replace(old)
    if config.train.stop is not None or config.train.keep == "best":
        watch(state, round_, output.scores["validation"]["loss"], config)
        if config.train.stop is not None and state.waited >= config.train.stop.patience:
            state.status, state.reason = "stopped", f"no better validation loss since round {state.best_round}"
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


def _entry(spec: JobSpec, index: int, scored_round: int, output: TrialOutput, state: TrialState) -> dict[str, Any]:
    """A trial's part of a round's metrics: scores of the model it started from, and its training."""
    training = None
    if output.average is not None and state.round == scored_round + 1:
        workers = [
            {
                "worker": worker,
                "examples": record["examples"],
                "losses": record["losses"],
                "drift": output.drift[worker],
            }
            for worker, record in sorted(output.records.items())
        ]
        examples = sum(worker["examples"] for worker in workers)
        training = {
            "loss": sum(worker["examples"] * worker["losses"][-1] for worker in workers) / examples,
            "examples": examples,
            "workers": workers,
        }
    return {
        "trial": index,
        "split": spec.trials[index].split,
        "fold": spec.trials[index].fold,
        "scored_round": scored_round,
        "test": output.scores["test"],
        "validation": output.scores["validation"],
        "training": training,
        "status": state.status,
        **output.lacks(spec, index),
    }
