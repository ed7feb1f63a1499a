"""The page of a report: what the template is filled with, and its numbers as text."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from nnlib.core.errors import NnjobsError
from nnlib.evaluation.model_selection import choice_facts, choice_text, combinations_of
from nnlib.evaluation.statistics import (
    Bin,
    ClassScore,
    Confused,
    calibration_error,
    class_counts,
    class_scores,
    most_confused,
    reliability,
)
from nnlib.report import error_figures, learning_figures, time_figures, words
from nnlib.report.collect import SCORES, Pair, RunFacts, Series, compare_series, differing_keys
from nnlib.report.drawing import DRAWN_SERIES, Figure
from nnlib.report.example_rows import Misread, misread_rows, scatter
from nnlib.report.lost_workers import SHOWN

NAMES = {
    "accuracy": "accuracy",
    "top_5_accuracy": "top-5 accuracy",
    "loss": "loss",
    "r2": "R²",
    "mse": "mean squared error",
    "mae": "mean absolute error",
}
TABLED_CLASSES = 200
"""Classes that the table of classes lists, those with the lowest F1; and pairs' series that have figures of errors."""
CONFUSED_PAIRS = 10
DETAILED_SERIES = 4


@dataclass
class Picture:
    """A misread row: an image as a data URI, and its words."""

    source: str
    width: int
    height: int
    true: str
    predicted: str
    confidence: float
    row: int


@dataclass
class Errors:
    """Where one series errs: by class, by pair, by confidence."""

    series: Series
    figures: list[Figure] = field(default_factory=list)
    classes: list[tuple[str, ClassScore]] = field(default_factory=list)
    left_out: int = 0
    pairs: list[tuple[str, str, Confused]] = field(default_factory=list)
    bins: list[Bin] = field(default_factory=list)
    calibration_error: float | None = None
    pictures: list[Picture] = field(default_factory=list)
    sheet: bytes | None = None
    note: str | None = None


@dataclass
class Report:
    """All of a report: ``html``, and the files beside it by name."""

    html: str
    files: dict[str, bytes]


def make_report(series: Sequence[Series]) -> Report:
    """Draw and write the report of some series."""
    runs = list({id(each.run): each.run for each in series}.values())
    curves = [learning_figures.curve(series, score) for score in _curves(series)]
    drawings = (
        learning_figures.drift(series),
        learning_figures.round_lengths(runs),
        time_figures.phases(runs),
        time_figures.shuffled(runs),
        time_figures.uploaded(runs),
        time_figures.score_by_bytes(series),
    )
    work = [drawing for drawing in drawings if drawing is not None]
    errors = [_errors(each, number) for number, each in enumerate(series[:DETAILED_SERIES])]
    pairs: list[Pair] = compare_series(series) if len(series) > 1 else []
    html = (
        _environment()
        .from_string(_template())
        .render(
            title=series[0].run.spec.config.name if len(runs) == 1 else f"{len(runs)} runs compared",
            series=series,
            runs=runs,
            scores=SCORES[series[0].task],
            names=NAMES,
            main=series[0].score,
            curves=curves,
            work=work,
            choices=[_choice(run) for run in runs if run.finished and run.spec.config.sweep],
            losses=words.losses(runs),
            lost=[(run.name, loss) for run in runs for loss in run.losses[:SHOWN]],
            unlisted=sum(max(0, len(run.losses) - SHOWN) for run in runs),
            sent=sorted((each for each in series if each.sent is not None), key=lambda each: each.sent or 0.0),
            lengths="; ".join(words.round_cost(run) for run in runs if run.rounds_planned is None),
            errors=errors,
            undetailed=max(0, len(series) - DETAILED_SERIES),
            undrawn=max(0, len(series) - DRAWN_SERIES),
            pairs=pairs,
            keys=differing_keys(series) if len(series) > 1 else [],
        )
    )
    drawn = [*curves, *work, *(figure for each in errors for figure in each.figures)]
    files = {f"{figure.name}.svg": figure.svg for figure in drawn}
    files |= {f"{figure.name}.png": figure.png for figure in drawn}
    for number, each in enumerate(errors):
        if each.sheet is not None:
            files[f"{_named('misread', number)}.png"] = each.sheet
    return Report(html, files)


def _choice(run: RunFacts) -> str:
    return f"{run.name}: {choice_text(choice_facts(combinations_of(run.scored)))}"


def _curves(series: Sequence[Series]) -> list[str]:
    wanted = ("accuracy", "loss") if series[0].task == "classification" else ("r2", "loss")
    return [score for score in wanted if any(score in each.curves for each in series)]


def _errors(series: Series, number: int) -> Errors:
    errors = Errors(series)
    try:
        if series.task == "classification":
            _classification_errors(errors, number)
        else:
            errors.figures.append(error_figures.scatter(*scatter(series), _named("scatter", number)))
    except NnjobsError as error:  # the dataset has moved, say: the rest of the report stands
        errors.note = str(error).splitlines()[0]
    return errors


def _classification_errors(errors: Errors, number: int) -> None:
    names = errors.series.run.spec.dataset.classes
    pooled = errors.series.pooled()
    if "calibration" in pooled:
        errors.bins = reliability(**pooled["calibration"])
        errors.calibration_error = calibration_error(errors.bins)
    if "confusion" in pooled:
        errors.figures.append(error_figures.confusion(pooled["confusion"], names, _named("confusion", number)))
    if errors.calibration_error is not None:
        errors.figures.append(
            error_figures.calibration(errors.bins, errors.calibration_error, _named("calibration", number))
        )
    if "confusion" in pooled or "class_rows" in pooled:
        scores = class_scores(*class_counts(pooled))
        order = list(range(len(names)))
        if len(order) > TABLED_CLASSES:
            order = sorted(order, key=lambda index: (scores[index].f1 is None, scores[index].f1, index))[
                :TABLED_CLASSES
            ]
            errors.left_out = len(names) - TABLED_CLASSES
        errors.classes = [(names[index], scores[index]) for index in order]
    if "confusion" in pooled:
        pairs = most_confused(pooled["confusion"], CONFUSED_PAIRS)
        errors.pairs = [(names[pair.true], names[pair.predicted], pair) for pair in pairs]
        misread = misread_rows(errors.series, pairs)
        errors.pictures = [_picture(each, names) for each in misread]
        if misread:
            errors.sheet = error_figures.picture_sheet([each.picture for each in misread])


def _picture(misread: Misread, names: Sequence[str]) -> Picture:
    height, width = misread.picture.shape
    png = base64.b64encode(error_figures.picture_png(misread.picture)).decode()
    return Picture(
        f"data:image/png;base64,{png}",
        width,
        height,
        names[misread.true],
        names[misread.predicted],
        misread.confidence,
        misread.row,
    )


def _named(kind: str, number: int) -> str:
    return kind if number == 0 else f"{kind}-{number + 1}"


def _template() -> str:
    return resources.files("nnlib.report").joinpath("templates/report.html.j2").read_text("utf-8")


def _environment() -> Environment:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "score": words.score,
        "share": words.share,
        "number": words.number,
        "interval": words.interval,
        "apart": words.apart,
        "p": words.p_value,
        "size": words.size,
        "clock": words.clock,
        "value": json.dumps,
        "svg": lambda figure: Markup(figure.inline),  # drawn here, with every text in it escaped
    }
    environment.globals["wilson"] = words.wilson_interval
    environment.globals["verify"] = words.verify_command
    return environment
