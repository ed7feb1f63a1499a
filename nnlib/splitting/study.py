"""What a splitting study has found, as ``splitting.json`` keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nnlib import FORMAT_VERSION
from nnlib.splitting.scores import Correlation, MethodResult


@dataclass(frozen=True)
class SplitStudy:
    """What a study has found.

    ``before`` and ``whole``: the mean score over nets of the whole net before it was cut, and trained as long as its
    sub-nets. ``chance``: the spread that chance gives one net's accuracy on that many test rows; None for values.
    ``work``: what a row of a sub-net takes to compute, as part of what the whole net takes. ``seconds``: of the rounds
    of both runs, by run.
    """

    name: str
    metric: str
    nets: int
    partitions: int
    before: float | None
    whole: float | None
    chance: float | None
    work: float
    methods: tuple[MethodResult, ...]
    correlations: tuple[Correlation, ...]
    seconds: Mapping[str, float]
    runs: Mapping[str, str]
    diverged: int
    output: str

    def to_json(self) -> dict[str, Any]:
        """Return the study as JSON-able data."""
        return {"format_version": FORMAT_VERSION, **asdict(self)}
