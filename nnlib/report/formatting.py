"""Writes a report's numbers and commands as text for people."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence

from nnlib.core.metrics import cut_interval, is_share
from nnlib.evaluation.statistics import wilson
from nnlib.report.collect import RunFacts
from nnlib.run.score_summary import ScoreSummary


def format_score(value: float | None, name: str) -> str:
    """Return a score as text: an accuracy in percent, others with four digits."""
    return format_share(value) if is_share(name) else format_number(value)


def format_share(value: float | None) -> str:
    """Return a share of 1 as text, in percent; "–" for None."""
    return "–" if value is None else f"{100 * value:.2f} %"


def format_number(value: float | None) -> str:
    """Return a number with four digits as text; "–" for None, NaN and infinity."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.4g}"


def format_interval(interval: Sequence[float] | None, name: str) -> str:
    """Return an interval of a score as text, of an accuracy in percent, cut to the values that there can be."""
    if interval is None:
        return "–"
    low, high = cut_interval(name, interval)
    if is_share(name):
        return f"{100 * low:.2f} to {100 * high:.2f} %"
    return f"{low:.4g} to {high:.4g}"


def format_difference(value: float | None, name: str) -> str:
    """Return a difference of scores as text, with its sign; of accuracies in percentage points."""
    if value is None:
        return "–"
    return f"{100 * value:+.2f} points" if is_share(name) else f"{value:+.4g}"


def format_p_value(value: float | None) -> str:
    """Return a p-value as text, with three digits."""
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def format_size(count: float) -> str:
    """Return an amount in bytes as text, in bytes, kB, MB or GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError


def format_duration(seconds: float) -> str:
    """Return seconds as text: seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def accuracy_interval(test: ScoreSummary) -> tuple[float, float] | None:
    """Return the 95 % interval (Wilson) of one model's accuracy from its test scores; None where there is none."""
    accuracy = test.value("accuracy")
    return None if not test.rows or accuracy is None else wilson(round(accuracy * test.rows), test.rows)


def verify_command(run: RunFacts) -> str:
    """Return the command that checks a run."""
    return f"nnjobs verify {shlex.quote(run.directory.address)}"


def describe_round_cost(run: RunFacts) -> str:
    """Say what a round of a run costs besides training, in epochs, and how many rounds it chose."""
    cost = run.spec.config.sync.round_cost
    return f"{run.name} {format_number(cost)} epochs, {run.rounds} rounds"


def describe_losses(runs: Sequence[RunFacts]) -> list[str]:
    """Say what was made without all workers: a sentence for training, and one for the scores of the kept models."""
    sentences = []
    for run in runs:
        rounds = [gap.round for gap in run.gaps if gap.round is not None]
        if rounds:
            sentences.append(f"{run.name} trained {_counted(rounds)} without all workers")
        lacking = [(trial.test.rows, missing.test_rows) for trial in run.scored if (missing := trial.scores.missing)]
        if lacking:
            unscored = sum(missing for _, missing in lacking)
            rows = unscored + sum(scored for scored, _ in lacking)
            trials = f" of {len(lacking)} trials" if len(run.scored) > 1 else ""
            sentences.append(f"the scores{trials} of {run.name} lack {unscored:,} of {rows:,} test rows")
    return sentences


def _counted(rounds: Sequence[int]) -> str:
    if len(rounds) > 5:
        return f"{len(rounds)} rounds"
    return f"round{'s' if len(rounds) > 1 else ''} {', '.join(map(str, rounds))}"
