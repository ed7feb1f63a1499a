"""Published times of the study "Simulation of Parallelization of Deep Neural Networks by Dividing Data".

It trains an MLP on 94,000 tweets, with the data divided among 1, 2, 4 and 8 nodes, on one Intel Core i7-4790S (4 cores,
8 threads). A scaling study that repeats one of its experiments shows these times next to its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from nnlib.simulate.speedup import improvement


@dataclass(frozen=True)
class ReferenceTimes:
    """One table of the study: seconds by number of workers.

    ``stated`` is the improvement in % as the study prints it, None where a row has none. ``note`` is shown below the
    table.
    """

    title: str
    workers: tuple[int, ...]
    seconds: tuple[float, ...]
    stated: tuple[float | None, ...]
    note: str

    def improvements(self) -> list[float]:
        """Return the improvement in % over one node, by the study's formula: what a run here can be compared with."""
        return [improvement(self.seconds[0], seconds) for seconds in self.seconds]


REFERENCE_TIMES = {
    "scale-kfold": ReferenceTimes(
        "one hidden layer, 10-fold cross-validation on divided data (its Table 3)",
        (1, 2, 4, 8),
        (9511.66, 9123.58, 8277.06, 2909.78),
        (None, 4.08, 9.28, 64.85),
        "its 9.28 and 64.85 % are against the row above; against one node they are 12.98 and 69.41 %. It left the "
        "averaging of the weights out here; ours averages",
    ),
    "scale-mlp3": ReferenceTimes(
        "three hidden layers, 80/20 split (its Table 4)",
        (1, 2, 4),
        (2815.08, 2647.11, 4168.46),
        (None, 5.97, -48.08),
        "it has no row for 8 nodes",
    ),
}
"""The ``name`` of a configuration -> the table whose experiment it repeats."""
