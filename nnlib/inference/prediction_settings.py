"""What a user wants of predictions besides the class and the probabilities of all classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nnlib.core.errors import UsageError


@dataclass(frozen=True)
class PredictionSettings:
    """How rows are predicted and what is written with them.

    - ``keep``: columns of the input that are written with the predictions, by name (of a file also by number)
    - ``threshold``: with two classes, the probability of the second one from which a row gets that class. None: the
      more probable class, of equal ones the first
    - ``top``: how many of the most probable classes are written, instead of the probabilities of all. None: all
    """

    keep: tuple[str, ...] = ()
    threshold: float | None = None
    top: int | None = None

    def check(self, classes: tuple[str, ...]) -> None:
        """Raise `UsageError` where a model with these classes (none for regression) cannot do what is wanted."""
        if self.threshold is not None:
            if not 0.0 <= self.threshold <= 1.0:
                raise UsageError(f"--threshold {self.threshold}: a probability is from 0 to 1")
            if len(classes) != 2:
                kind = f"has {len(classes)} classes" if classes else "predicts a number"
                raise UsageError(f"--threshold is for models with two classes; this one {kind}")
        if self.top is not None:
            if not classes:
                raise UsageError("--top is for models with classes; this one predicts a number")
            if not 1 <= self.top <= len(classes):
                raise UsageError(f"--top {self.top}: the model has {len(classes)} classes")

    def to_json(self) -> dict[str, Any]:
        """Return the settings that are not the usual ones, as JSON values; `from_json` is the inverse."""
        data: dict[str, Any] = {} if not self.keep else {"keep": list(self.keep)}
        return data | {name: value for name in ("threshold", "top") if (value := getattr(self, name)) is not None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PredictionSettings:
        """Return the settings that `to_json` wrote."""
        return cls(tuple(data.get("keep", ())), data.get("threshold"), data.get("top"))


USUAL = PredictionSettings()
"""What is written where nothing else is wanted."""
