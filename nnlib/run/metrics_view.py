"""``metrics.jsonl``, a view of the committed rounds: nothing reads it back, every command reads the rounds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nnlib.run.final_result import FinalResult
from nnlib.run.round_metrics import TrialScores, TrialTraining, WorkerTraining
from nnlib.run.round_store import RoundStore


@dataclass(frozen=True)
class MetricsLine:
    """A trial after a round: the scores of the model that the round made, and the round's training.

    ``epoch`` counts the epochs trained so far. ``scores`` is None while the model has not been scored, ``training``
    where the trial was not trained in that round.
    """

    round: int
    epoch: int
    trial: int
    scores: TrialScores | None
    training: TrialTraining | None

    @property
    def workers(self) -> tuple[WorkerTraining, ...]:
        """The workers that trained the trial in that round."""
        return () if self.training is None else self.training.workers

    def to_json(self) -> dict[str, Any]:
        """Return the line as JSON-able data."""
        return {
            "round": self.round,
            "epoch": self.epoch,
            "trial": self.trial,
            **({} if self.scores is None else _scores_json(self.scores)),
            "training": None if self.training is None else self.training.to_json(),
        }


def _scores_json(scores: TrialScores) -> dict[str, Any]:
    """The scores as they are stored, and with them the metrics that follow."""
    data = scores.to_json()
    for name, summary in (("test", scores.test), ("validation", scores.validation)):
        data[name] = {**summary.values(), **data[name]}
    return data


def metrics_lines(store: RoundStore, rounds: Iterable[int], final: FinalResult | None) -> list[MetricsLine]:
    """Join the metrics of ``rounds`` to a line per round and trial, in that order.

    The model of round n is scored by the job of round n + 1, the last one by the final job (``final``).
    """
    scores: dict[tuple[int, int], TrialScores] = {}
    training: dict[tuple[int, int], TrialTraining] = {}
    epochs = {0: 0}
    for round_ in rounds:
        metrics = store.log.recent_metrics(round_)
        epochs[round_] = metrics.epoch
        for entry in metrics.trials:
            scores[entry.scored_round, entry.trial] = entry.scores
            if entry.training is not None:
                training[round_, entry.trial] = entry.training
    for kept in () if final is None else final.trials:
        scores[kept.round, kept.trial] = kept.scores
    return [
        MetricsLine(round_, epochs[round_], trial, scores.get((round_, trial)), training.get((round_, trial)))
        for round_, trial in sorted(set(scores) | set(training))
    ]


def view_text(lines: Iterable[MetricsLine]) -> str:
    """The text of ``metrics.jsonl``: one JSON object a line."""
    return "".join(json.dumps(line.to_json(), sort_keys=True, separators=(",", ":")) + "\n" for line in lines)
