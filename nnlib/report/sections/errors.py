"""Where the models err: by class, by pair of classes, by confidence, by row."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field

from nnlib.core.errors import NnjobsError
from nnlib.evaluation.statistics import (
    Bin,
    ClassScore,
    Confused,
    calibration_error,
    class_scores,
    most_confused,
    reliability,
)
from nnlib.report import error_figures
from nnlib.report.collect import Series
from nnlib.report.content import Content, Material, figure_files, fill_template
from nnlib.report.drawing import Figure
from nnlib.report.example_rows import Misread, misread_rows, scatter

TABLED_CLASSES = 200
"""Classes that the table of classes lists: those with the lowest F1."""
CONFUSED_PAIRS = 10
DETAILED_SERIES = 4
"""Series whose errors are shown, the first ones."""


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


def make(material: Material) -> Content:
    """Draw confusion and calibration, or for regression a scatter plot, of each of the first series."""
    errors = [_errors(each, number) for number, each in enumerate(material.series[:DETAILED_SERIES])]
    undetailed = max(0, len(material.series) - DETAILED_SERIES)
    files = figure_files([figure for each in errors for figure in each.figures])
    files |= {f"{_named('misread', number)}.png": each.sheet for number, each in enumerate(errors) if each.sheet}
    html = fill_template("sections/errors", material, errors=errors, undetailed=undetailed)
    return Content(html, files, "Errors" if material.has_classes else "Predictions")


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
    if pooled.calibration is not None:
        errors.bins = reliability(pooled.calibration)
        errors.calibration_error = calibration_error(errors.bins)
    if pooled.confusion is not None:
        errors.figures.append(error_figures.confusion(pooled.confusion, names, _named("confusion", number)))
    if errors.calibration_error is not None:
        errors.figures.append(
            error_figures.calibration(errors.bins, errors.calibration_error, _named("calibration", number))
        )
    if (counts := pooled.class_counts) is not None:
        scores = class_scores(*counts)
        order = list(range(len(names)))
        if len(order) > TABLED_CLASSES:
            order = sorted(order, key=lambda index: (scores[index].f1 is None, scores[index].f1, index))[
                :TABLED_CLASSES
            ]
            errors.left_out = len(names) - TABLED_CLASSES
        errors.classes = [(names[index], scores[index]) for index in order]
    if pooled.confusion is not None:
        pairs = most_confused(pooled.confusion, CONFUSED_PAIRS)
        errors.pairs = [(names[pair.true], names[pair.predicted], pair) for pair in pairs]
        misread = misread_rows(errors.series, pairs)
        errors.pictures = [_picture(each, names) for each in misread]
        if misread:
            errors.sheet = error_figures.picture_sheet([each.picture for each in misread])


def _picture(misread: Misread, names: Sequence[str]) -> Picture:
    height, width = misread.picture.shape[:2]
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
