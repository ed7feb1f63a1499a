"""A report's numbers and commands as people read them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence

from nnlib.evaluation.intervals import wilson
from nnlib.report.collect import RunFacts
from nnlib.run.score_summary import ScoreSummary


def score(value: float | None, name: str) -> str:
    """A score as people read it: accuracies in percent."""
    return share(value) if name.endswith("accuracy") else number(value)


def share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def number(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.4g}"


def interval(interval: Sequence[float] | None, name: str) -> str:
    if interval is None:
        return "–"
    low, high = interval
    if name.endswith("accuracy"):
        return f"{100 * max(low, 0.0):.2f} to {100 * min(high, 1.0):.2f} %"
    return f"{low:.4g} to {high:.4g}"


def apart(value: float | None, name: str) -> str:
    """A difference of scores, with its sign; of accuracies in percentage points."""
    if value is None:
        return "–"
    return f"{100 * value:+.2f} points" if name.endswith("accuracy") else f"{value:+.4g}"


def p_value(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError


def clock(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def wilson_interval(test: ScoreSummary) -> tuple[float, float] | None:
    """The interval of one model's accuracy, from its test rows."""
    accuracy = test.value("accuracy")
    return None if not test.rows or accuracy is None else wilson(round(accuracy * test.rows), test.rows)


def verify_command(run: RunFacts) -> str:
    """The command that checks a run."""
    return f"nnjobs verify {shlex.quote(run.directory.address)}"


def round_cost(run: RunFacts) -> str:
    cost = run.spec.config.sync.round_cost
    return f"{run.name} {number(cost)} epochs, {run.rounds} rounds"


def losses(runs: Sequence[RunFacts]) -> list[str]:
    """What was made without all workers: a sentence for training, and one for the scores of the kept models."""
    told = []
    for run in runs:
        rounds = [gap.round for gap in run.gaps if gap.round is not None]
        if rounds:
            told.append(f"{run.name} trained {_counted(rounds)} without all workers")
        lacking = [(trial.test.rows, missing.test_rows) for trial in run.scored if (missing := trial.scores.missing)]
        if lacking:
            unscored = sum(missing for _, missing in lacking)
            rows = unscored + sum(scored for scored, _ in lacking)
            trials = f" of {len(lacking)} trials" if len(run.scored) > 1 else ""
            told.append(f"the scores{trials} of {run.name} lack {unscored:,} of {rows:,} test rows")
    return told


def _counted(rounds: Sequence[int]) -> str:
    if len(rounds) > 5:
        return f"{len(rounds)} rounds"
    return f"round{'s' if len(rounds) > 1 else ''} {', '.join(map(str, rounds))}"
