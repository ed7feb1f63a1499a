"""What a model may need besides its configuration: source code, and numbers that no worker trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nnlib.core.arrays import Array


@dataclass(frozen=True)
class ModelParts:
    """The parts of one model.

    ``sources`` are texts of Python files by name. ``admit`` is called before any code is imported, and raises where
    that must not be; None where the process that started this one has asked. ``frozen`` reads the parameters that
    are not trained, by name; None while there are none yet: a model that starts draws its own.
    """

    sources: Mapping[str, str] = field(default_factory=dict)
    admit: Callable[[], None] | None = None
    frozen: Callable[[], Mapping[str, Array]] | None = None
