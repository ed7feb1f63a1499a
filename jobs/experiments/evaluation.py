"""An evaluation: one run for each number of workers, all splits as trials in the same jobs, scores in one table.

Each run is a process; as many run at once as there are cores. A finished run is not repeated, so an evaluation that was
interrupted goes on where it stopped.
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
from dataclasses import replace
from typing import Any

from nnlib.config.render import to_yaml
from nnlib.config.runners import runner_named
from nnlib.config.schema import Config
from nnlib.core.errors import JobError, MismatchError, StorageError, UsageError, from_record
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
from nnlib.report import FIGURES, PAGE, write_report
from nnlib.report.collect import Pair, Series, compare_series, read_series
from nnlib.run.directory import RunDirectory
from nnlib.run.final_result import FinalResult
from nnlib.run.ledger import canonical
from nnlib.storage import Storage, storage
from nnlib.storage.output_folder import NOTHING, FolderContent, claimed_folder
from nnlib.storage.outputs import refuse_overlap

SCORES = "results.json"
TABLE = "results.parquet"
CONFIGURATIONS = "configs"
TIMING = "timing"
"""What an evaluation writes, beside its runs, figures and report."""

Progress = Callable[[Variant, int, int], None]
"""Called with a run, its finished epochs and the number of all its epochs."""


def evaluate(
    config: Config,
    output: str,
    *,
    at_once: int | None = None,
    timed: bool = False,
    report: bool = True,
    progress: Progress = lambda *_: None,
    inputs: Sequence[str] = (),
) -> dict[str, Any]:
    """Train the runs of an evaluation that are not finished, and write ``results.parquet`` and ``results.json``.

    Args:
        output: the folder of the evaluation.
        at_once: runs at once; None: one a core.
        timed: also measure times, in runs of their own.
        report: write ``report.html`` about the runs, where the packages that draw it are installed.
        progress: called whenever a run has finished a round.
        inputs: addresses that are read besides the dataset. A new evaluation's folder must not touch any of them.

    Returns:
        What ``--json`` prints: the scores, the runs by name, what a sweep chose, the paired comparison of the runs.
    """
    epochs = checked_epochs(config)
    wanted = variants(config)
    folder = storage(output)
    content = FolderContent.of(SCORES, TABLE, CONFIGURATIONS, FIGURES, TIMING, PAGE)
    if _own_content(folder, content) == NOTHING:
        refuse_overlap(output, (config.data.path, *inputs))
    with claimed_folder(folder, content, lambda: _own_content(folder, content)):
        return _evaluate(config, wanted, epochs, folder, at_once, timed, report, progress)


def _own_content(folder: Storage, content: FolderContent) -> FolderContent:
    """Return what may be replaced in the folder: all, where an evaluation of ours has written its first files, which
    are resolved configurations."""
    for name in folder.names(CONFIGURATIONS):
        with contextlib.suppress(StorageError):
            if b"format_version:" in folder.read(f"{CONFIGURATIONS}/{name}"):
                return content
    return NOTHING


def _evaluate(
    config: Config,
    wanted: Sequence[Variant],
    epochs: Sequence[int],
    folder: Storage,
    at_once: int | None,
    timed: bool,
    report: bool,
    progress: Progress,
) -> dict[str, Any]:
    results = _run_all(config, wanted, folder, at_once or _cores(config), progress)
    scores: list[Score] = []
    for variant in wanted:
        scores += scores_of(RunDirectory.open(f"{folder.root}/{variant.name}"), epochs)
    write_scores(folder, scores)
    seconds = measure_time(config, folder.root, progress) if timed else None
    runs = {variant: RunDirectory.open(f"{folder.root}/{variant.name}") for variant in wanted}
    chosen = {variant: chosen_combination(combinations_of(_final(run).trials)) for variant, run in runs.items()}
    pairs = compare_series(_compared(runs, chosen if config.sweep else None))
    with contextlib.suppress(ImportError):  # matplotlib is an extra; the table is the result
        write_figures(config, folder, scores, seconds)
    return {
        "output": folder.root,
        "seconds": seconds,
        "runs": {variant.name: results[variant].run_dir for variant in wanted},
        "scores": [score.to_json() for score in scores],
        "chosen": {variant.name: choice and choice.to_json() for variant, choice in chosen.items()}
        if config.sweep
        else None,
        "comparisons": [_comparison(pair) for pair in pairs],
        "report": _report(folder, list(runs.values())) if report else None,
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
    """Return the series to compare: all trials of each run; of a sweep those that were chosen, if any."""
    compared = []
    for variant, run in runs.items():
        for series in read_series([run.address]):
            choice = None if chosen is None else chosen[variant]
            if chosen is None or (choice is not None and dict(series.trials[0].overrides) == choice.overrides):
                compared.append(replace(series, label=variant.name))
    return compared


def _comparison(pair: Pair) -> dict[str, Any]:
    """Return a pair as JSON-able values; ``p`` is adjusted for all pairs."""
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


def _report(folder: Storage, runs: Sequence[RunDirectory]) -> str | None:
    """Write the report of the runs into the folder of the results; None where matplotlib or Jinja2 is not installed."""
    try:
        return str(write_report([run.address for run in runs], folder.root)["output"])
    except UsageError:
        return None


def measure_time(config: Config, output: str, progress: Progress = lambda *_: None) -> dict[int, dict[int, float]]:
    """Measure the seconds of training by workers and epochs: one split, one run at a time.

    Workers are processes, or tasks of a cluster.

    The start of the command is not counted, as in the paper's tables; finished runs are not repeated.
    """
    epochs = checked_epochs(config)
    folder = storage(f"{storage(output).root}/{TIMING}")
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
    _run_all(single, wanted, folder, 1, progress)
    seconds = {}
    for variant in wanted:
        run = RunDirectory.open(f"{folder.root}/{variant.name}")
        by_round, rounds = round_seconds(run), round_ends(run)
        seconds[variant.workers] = {epoch: by_round[rounds[epoch]] for epoch in epochs}
    folder.write("timing.json", canonical({"seconds": {str(w): line for w, line in seconds.items()}}))
    return seconds


def write_figures(
    config: Config, folder: Storage, scores: Sequence[Score], seconds: Mapping[int, Mapping[int, float]] | None
) -> None:
    """Write the figures of the evaluation as SVG files into the folder ``figures`` of its results."""
    from nnlib.evaluation import figures  # late: matplotlib

    published = config.evaluate.published == "paper"
    folder.write("figures/accuracy-by-epochs.svg", figures.accuracy_figure(scores, published=published))
    if seconds:
        folder.write("figures/time-by-epochs.svg", figures.time_figure(seconds, published=published))
        folder.write("figures/time-by-workers.svg", figures.workers_figure(seconds, published=published))


def write_scores(folder: Storage, scores: Sequence[Score]) -> None:
    """Write the scores as Parquet and as JSON."""
    import pyarrow.parquet as pq

    with folder.writing(TABLE) as stream:
        pq.write_table(to_table(scores), stream, compression="zstd")
    folder.write(SCORES, canonical({"scores": [score.to_json() for score in scores]}))


def _cores(config: Config) -> int:
    """Runs at once: one in one process takes one core, as does the driver of a cluster's jobs; others take them all."""
    runner = runner_named(config.runtime.runner)
    return (config.runtime.cores or os.cpu_count() or 1) if runner.in_one_process or runner.is_remote else 1


def variant_config(config: Config, variant: Variant, folder: Storage) -> Config:
    """Return the experiment as this run trains it."""
    return config.model_copy(
        update={
            "name": f"{config.name}-{variant.name}"[:64],
            "workers": variant.workers,
            "run_dir": f"{folder.root}/{variant.name}",
            "sampling": config.sampling.model_copy(update={"streams": variant.streams}),
        }
    )


def _run_all(
    config: Config, wanted: Sequence[Variant], folder: Storage, at_once: int, progress: Progress
) -> dict[Variant, RunResult]:
    processes: list[subprocess.Popen[str]] = []
    lock = threading.Lock()
    stopping = False

    def run(variant: Variant) -> RunResult:
        path = f"{CONFIGURATIONS}/{variant.name}.yaml"
        folder.write(path, to_yaml(variant_config(config, variant, folder)).encode())
        with lock:
            if stopping:
                raise JobError("stopped before its start", run=variant.name)
            process = subprocess.Popen(
                [sys.executable, "-m", "jobs.experiments.run_process", f"{folder.root}/{path}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                encoding="utf-8",
            )
            processes.append(process)
        return _follow(process, variant, progress)

    # The largest first: then the last run, which runs alone, is a small one.
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
    """Return the relative cost of a run: with shared streams every worker does the whole work."""
    return variant.workers if variant.streams == "shared" else 1


def _follow(process: subprocess.Popen[str], variant: Variant, progress: Progress) -> RunResult:
    """Read a run's lines to its end and return its result; raise the error that it reported."""
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
