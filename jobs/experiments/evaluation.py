"""An evaluation: one run for each number of workers, all splits as trials in the same jobs, scores in one table.

Runs are processes of their own, as many at once as there are cores; a run that is finished is not repeated, so an
evaluation that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, replace
from typing import Any

from nnlib.config.render import to_yaml
from nnlib.config.runners import runner_named
from nnlib.config.schema import Config
from nnlib.core.errors import JobError, MismatchError, UsageError, from_record
from nnlib.core.run_result import ChosenCombination, RunResult
from nnlib.evaluation.model_selection import chosen_combination, combinations_of
from nnlib.evaluation.scores_table import (
    Score,
    Variant,
    checked_epochs,
    round_ends,
    round_seconds,
    scores_of,
    to_table,
    variants,
)
from nnlib.report import write_report
from nnlib.report.collect import Pair, Series, compare_series, read_series
from nnlib.run.directory import RunDirectory
from nnlib.run.final_result import FinalResult
from nnlib.run.ledger import canonical
from nnlib.storage import Storage, storage

Progress = Callable[[Variant, int, int], None]
"""Called with a run, its epochs done and its epochs in all."""


def evaluate(
    config: Config,
    output: str,
    *,
    at_once: int | None = None,
    timed: bool = False,
    report: bool = True,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Train every run of the evaluation (or what is left of it) and write ``results.parquet`` and ``results.json``.

    ``timed``: measure times besides, apart; ``report``: write ``report.html`` about the runs, where what draws it is
    installed. Returns what ``--json`` prints: the scores, the runs by name, what a sweep chose, and the paired
    comparison of the runs.
    """
    epochs = checked_epochs(config)
    wanted = variants(config)
    place = storage(output)
    results = _run_all(config, wanted, place, at_once or _cores(config), progress)
    scores: list[Score] = []
    for variant in wanted:
        scores += scores_of(RunDirectory.open(f"{place.root}/{variant.name}"), epochs)
    write_scores(place, scores)
    seconds = measure_time(config, output, progress) if timed else None
    runs = {variant: RunDirectory.open(f"{place.root}/{variant.name}") for variant in wanted}
    chosen = {variant: chosen_combination(combinations_of(_final(run).trials)) for variant, run in runs.items()}
    pairs = compare_series(_compared(runs, chosen if config.sweep else None))
    with contextlib.suppress(ImportError):  # matplotlib is an extra; the table is the result
        write_figures(config, place, scores, seconds)
    return {
        "output": place.root,
        "seconds": seconds,
        "runs": {variant.name: results[variant].run_dir for variant in wanted},
        "scores": [asdict(score) for score in scores],
        "chosen": {variant.name: choice and choice.to_json() for variant, choice in chosen.items()}
        if config.sweep
        else None,
        "comparisons": [_comparison(pair) for pair in pairs],
        "report": _report(place, list(runs.values())) if report else None,
        "diverged": [
            {"run": variant.name, **trial.to_json()} for variant in wanted for trial in results[variant].diverged
        ],
    }


def _final(run: RunDirectory) -> FinalResult:
    final = run.final()
    if final is None:
        raise MismatchError("this run has lost its final scores", hint="run the same command to go on", run=run.address)
    return final


def _compared(
    runs: Mapping[Variant, RunDirectory], chosen: Mapping[Variant, ChosenCombination | None] | None
) -> list[Series]:
    """The series that stand for the runs: all trials of each; of a sweep those that were chosen, if any."""
    found = []
    for variant, run in runs.items():
        for series in read_series([run.address]):
            choice = None if chosen is None else chosen[variant]
            if chosen is None or (choice is not None and dict(series.trials[0].overrides) == choice.overrides):
                found.append(replace(series, label=variant.name))
    return found


def _comparison(pair: Pair) -> dict[str, Any]:
    """A pair as JSON-able values; ``p`` is adjusted for all pairs."""
    compared = pair.comparison
    return {
        "first": pair.first,
        "second": pair.second,
        "score": pair.score,
        "verdict": pair.words,
        "splits": compared.n,
        "difference": compared.difference,
        "interval": compared.interval,
        "t": compared.t,
        "p": pair.p,
        "wilcoxon_p": compared.wilcoxon_p,
        "effect": compared.effect,
    }


def _report(place: Storage, runs: Sequence[RunDirectory]) -> str | None:
    """The report of the runs beside their results; None where matplotlib or Jinja2 is not installed."""
    try:
        return str(write_report([run.address for run in runs], place.root)["output"])
    except UsageError:
        return None


def measure_time(config: Config, output: str, progress: Progress = lambda *_: None) -> dict[int, dict[int, float]]:
    """Seconds of training by workers and epochs: one split at a time, one run at a time, workers as processes (or tasks
    of a cluster).

    Start-up of the command is not counted, as in the paper's tables; runs that are finished are not repeated.
    """
    epochs = checked_epochs(config)
    place = storage(f"{storage(output).root}/timing")
    runner = config.runtime.runner
    if runner_named(runner).in_one_process:
        runner = "local"
    single = config.model_copy(
        update={
            "split": config.split.model_copy(update={"seeds": config.split.seeds[:1]}),
            "runtime": config.runtime.model_copy(update={"runner": runner}),
        }
    )
    wanted = list({variant.workers: variant for variant in variants(config)}.values())
    _run_all(single, wanted, place, 1, progress)
    seconds = {}
    for variant in wanted:
        run = RunDirectory.open(f"{place.root}/{variant.name}")
        by_round, rounds = round_seconds(run), round_ends(run)
        seconds[variant.workers] = {epoch: by_round[rounds[epoch]] for epoch in epochs}
    place.write("timing.json", canonical({"seconds": {str(w): line for w, line in seconds.items()}}))
    return seconds


def write_figures(
    config: Config, place: Storage, scores: Sequence[Score], seconds: Mapping[int, Mapping[int, float]] | None
) -> None:
    """Figures as SVG beside the results."""
    from nnlib.evaluation import figures  # late: matplotlib

    published = config.evaluate.published == "paper"
    place.write("figures/accuracy-by-epochs.svg", figures.accuracy_figure(scores, published=published))
    if seconds:
        place.write("figures/time-by-epochs.svg", figures.time_figure(seconds, published=published))
        place.write("figures/time-by-workers.svg", figures.workers_figure(seconds, published=published))


def write_scores(place: Storage, scores: Sequence[Score]) -> None:
    """The table as Parquet and as JSON; runs are named relative to it, so that the folder can be moved."""
    import pyarrow.parquet as pq

    with place.writing("results.parquet") as stream:
        pq.write_table(to_table(scores), stream, compression="zstd")
    place.write("results.json", canonical({"scores": [asdict(score) for score in scores]}))


def _cores(config: Config) -> int:
    """Runs at once: one in one process takes one core, as does the driver of a cluster's jobs; others take them all."""
    runner = runner_named(config.runtime.runner)
    return (config.runtime.cores or os.cpu_count() or 1) if runner.in_one_process or runner.is_remote else 1


def variant_config(config: Config, variant: Variant, place: Storage) -> Config:
    """The experiment as this run trains it."""
    return config.model_copy(
        update={
            "name": f"{config.name}-{variant.name}"[:64],
            "workers": variant.workers,
            "run_dir": f"{place.root}/{variant.name}",
            "sampling": config.sampling.model_copy(update={"streams": variant.streams}),
        }
    )


def _run_all(
    config: Config, wanted: Sequence[Variant], place: Storage, at_once: int, progress: Progress
) -> dict[Variant, RunResult]:
    processes: list[subprocess.Popen[str]] = []
    lock = threading.Lock()
    stopping = False

    def run(variant: Variant) -> RunResult:
        path = f"configs/{variant.name}.yaml"
        place.write(path, to_yaml(variant_config(config, variant, place)).encode())
        with lock:
            if stopping:
                raise JobError("stopped before its start", run=variant.name)
            process = subprocess.Popen(
                [sys.executable, "-m", "jobs.experiments.run_process", f"{place.root}/{path}"],
                stdout=subprocess.PIPE,
                text=True,
            )
            processes.append(process)
        return _follow(process, variant, progress)

    # The largest first: the last one running alone is then a small one.
    order = sorted(wanted, key=lambda variant: -_cost(variant))
    with ThreadPoolExecutor(at_once) as pool:
        futures = {variant: pool.submit(run, variant) for variant in order}
        try:
            done, _ = wait(futures.values(), return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            return {variant: futures[variant].result() for variant in wanted}
        except BaseException:
            for future in futures.values():
                future.cancel()
            with lock:
                stopping = True
                for process in processes:
                    process.terminate()
            raise


def _cost(variant: Variant) -> int:
    """Shared streams do the whole work on every worker, independent ones divide it."""
    return variant.workers if variant.streams == "shared" else 1


def _follow(process: subprocess.Popen[str], variant: Variant, progress: Progress) -> RunResult:
    """Read a run's lines to its end; raises what it reported."""
    assert process.stdout is not None
    result: RunResult | None = None
    epochs = 0
    for line in process.stdout:
        (kind, facts), *_ = json.loads(line).items()
        if kind == "RunStarted":
            epochs = facts["epochs"]
            progress(variant, facts["first_epoch"], epochs)
        elif kind == "RoundDone":
            progress(variant, facts["epoch"], epochs)
        elif kind == "error":
            process.wait()
            raise from_record(facts)
        else:
            result = RunResult.from_json(facts)
    code = process.wait()
    if result is None:
        raise JobError(f"the run of {variant.name} ended with code {code}", hint="run the same command to go on")
    progress(variant, epochs, epochs)  # a run whose trials all stopped is done before its last epoch
    return result
