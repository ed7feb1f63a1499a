"""``nnjobs simulate``."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from jobs.commands.options import configuration_options, json_option
from jobs.console.output import print_json
from jobs.console.tables import show_table
from nnlib.config.load import load_config
from nnlib.core.errors import UsageError

if TYPE_CHECKING:
    from jobs.experiments.scaling import Timing
    from nnlib.config.schema import Config
    from nnlib.simulate.advice import AveragingPeriod
    from nnlib.simulate.costs import Costs, SimulatedCluster
    from nnlib.simulate.model import TimePrediction

TARGET = 15.0
"""Percent that predictions of local runs may be off."""


def _with_cluster_options(function: Any) -> Any:
    """Add the options that describe the cluster of the predicted run."""
    for option in reversed(
        (
            click.option("--slots", type=click.IntRange(1, 100_000),
                         help="Tasks that run at once. [default: as many as here]"),
            click.option("--bandwidth", type=click.FloatRange(0, min_open=True), metavar="MB/S",
                         help="Speed of each machine's network. [default: takes no time]"),
            click.option("--latency", type=click.FloatRange(0), default=0.0, metavar="SECONDS",
                         help="Delay of a message. [default: 0]"),
            click.option("--job-seconds", type=click.FloatRange(0),
                         help="Time of a job, besides its tasks. [default: measured]"),
            click.option("--dispatch-seconds", type=click.FloatRange(0),
                         help="Time of the driver for each task, one after another. [default: measured]"),
            click.option("--task-seconds", type=click.FloatRange(0), help="Time to start a task. [default: 0]"),
            click.option("--stragglers", type=click.FloatRange(0, 3), default=0.0, metavar="SIGMA",
                         help="How much tasks differ in time: sigma of a lognormal factor. [default: 0]"),
            click.option("--failures", type=click.FloatRange(0, 0.99), default=0.0, metavar="P",
                         help="Probability that an attempt of a task fails. [default: 0]"),
            click.option("--seed", type=click.IntRange(0), default=0,
                         help="Seed of --stragglers and --failures. [default: 0]"),
        )
    ):  # fmt: skip
        function = option(function)
    return function


@click.command()
@click.argument("config_path", metavar="CONFIG", type=click.Path(dir_okay=False))
@click.option("--workers", default="1..1024", show_default=True, help="Numbers of workers: 1,2,4,8 or 1..1024.")
@configuration_options
@_with_cluster_options
@click.option(
    "--seconds", type=click.FloatRange(1), default=30.0, show_default=True, help="Time that the measurement may take."
)
@click.option("--calibrate-on", type=click.IntRange(2), metavar="N", help="Calibrate on 1 and N workers.")
@click.option("--check", metavar="COUNTS", help="Measure whole runs of these numbers too: predicted against measured.")
@click.option("-o", "--output", metavar="URI", help="Where runs of --check are kept. [default: runs/NAME-check]")
@json_option
def simulate(
    config_path: str,
    workers: str,
    overrides: tuple[str, ...],
    seconds: float,
    calibrate_on: int | None,
    check: str | None,
    output: str | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Predict how long CONFIG trains on any number of workers.

    A short measurement on this machine calibrates a cost model. Prints the time, speed-up and PI % for each number,
    from how many workers on it pays, and how often to average.
    """
    # Imported now: --help and a wrong configuration need not wait for mrjob and pyarrow.
    from jobs.experiments.calibration import calibrate, machine_slots, second_point
    from jobs.experiments.scaling import load_warning, refuse_beyond_shards
    from nnlib.data.dataset import Dataset
    from nnlib.simulate.model import predict, worker_counts

    config = load_config(config_path, overrides)
    counts = sorted({1, *worker_counts(workers)})
    checked = worker_counts(check) if check else []
    if config.train.epochs == 0:
        raise UsageError("train.epochs is 0: there is nothing to predict")
    other = calibrate_on or second_point(config, set(checked))
    if other < 2:
        raise UsageError("the dataset has one shard: it cannot be divided", hint="import it again with --shards 8")
    refuse_beyond_shards(Dataset.open(config.data.path), [other, *checked])
    if (warning := load_warning()) is not None:
        _notify(warning)
    if config.train.epochs_per_round == "auto":
        _notify("epochs_per_round is auto: predicted for rounds of one epoch, the most that averaging can cost")
    slots = machine_slots(config)
    with contextlib.redirect_stdout(sys.stderr):
        work, costs, points = calibrate(config, other, seconds=seconds, notify=_notify)
        measured = _measure(config, config_path, checked, output)
    here = _cluster(config, slots, {})
    result: dict[str, Any] = {
        "format_version": 1,
        "name": config.name,
        "runner": config.runtime.runner,
        "calibration": {"workers": [point.workers for point in points], "costs": dataclasses.asdict(costs)},
    }
    stream = sys.stderr if as_json else sys.stdout
    if measured:
        result["check"] = _compare(measured, predict(work, costs, here, checked), {point.workers for point in points})
        _show_check(result["check"], stream)
    stated = {name: where[f"{name}_seconds"] for name in ("job", "dispatch", "task")}
    changes = {name: value for name, value in stated.items() if value is not None}
    costs = dataclasses.replace(costs, **changes)
    cluster = _cluster(config, slots, where)
    predictions = predict(work, costs, cluster, counts)
    result |= _advice(work, costs, cluster, predictions)
    _show(config.name, predictions, result, cluster, costs, len(work.shard_rows), stream)
    if as_json:
        print_json(result)


def _notify(text: str) -> None:
    click.echo(text, err=True)


def _cluster(config: Config, slots: int, where: dict[str, Any]) -> SimulatedCluster:
    """Where the run is predicted to happen: this machine, changed by the options."""
    from nnlib.simulate.costs import SimulatedCluster

    bandwidth = where.get("bandwidth")
    return SimulatedCluster(
        slots=where.get("slots") or slots,
        bandwidth=math.inf if bandwidth is None else bandwidth * 1e6,
        latency=where.get("latency", 0.0),
        stragglers=where.get("stragglers", 0.0),
        failures=where.get("failures", 0.0),
        retries=config.runtime.retries,
        seed=where.get("seed", 0),
    )


def _measure(config: Config, config_path: str, counts: Sequence[int], output: str | None) -> list[Timing]:
    from jobs.experiments.scaling import claimed_results, measure

    if not counts:
        return []
    folder = f"runs/{config.name}-check" if output is None else output
    with claimed_results(config, folder, (config_path,)) as results:
        return [runs[0] for runs in measure(config, counts, results.root, notify=_notify)]


def _compare(measured: Sequence[Timing], predicted: Sequence[TimePrediction], fitted: set[int]) -> list[dict[str, Any]]:
    """Predicted against measured, and whether the fit has seen that number of workers."""
    return [
        {
            "workers": timing.workers,
            "measured_seconds": timing.seconds,
            "predicted_seconds": point.seconds,
            "error": 100.0 * (point.seconds - timing.seconds) / timing.seconds,
            "held_out": timing.workers not in fitted,
        }
        for timing, point in zip(measured, predicted, strict=True)
    ]


def _advice(
    work: Any, costs: Costs, cluster: SimulatedCluster, predictions: Sequence[TimePrediction]
) -> dict[str, Any]:
    """Predictions and what follows from them, as JSON-able values."""
    from nnlib.simulate.advice import advise, compare_periods, shortest_cheap_period
    from nnlib.simulate.speedup import efficiency, improvement, speedup

    one = predictions[0]
    advice = advise(one, predictions)
    asked = advice.best if advice.best > 1 else predictions[min(1, len(predictions) - 1)].workers
    compared: list[AveragingPeriod] = compare_periods(work, costs, cluster, asked)
    cheap = shortest_cheap_period(compared)
    points = [
        dataclasses.asdict(point)
        | {
            "speedup": speedup(one.seconds, point.seconds),
            "efficiency": efficiency(one.seconds, point.seconds, point.workers),
            "improvement": improvement(one.seconds, point.seconds),
        }
        for point in predictions
    ]
    return {
        "points": points,
        "break_even": advice.break_even,
        "best_workers": advice.best,
        "best_speedup": advice.best_speedup,
        "distribute": advice.is_worth_it,
        "verdict": advice.text(),
        "epochs_per_round": {
            "workers": asked,
            "periods": [dataclasses.asdict(period) for period in compared],
            "shortest_cheap": None if cheap is None else cheap.epochs,
        },
    }


def _show_check(check: list[dict[str, Any]], stream: Any) -> None:
    rows = [
        [
            str(point["workers"]),
            f"{point['measured_seconds']:.2f}",
            f"{point['predicted_seconds']:.2f}",
            f"{point['error']:+.1f}",
            "held out" if point["held_out"] else "in the fit",
        ]
        for point in check
    ]
    show_table("predicted against measured", ["workers", "measured s", "predicted s", "error %", ""], rows, stream)
    errors = [abs(point["error"]) for point in check if point["held_out"]]
    if errors:
        held = "within" if max(errors) <= TARGET else "beyond"
        click.echo(f"held out: {max(errors):.1f} % off at most, {held} {TARGET:.0f} %\n", file=stream)


def _show(
    name: str,
    predictions: Sequence[TimePrediction],
    result: dict[str, Any],
    cluster: SimulatedCluster,
    costs: Costs,
    shards: int,
    stream: Any,
) -> None:
    """The table (of a long range, doubling numbers only), the verdict, the periods."""
    few = len(predictions) <= 16
    last = predictions[-1].workers
    head = ["workers", "seconds", "speed-up", "efficiency", "PI %", "round: map", "transfer", "reduce", "fixed"]
    rows = []
    for point, derived in zip(predictions, result["points"], strict=True):
        count = point.workers
        if not (few or count == last or count & (count - 1) == 0 or count == result["best_workers"]):
            continue
        spread = f" ±{1.96 * point.spread:.2f}" if cluster.is_random else ""
        row = [str(count), f"{point.seconds:.2f}{spread}", f"{derived['speedup']:.2f}", f"{derived['efficiency']:.2f}"]
        row += ["-" if count == 1 else f"{derived['improvement']:.2f}"]
        row += [f"{seconds:.3f}" for seconds in (point.map, point.transfer, point.reduce, point.fixed)]
        rows.append(row)
    at_once = "1 task" if cluster.slots == 1 else f"{cluster.slots} tasks"
    show_table(f"{name}: predicted, {at_once} at once", head, rows, stream)
    lines = [
        f"measured: {1e6 * costs.train_example:.2f} µs an example, {1e3 * costs.dispatch:.1f} ms a task, "
        f"{1e3 * costs.job:.1f} ms a job, {1e3 * costs.commit:.1f} ms a commit; tasks at once take "
        f"{costs.contention:.2f} times as long each",
        result["verdict"],
    ]
    if last > shards:
        lines.append(f"beyond {shards} workers the data must be imported again with more shards")
    if cluster.failures:
        worst = max(point.fails for point in predictions)
        lines.append(f"a task that fails {cluster.retries + 1} times ends the run: chance up to {100 * worst:.2g} %")
    click.echo("\n".join(lines), file=stream)
    rounds = result["epochs_per_round"]
    rows = [
        [str(period["epochs"]), f"{period['seconds']:.2f}", f"{100 * period['overhead']:.0f}"]
        for period in rounds["periods"]
    ]
    title = f"epochs per round, {rounds['workers']} workers"
    show_table(f"\n{title}", ["epochs", "seconds", "not training %"], rows, stream)
    cheap = rounds["shortest_cheap"]
    text = "no period spends" if cheap is None else f"{cheap} is the shortest that spends"
    click.echo(
        f"{text} at most 10 % on anything but training. This is about time only: longer periods are faster, but "
        "workers drift further apart in them, and what that costs in accuracy must be measured (nnjobs evaluate).",
        file=stream,
    )
