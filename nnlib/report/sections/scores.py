"""Scores over the trials, and of every trial."""

from __future__ import annotations

from nnlib.evaluation.model_selection import choice_text, chosen_combination, combinations_of
from nnlib.report.collect import RunFacts
from nnlib.report.content import Content, Material, fill_template


def make(material: Material) -> Content:
    """Make the tables of scores; of a sweep also what was chosen."""
    errors: dict[str, float] = {}
    for trial in (trial for each in material.series for trial in each.results):
        for name, error in trial.test.error.items():
            errors[name] = max(error, errors.get(name, 0.0))
    choices = [_choice(run) for run in material.runs if run.finished and run.spec.config.sweep]
    return Content(fill_template("sections/scores", material, choices=choices, errors=errors))


def _choice(run: RunFacts) -> str:
    return f"{run.name}: {choice_text(chosen_combination(combinations_of(run.scored)))}"
