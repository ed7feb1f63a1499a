"""What is summed over a regression's scored rows, and how sums add up."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnlib.core.arrays import Array
from nnlib.core.exact_sum import exact_sum, finite_or_none
from nnlib.run.score_summary import RegressionDetails, RegressionSummary


@dataclass
class Spread:
    """The mean of some numbers and the sum of their squared distances from it, by Chan's merge."""

    rows: int = 0
    mean: float = 0.0
    spread: float = 0.0

    @classmethod
    def of(cls, values: Array) -> Spread:
        """Sum over one fixed chunk: ``values`` (b,) float64."""
        mean = exact_sum(values.tolist()) / len(values)
        return cls(len(values), mean, exact_sum(((values - mean) ** 2).tolist()))

    def merge(self, other: Spread) -> None:
        """Add another worker's sums (call in worker order)."""
        if not other.rows:
            return
        total = self.rows + other.rows
        apart = other.mean - self.mean
        self.spread += other.spread + apart * apart * self.rows * other.rows / total
        self.mean += apart * other.rows / total
        self.rows = total

    def to_json(self) -> dict[str, Any]:
        """Return the sums as JSON-able data."""
        return {"rows": self.rows, "mean": finite_or_none(self.mean), "spread": finite_or_none(self.spread)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Spread:
        """Read what `to_json` wrote."""
        mean, spread = (math.nan if data[key] is None else float(data[key]) for key in ("mean", "spread"))
        return cls(data["rows"], mean, spread)


@dataclass
class RegressionScore:
    """Sums over scored rows.

    ``targets``: their spread, for R2. ``errors``: that of the errors, which detailed metrics need; None where they are
    not wanted.
    """

    rows: int = 0
    losses: list[float] = field(default_factory=list)
    squared: list[float] = field(default_factory=list)
    absolute: list[float] = field(default_factory=list)
    targets: Spread = field(default_factory=Spread)
    errors: Spread | None = None

    def add(self, outputs: Array, losses: Array, y: Array) -> None:
        """Add one fixed chunk of rows: ``outputs`` (b, 1), ``losses`` (b,) float64, ``y`` (b,)."""
        target = np.asarray(y, np.float64)
        error = outputs[:, 0].astype(np.float64) - target
        chunk = RegressionScore(
            len(target),
            [exact_sum(losses.tolist())],
            [exact_sum((error * error).tolist())],
            [exact_sum(np.abs(error).tolist())],
            Spread.of(target),
            None if self.errors is None else Spread.of(error),
        )
        self.merge(chunk)

    def merge(self, other: RegressionScore) -> None:
        """Add another worker's sums (call in worker order)."""
        if not other.rows:
            return
        self.rows += other.rows
        self.targets.merge(other.targets)
        self.losses.extend(other.losses)
        self.squared.extend(other.squared)
        self.absolute.extend(other.absolute)
        if other.errors is None:
            self.errors = None
        elif self.errors is not None:
            self.errors.merge(other.errors)

    def to_json(self) -> dict[str, Any]:
        """Return the sums as JSON-able data, each as one exact sum."""
        data = {
            "rows": self.rows,
            "losses": [finite_or_none(exact_sum(self.losses))],
            "squared": [finite_or_none(exact_sum(self.squared))],
            "absolute": [finite_or_none(exact_sum(self.absolute))],
            "mean": self.targets.mean,
            "spread": self.targets.spread,
        }
        return data if self.errors is None else {**data, "errors": self.errors.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RegressionScore:
        """Read what `to_json` wrote."""
        losses, squared, absolute = (
            [math.nan if value is None else float(value) for value in data[key]]
            for key in ("losses", "squared", "absolute")
        )
        errors = Spread.from_json(data["errors"]) if "errors" in data else None
        targets = Spread(data["rows"], data["mean"], data["spread"])
        return cls(data["rows"], losses, squared, absolute, targets, errors)

    def summary(self) -> RegressionSummary:
        """Compute what is stored and shown: the mean errors and R2."""
        if not self.rows:
            return RegressionSummary(rows=0, loss=None, mse=None, mae=None, r2=None)
        squared = exact_sum(self.squared)
        return RegressionSummary(
            rows=self.rows,
            loss=finite_or_none(exact_sum(self.losses) / self.rows),
            mse=finite_or_none(squared / self.rows),
            mae=finite_or_none(exact_sum(self.absolute) / self.rows),
            r2=finite_or_none(1.0 - squared / self.targets.spread) if self.targets.spread > 0.0 else None,
            details=None if self.errors is None else RegressionDetails(self._explained(self.errors)),
        )

    def _explained(self, errors: Spread) -> float | None:
        return finite_or_none(1.0 - errors.spread / self.targets.spread) if self.targets.spread > 0.0 else None
