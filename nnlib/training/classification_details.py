"""What a detailed score of a classifier counts besides, and how it adds up."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnlib.core.arrays import Array
from nnlib.core.exact_sum import exact_sum, finite_or_none
from nnlib.run.score_summary import ClassificationDetails
from nnlib.training.ranked_scores import EXACT_VALUES, RankedScores

RANKED_CLASSES = 1000
"""With more classes than this no class is ranked against the rest."""


@dataclass
class DetailedCounts:
    """Sums of log losses, and the ranking of the rows: None with very many classes or an output that is not finite."""

    log_losses: list[float] = field(default_factory=list)
    ranking: RankedScores | None = None

    @classmethod
    def empty(cls, classes: int, rows: int = 0) -> DetailedCounts:
        """Make counts of no rows; ``rows``: of how many they will be over all workers, if that is known."""
        ranking = RankedScores(classes) if 1 < classes <= RANKED_CLASSES else None
        if ranking is not None and rows * len(ranking.ranked) > EXACT_VALUES:
            ranking.count()
        return cls(ranking=ranking)

    def add(self, outputs: Array, y: Array) -> None:
        """Count one fixed chunk of rows: ``outputs`` (b, classes), ``y`` (b,) class indices.

        The log loss is that of the outputs as they are predicted: -log of the true class's probability, which is cut to
        eps ... 1 - eps of the outputs' dtype, as scikit-learn does it.
        """
        actual = np.take_along_axis(outputs, np.asarray(y, np.intp)[:, None], axis=1)[:, 0]
        eps = np.finfo(outputs.dtype).eps
        self.log_losses.append(exact_sum((-np.log(np.clip(actual, eps, 1 - eps).astype(np.float64))).tolist()))
        if self.ranking is not None:
            if np.isfinite(outputs).all():
                self.ranking.add(outputs, y)
            else:
                self.ranking = None

    def merge(self, other: DetailedCounts) -> None:
        """Add another worker's counts."""
        self.log_losses.extend(other.log_losses)
        if other.ranking is None:
            self.ranking = None
        elif self.ranking is not None:
            self.ranking.merge(other.ranking)

    def summary(self, rows: int) -> ClassificationDetails:
        """Compute what is stored and shown of ``rows`` rows."""
        log_loss = finite_or_none(exact_sum(self.log_losses) / rows)
        if self.ranking is None:
            return ClassificationDetails(log_loss, None, None, {})
        found = self.ranking.summary()
        error = {}
        for name, errors in (
            ("roc_auc", found.roc_auc_error),
            ("average_precision", found.average_precision_error),
        ):
            if any(errors):
                error[name] = math.fsum(errors) / len(errors)
        return ClassificationDetails(log_loss, found.roc_auc, found.average_precision, error)

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON-able data; the log losses as their exact sum."""
        ranking = None if self.ranking is None else self.ranking.to_json()
        return {"log_losses": [finite_or_none(exact_sum(self.log_losses))], "ranking": ranking}

    @classmethod
    def from_json(cls, data: dict[str, Any], classes: int) -> DetailedCounts:
        """Read what `to_json` wrote of a dataset with ``classes`` classes."""
        ranking = data["ranking"]
        return cls(
            [math.nan if loss is None else float(loss) for loss in data["log_losses"]],
            None if ranking is None else RankedScores.from_json(ranking, classes),
        )
