"""A workload and costs that the tests of the cost model share."""

from __future__ import annotations

from nnlib.simulate.costs import Costs, SimulatedCluster, Workload
from nnlib.simulate.model import predict

EIGHT = Workload(shard_rows=(125,) * 8, train_rows=800, trials=1, epochs=6, epochs_per_round=2, model_bytes=1000)
TRAIN_ONLY = Costs(train_example=0.01)
ALL_COSTS = Costs(
    train_example=0.01,
    visit_row=0.001,
    startup=3.0,
    job=0.5,
    dispatch=0.05,
    task=0.25,
    commit=0.125,
    encode_byte=1e-5,
    average_byte=2e-5,
    contention=1.5,
    slots=2,
)


def seconds(costs: Costs, cluster: SimulatedCluster, *workers: int, work: Workload = EIGHT) -> list[float]:
    return [point.seconds for point in predict(work, costs, cluster, workers)]
