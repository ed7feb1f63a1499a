"""The whole nets of a splitting study: their partitions, and what these are like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnlib.config.schema import Splitting
from nnlib.config.training import Subnets
from nnlib.core.layout import ModelState
from nnlib.core.partition import Partition
from nnlib.core.progress import progressing
from nnlib.data.batches import Batch
from nnlib.models.protocol import DivisibleModel
from nnlib.run.directory import RunDirectory
from nnlib.run.spec import Trial
from nnlib.run.subnet_checks import divisible
from nnlib.splitting.affinity import activation_affinity, weight_affinity
from nnlib.splitting.methods import Affinities, chosen_partitions, methods_of
from nnlib.splitting.properties import properties_of
from nnlib.splitting.rows import training_rows


@dataclass(frozen=True)
class WholeNet:
    """The net of one trial that is cut: its numbers, some of the rows it trained on, and what belongs together in
    it. ``score`` is on the test rows; ``methods`` has the methods that chose each partition."""

    trial: Trial
    model: DivisibleModel
    state: ModelState
    rows: Batch
    affinities: Affinities
    score: float | None
    methods: Mapping[Partition, Sequence[str]]

    def properties(self, partitions: Sequence[Partition], subnets: Subnets) -> dict[Partition, dict[str, float]]:
        """Return the properties of partitions of this net, of which not all need be its own."""
        columns = properties_of(
            self.model,
            self.state,
            partitions,
            self.affinities,
            self.rows,
            alternate=subnets.alternate,
            rescale=subnets.rescale,
        )
        return {
            partition: {name: float(values[number]) for name, values in columns.items()}
            for number, partition in enumerate(partitions)
        }

    def work(self, partition: Partition) -> float:
        """Return what a row of the largest sub-net of shift 0 takes to compute, as part of what the whole net takes."""
        parts = [self.model.subnet(partition.units(subnet)).model for subnet in partition.subnets(0)]
        return max(part.row_operations for part in parts) / self.model.row_operations


def whole_nets(run: RunDirectory, splitting: Splitting, subnets: Subnets, *, seed: int, metric: str) -> list[WholeNet]:
    """Return the nets of a finished run with the partitions that the study's methods choose for each.

    ``seed``: of random partitions. ``metric``: the name of the score. Raises `ConfigError` for a model that cannot be
    cut in this way.
    """
    spec, final = run.spec(), run.final()
    assert final is not None  # it was trained to its end just now
    nets = []
    states = run.final_models(spec)
    with progressing("cutting", len(states), "nets") as advance:
        for trial, state, kept in zip(spec.trials, states, final.trials, strict=True):
            model = divisible(spec.model(trial))
            rows = training_rows(spec, trial, splitting.rows)
            affinities = Affinities(weight_affinity(model, state), activation_affinity(model, state, rows.x))
            chosen = chosen_partitions(
                splitting,
                model.hidden_widths,
                affinities,
                seed=seed,
                by_layer=subnets.alternate == "together",
            )
            score = kept.test.value(metric)
            nets.append(WholeNet(trial, model, state, rows, affinities, score, methods_of(chosen)))
            advance(len(nets))
    return nets
