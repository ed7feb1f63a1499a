"""Schedule tasks on slots: how long all of them take, and what stragglers and failures add."""

from __future__ import annotations

import numpy as np

from nnlib.simulate.costs import Float64Array, SimulatedCluster


def makespan(durations: Float64Array, slots: int) -> Float64Array:
    """Return the seconds until the last task ends if each starts, in order, on the slot that is free first.

    That is list scheduling (Graham 1969). ``durations``: seconds, shape (draws, tasks); the result has shape (draws,).
    With one slot it is the sum of the durations, with a slot for every task the longest.
    """
    draws, tasks = durations.shape
    if slots >= tasks:
        return np.asarray(durations.max(axis=1))
    free = durations[:, :slots].copy()
    every = np.arange(draws)
    for task in range(slots, tasks):
        free[every, free.argmin(axis=1)] += durations[:, task]
    return np.asarray(free.max(axis=1))


def draw_lengthening(cluster: SimulatedCluster, draws: int, tasks: int, rng: np.random.Generator) -> Float64Array:
    """Draw the factor by which stragglers and lost attempts lengthen each task, shape (draws, tasks).

    With failures alone the expected factor is 1 + (p + p^2 + ... + p^retries) / 2. As many numbers are drawn whatever
    the probabilities are, so two models that differ in a cost get the same random numbers.
    """
    factor = np.exp(cluster.stragglers * rng.standard_normal((draws, tasks)))
    lost = np.zeros((draws, tasks))
    failing = np.ones((draws, tasks), bool)
    for _ in range(cluster.retries):
        failing &= rng.random((draws, tasks)) < cluster.failures
        lost += failing * rng.random((draws, tasks))
    return np.asarray(factor * (1.0 + lost))


def abort_probability(cluster: SimulatedCluster, tasks: int) -> float:
    """Return the probability that one of ``tasks`` tasks uses up its attempts and so ends the run.

    It is 1 - (1 - p^(retries + 1))^tasks, where p is ``cluster.failures``.
    """
    return float(1.0 - (1.0 - cluster.failures ** (cluster.retries + 1)) ** tasks)
