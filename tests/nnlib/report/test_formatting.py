"""Numbers of a report as text."""

from __future__ import annotations

import pytest

from nnlib.report.formatting import format_interval


@pytest.mark.parametrize(
    "name, interval, text",
    [
        ("accuracy", (0.9, 1.02), "90.00 to 100.00 %"),
        ("roc_auc", (0.97, 1.004), "0.97 to 1"),
        ("f1_macro", (-0.1, 0.6), "0 to 0.6"),
        ("log_loss", (-0.03, 0.31), "0 to 0.31"),
        ("r2", (-1.5, 1.2), "-1.5 to 1"),
        ("rmse", (-2.0, 12.5), "0 to 12.5"),
    ],
)
def test_intervals_are_cut_to_the_values_that_a_metric_can_have(
    name: str, interval: tuple[float, float], text: str
) -> None:
    assert format_interval(interval, name) == text
