"""Tasks on slots: which runs when, how long all take, what stragglers and failures add."""

from __future__ import annotations

import numpy as np

from nnlib.simulate.costs import Cluster, Seconds


def makespan(durations: Seconds, slots: int) -> Seconds:
    """When the last task ends if each starts, in order, on the slot that is free first (list scheduling, Graham 1969).

    ``durations`` has shape (draws, tasks); the result has shape (draws,). One slot gives the sum, as many slots as
    tasks the longest.
    """
    draws, tasks = durations.shape
    if slots >= tasks:
        return np.asarray(durations.max(axis=1))
    free = durations[:, :slots].copy()
    every = np.arange(draws)
    for task in range(slots, tasks):
        free[every, free.argmin(axis=1)] += durations[:, task]
    return np.asarray(free.max(axis=1))


def lengthening(cluster: Cluster, draws: int, tasks: int, rng: np.random.Generator) -> Seconds:
    """A factor on each task's time, shape (draws, tasks): its straggling, and the attempts it lost.

    The expected factor of failures alone is 1 + (p + p^2 + ... + p^retries) / 2. The numbers drawn do not depend on
    the probabilities' effects, so two models that differ in a cost see the same luck.
    """
    factor = np.exp(cluster.stragglers * rng.standard_normal((draws, tasks)))
    lost = np.zeros((draws, tasks))
    failing = np.ones((draws, tasks), bool)
    for _ in range(cluster.retries):
        failing &= rng.random((draws, tasks)) < cluster.failures
        lost += failing * rng.random((draws, tasks))
    return np.asarray(factor * (1.0 + lost))


def fails_for_good(cluster: Cluster, tasks: int) -> float:
    """The chance that any of ``tasks`` uses up its attempts, which ends the run: 1 - (1 - p^(retries + 1))^tasks."""
    return float(1.0 - (1.0 - cluster.failures ** (cluster.retries + 1)) ** tasks)
