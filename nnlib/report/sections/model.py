"""The arrays of each model: names, shapes, how workers' values of them are combined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nnlib.core.entries import Role, Rule
from nnlib.report.collect import RunFacts
from nnlib.report.content import Content, Material, fill_template

KINDS: dict[Role | None, str] = {"parameter": "trained", "buffer": "buffer", None: "frozen"}
RULES: dict[Rule | None, str] = {"mean": "mean", "max": "largest", "keep": "the same at all workers", None: "not sent"}


@dataclass(frozen=True)
class ArrayLine:
    """One array of a model, in words: ``tied`` has its other names."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    kind: str
    combined: str
    size: int
    tied: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelTable:
    """The arrays of a model that some runs train (``runs``: their names)."""

    runs: list[str]
    lines: Sequence[ArrayLine]


def make(material: Material) -> Content:
    """List the arrays of every model, once for the runs that share it."""
    tables: dict[tuple[ArrayLine, ...], ModelTable] = {}
    for run in material.runs:
        for lines in dict.fromkeys(_lines(run, index) for index in range(len(run.spec.trials))):
            names = tables.setdefault(lines, ModelTable([], lines)).runs
            if run.name not in names:
                names.append(run.name)
    return Content(fill_template("sections/model", material, tables=list(tables.values())))


def _lines(run: RunFacts, index: int) -> tuple[ArrayLine, ...]:
    trial = run.spec.trials[index]
    layout = run.spec.model(trial).layout
    tied: dict[str, tuple[str, ...]] = {}
    for alias, name in layout.aliases:
        tied[name] = (*tied.get(name, ()), alias)
    lines = [
        ArrayLine(
            entry.name,
            entry.shape,
            segment.dtype,
            KINDS[entry.kind],
            RULES[segment.rule],
            entry.size,
            tied.get(entry.name, ()),
        )
        for segment in layout.segments
        for entry in segment.entries
    ]
    for name, array in run.spec.frozen_arrays(trial).items():
        lines.append(ArrayLine(name, array.shape, array.dtype.name, KINDS[None], RULES[None], array.size))
    return tuple(lines)
