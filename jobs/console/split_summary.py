"""The lines at the end of a splitting study: the whole net, the methods against it, what goes with a score."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from jobs.console.tables import plain_lines
from jobs.console.training_display import shown_path
from nnlib.evaluation.statistics import Interval, holm, verdict
from nnlib.splitting.properties import PROPERTIES
from nnlib.splitting.scores import PartitionScore
from nnlib.splitting.study import SplitStudy


def score_lines(study: SplitStudy) -> list[str]:
    """Say what the whole net reaches, before it was cut and trained as long as its sub-nets."""
    nets = f", mean of {study.nets} splits" if study.nets > 1 else ""
    lines = [
        f"test {_name(study)} of the whole net{nets}: {_shown(study.before, study)} before it was cut, "
        f"{_shown(study.whole, study)} trained as long as its sub-nets",
        f"a row of a sub-net takes {100 * study.work:.0f} % of the whole net's work",
    ]
    if study.chance is not None:
        lines.append(f"chance alone spreads one net's accuracy on these test rows by {100 * study.chance:.2f} %")
    return lines


def method_lines(study: SplitStudy) -> list[str]:
    """Return a table of what the methods' partitions reach, and how that compares with the whole net."""
    adjusted = holm([method.compared.p for method in study.methods])
    rows = []
    for method, p in zip(study.methods, adjusted, strict=True):
        difference = method.compared.difference
        rows.append(
            [
                method.method,
                str(method.partitions),
                _shown(method.mean, study),
                "–" if method.sd is None else _shown(method.sd, study),
                _shown(method.low, study),
                _shown(method.high, study),
                "–" if difference is None else f"{_scale(study) * difference:+.2f}",
                _interval(method.compared.interval, _scale(study)),
                "–" if p is None else f"{p:.3f}",
                verdict(method.compared, p),
            ]
        )
    head = ["method", "partitions", "mean", "sd", "least", "most", "to whole", "95 %", "p", "against the whole net"]
    return [f"test {_name(study)} of the recombined nets", *plain_lines(head, rows)]


def property_lines(study: SplitStudy) -> list[str]:
    """Return a table of how the properties of partitions go with their score, and what they are."""
    rows = [
        [
            each.property.replace("_", " "),
            "–" if each.rank is None else f"{each.rank:+.2f}",
            _interval(each.interval, 1.0),
            str(each.partitions),
        ]
        for each in study.correlations
    ]
    head = ["property", "rank correlation", "95 %", "partitions"]
    table = plain_lines(head, rows)
    meanings = [f"  {name.replace('_', ' ')}: {about}" for name, about in PROPERTIES.items()]
    return [f"what goes with the {_name(study)} of a partition (Spearman)", *table, *meanings]


def place_lines(study: SplitStudy, scores: Sequence[PartitionScore]) -> list[str]:
    """Say where everything is, and how one recombined net is used."""
    run = shlex.quote(shown_path(study.runs["split"]))
    lines = [
        f"every partition: {shown_path(study.output)}/splitting.parquet; figures: {shown_path(study.output)}/figures"
    ]
    known = [each for each in scores if each.partition is not None and each.score is not None]
    if known:
        best = max(known, key=lambda each: each.score or 0.0)
        lines.append(f"the best on the test rows, {best.partition}, is a model like any other:")
        lines.append(f"  nnjobs export {run} --trial {best.trial} --format onnx   (or predict; verify {run})")
    return lines


def _name(study: SplitStudy) -> str:
    return "accuracy" if study.metric == "accuracy" else "R2"


def _scale(study: SplitStudy) -> float:
    return 100.0 if study.metric == "accuracy" else 1.0


def _shown(value: float | None, study: SplitStudy) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.2f} %" if study.metric == "accuracy" else f"{value:.4f}"


def _interval(interval: Interval | None, scale: float) -> str:
    return "–" if interval is None else f"{scale * interval[0]:+.2f} .. {scale * interval[1]:+.2f}"
