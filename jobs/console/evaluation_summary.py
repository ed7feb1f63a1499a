"""The lines at the end of an evaluation: scores, what a sweep chose, whether runs differ, times."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.console.tables import plain_lines
from nnlib.config.schema import Config
from nnlib.core.run_result import ChosenCombination, TrialName
from nnlib.evaluation.model_selection import choice_text, overrides_text, trial_text
from nnlib.evaluation.paper_results import PAPER
from nnlib.evaluation.scores_table import Score, Variant


def score_lines(
    config: Config, scores: Sequence[Mapping[str, Any]], chosen: Mapping[str, Mapping[str, Any] | None] | None = None
) -> list[str]:
    """Return the table of scores: mean and standard deviation over the trials, a column a run, a line an epoch.

    Published numbers are further columns if the configuration names any. Of a sweep (``chosen``: the choice of each run
    by its name) only the trials of the chosen combination count; where nothing was chosen each combination is a line.
    """
    rows = [Score.from_json(score) for score in scores]
    if chosen:
        known = {name: json.dumps(choice["overrides"], sort_keys=True) for name, choice in chosen.items() if choice}
        rows = [row for row in rows if known.get(_variant(row).name, row.overrides) == row.overrides]
    metric = "accuracy" if any(row.main == "accuracy" for row in rows) else "r2"
    columns = list(dict.fromkeys(_variant(row) for row in rows))
    published = {row.epochs: row for row in PAPER} if config.evaluate.published == "paper" else {}
    apart = bool(config.sweep) and not any((chosen or {}).values())
    groups = list(dict.fromkeys(row.overrides for row in rows)) if apart else [None]
    head = ["epochs", *(column.name for column in columns)]
    head += ["paper: sequential", "paper: parallel"] if published else []
    head += [""] if apart else []
    table = []
    for epoch in sorted({row.epoch for row in rows}):
        for group in groups:
            selected = [row for row in rows if row.epoch == epoch and group in (None, row.overrides)]
            values = {
                column: [row.metrics.get(metric) for row in selected if _variant(row) == column] for column in columns
            }
            line = [str(epoch), *(_spread(values[column], metric) for column in columns)]
            if published:
                row = published.get(epoch)
                line += [f"{row.sequential:.2f} %", f"{row.parallel:.2f} %"] if row else ["–", "–"]
            table.append(line + ([] if group is None else [overrides_text(json.loads(group))]))
    trials = len({(row.split, row.fold) for row in rows})
    of = " of what was chosen" if config.sweep and not apart else ""
    title = f"test {'accuracy' if metric == 'accuracy' else 'R2'}{of}, mean ± standard deviation over {trials} trials"
    return [title, *plain_lines(head, table)]


def choice_lines(chosen: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """Say which combination of the sweep each run chose, or why it chose none."""
    return [f"{name}: {choice_text(ChosenCombination.from_json(choice))}" for name, choice in chosen.items()]


def comparison_lines(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the paired tests between runs: a table, and how to read it."""
    if not comparisons:
        return []
    per_cent = comparisons[0]["score"] == "accuracy"
    head = ["first", "second", "the second is", "splits", "difference", "95 % interval", "p", "Wilcoxon p", "effect"]
    table = []
    for pair in comparisons:
        low, high = (_apart(end, per_cent=per_cent) for end in pair["interval"] or (None, None))
        table.append(
            [
                pair["first"],
                pair["second"],
                pair["verdict"],
                str(pair["splits"]),
                _apart(pair["difference"], per_cent=per_cent) + (" points" if per_cent else ""),
                f"{low} to {high}",
                _p(pair["p"]),
                _p(pair["wilcoxon_p"]),
                "–" if pair["effect"] is None else f"{pair['effect']:.2f}",
            ]
        )
    several = f", adjusted for {len(table)} comparisons (Holm)" if len(table) > 1 else ""
    return [
        f"paired over the splits: second less first, test {comparisons[0]['score']} of the kept models",
        *plain_lines(head, table),
        f"p: corrected resampled t-test (Nadeau and Bengio 2003){several}; the words take 0.05; effect: Cohen's d",
    ]


def diverged_lines(diverged: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say which trials diverged. Their scores are those of their last good models."""
    lines = [f"{entry['run']}, {trial_text(TrialName.from_json(entry))}: {entry['reason']}" for entry in diverged]
    return ["diverged, scored by their last good models:", *lines] if lines else []


def time_lines(config: Config, seconds: Mapping[int, Mapping[int, float]]) -> list[str]:
    """Return the table of times, with published ones in it if the configuration names any."""
    published = {row.epochs: row for row in PAPER} if config.evaluate.published == "paper" else {}
    head = ["epochs"]
    for workers in sorted(seconds):
        head += ["1 worker" if workers == 1 else f"{workers} workers", *(["paper"] if published else [])]
    table = []
    for epoch in sorted(next(iter(seconds.values()))):
        line = [str(epoch)]
        for workers in sorted(seconds):
            line.append(f"{seconds[workers][epoch]:.1f} s")
            known = published.get(epoch)
            if published:
                line.append(f"{known.seconds[workers]:.0f} s" if known and workers in known.seconds else "–")
        table.append(line)
    return ["seconds of training, one split", *plain_lines(head, table)]


def _variant(row: Score) -> Variant:
    return Variant(row.workers, row.streams)


def _spread(values: Sequence[float | None], metric: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    factor, unit = (100.0, " %") if metric == "accuracy" else (1.0, "")
    mean = statistics.fmean(known) * factor
    if len(known) == 1:
        return f"{mean:.2f}{unit}"
    return f"{mean:.2f} ± {statistics.stdev(known) * factor:.2f}{unit}"


def _apart(value: float | None, *, per_cent: bool) -> str:
    if value is None:
        return "–"
    return f"{100 * value:+.2f}" if per_cent else f"{value:+.4g}"


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
