"""``metrics.jsonl``, a view made from the committed rounds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from nnlib.run.checkpoint import RoundStore

SCORED = ("test", "validation", "split", "missing")
"""What a line of the metrics takes from a trial's scores; ``missing`` is there where a quorum's workers were."""


def metrics_lines(store: RoundStore, rounds: Iterable[int], final: dict[str, Any] | None) -> list[str]:
    """``metrics.jsonl``: a line per trial and round, with that round's training and the scores of the model it gave.

    The model of round n is scored by the job of round n + 1 (the last one by the final job), so the view joins them.
    """
    scores: dict[tuple[int, int], dict[str, Any]] = {}
    training: dict[tuple[int, int], dict[str, Any]] = {}
    epochs: dict[int, int] = {0: 0}
    for round_ in rounds:
        metrics = store.told_metrics(round_)
        epochs[round_] = metrics.get("epoch", 0)
        for entry in metrics.get("trials", []):
            key = (entry["trial"], entry["scored_round"])
            scores[key] = {name: entry[name] for name in SCORED if name in entry}
            if entry.get("training") is not None:
                training[entry["trial"], round_] = entry["training"]
    for entry in (final or {}).get("trials", []):
        key = (entry["trial"], entry["round"])
        scores[key] = {name: entry[name] for name in SCORED if name in entry}
    lines = []
    for trial, round_ in sorted(set(scores) | set(training), key=lambda pair: (pair[1], pair[0])):
        line = {
            "round": round_,
            "epoch": epochs.get(round_),
            "trial": trial,
            **scores.get((trial, round_), {}),
            "training": training.get((trial, round_)),
        }
        lines.append(json.dumps(line, sort_keys=True, separators=(",", ":")))
    return lines
