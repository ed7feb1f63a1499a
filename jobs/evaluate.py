"""An evaluation: one run for each number of workers, all splits as trials in the same jobs, scores in one table.

Runs are processes of their own, as many at once as there are cores; a run that is finished is not repeated, so an
evaluation that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict
from typing import Any

from nnlib.config.render import to_yaml
from nnlib.config.schema import Config
from nnlib.errors import JobError, from_record
from nnlib.evaluation import Score, Variant, checked_epochs, round_ends, round_seconds, scores_of, to_table, variants
from nnlib.ledger import canonical
from nnlib.published import PAPER
from nnlib.rundir import RunDirectory
from nnlib.storage import Storage, storage

Progress = Callable[[Variant, int, int], None]
"""Called with a run, its epochs done and its epochs in all."""


def evaluate(
    config: Config,
    output: str,
    *,
    at_once: int | None = None,
    timed: bool = False,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Train every run of the evaluation (or what is left of it) and write ``results.parquet`` and ``results.json``.

    ``timed``: measure times besides, apart. Returns what ``--json`` prints: the scores, and the runs by name.
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
    with contextlib.suppress(ImportError):  # matplotlib is an extra; the table is the result
        write_figures(config, place, scores, seconds)
    return {
        "output": place.root,
        "seconds": seconds,
        "runs": {variant.name: results[variant]["run_dir"] for variant in wanted},
        "scores": [asdict(score) for score in scores],
        "diverged": [entry for variant in wanted for entry in results[variant]["diverged"]],
    }


def measure_time(config: Config, output: str, progress: Progress = lambda *_: None) -> dict[int, dict[int, float]]:
    """Seconds of training by workers and epochs: one split at a time, one run at a time, workers as processes.

    Start-up of the command is not counted, as in the paper's tables; runs that are finished are not repeated.
    """
    epochs = checked_epochs(config)
    place = storage(f"{storage(output).root}/timing")
    single = config.model_copy(
        update={
            "split": config.split.model_copy(update={"seeds": config.split.seeds[:1]}),
            "runtime": config.runtime.model_copy(update={"runner": "local"}),
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
    from nnlib import evaluation_figures as figures  # late: matplotlib

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
    """Runs at once: inline runs take one core each, a local run takes all it is told."""
    return 1 if config.runtime.runner == "local" else (config.runtime.cores or os.cpu_count() or 1)


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
) -> dict[Variant, dict[str, Any]]:
    processes: list[subprocess.Popen[str]] = []
    lock = threading.Lock()

    def run(variant: Variant) -> dict[str, Any]:
        path = f"configs/{variant.name}.yaml"
        place.write(path, to_yaml(variant_config(config, variant, place)).encode())
        with lock:
            process = subprocess.Popen(
                [sys.executable, "-m", "jobs.evaluate_worker", f"{place.root}/{path}"],
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
            for process in processes:
                process.terminate()
            raise


def _cost(variant: Variant) -> int:
    """Shared streams do the whole work on every worker, independent ones divide it."""
    return variant.workers if variant.streams == "shared" else 1


def _follow(process: subprocess.Popen[str], variant: Variant, progress: Progress) -> dict[str, Any]:
    """Read a run's lines to its end; raises what it reported."""
    assert process.stdout is not None
    result: dict[str, Any] | None = None
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
            result = facts
    code = process.wait()
    if result is None:
        raise JobError(f"the run of {variant.label} ended with code {code}", hint="run the same command to go on")
    progress(variant, epochs, epochs)  # a run whose trials all stopped is done before its last epoch
    return result


def summary_lines(config: Config, scores: Sequence[dict[str, Any]]) -> list[str]:
    """The table a person reads: mean and standard deviation over the trials, for every run and epoch, with published
    numbers beside them if the configuration names any."""
    rows = [Score(**score) for score in scores]
    metric = "accuracy" if any(row.accuracy is not None for row in rows) else "r2"
    columns = list(dict.fromkeys(Variant(row.workers, row.streams) for row in rows))
    published = {row.epochs: row for row in PAPER} if config.evaluate.published == "paper" else {}
    head = ["epochs", *(column.label for column in columns)]
    head += ["paper: sequential", "paper: parallel"] if published else []
    table = [head]
    for epoch in sorted({row.epoch for row in rows}):
        line = [str(epoch)]
        for column in columns:
            values = [
                value
                for row in rows
                if (row.workers, row.streams, row.epoch) == (column.workers, column.streams, epoch)
                and (value := getattr(row, metric)) is not None
            ]
            line.append(_mean_and_deviation(values, per_cent=metric == "accuracy"))
        if published:
            known = published.get(epoch)
            line += [f"{known.sequential:.2f} %", f"{known.parallel:.2f} %"] if known else ["–", "–"]
        table.append(line)
    trials = len({(row.split, row.fold, row.overrides) for row in rows})
    title = f"test {'accuracy' if metric == 'accuracy' else 'R2'}, mean ± standard deviation over {trials} trials"
    return [title, *_aligned(table)]


def _mean_and_deviation(values: Sequence[float], *, per_cent: bool) -> str:
    if not values:
        return "–"
    factor, unit = (100.0, " %") if per_cent else (1.0, "")
    mean = statistics.fmean(values) * factor
    if len(values) == 1:
        return f"{mean:.2f}{unit}"
    return f"{mean:.2f} ± {statistics.stdev(values) * factor:.2f}{unit}"


def time_lines(config: Config, seconds: Mapping[int, Mapping[int, float]]) -> list[str]:
    """The table of times a person reads, with published ones beside them if the configuration names any."""
    published = {row.epochs: row for row in PAPER} if config.evaluate.published == "paper" else {}
    head = ["epochs"]
    for workers in sorted(seconds):
        head += [Variant(workers, "").label.rstrip(", "), *(["paper"] if published else [])]
    table = [head]
    for epoch in sorted(next(iter(seconds.values()))):
        line = [str(epoch)]
        for workers in sorted(seconds):
            line.append(f"{seconds[workers][epoch]:.1f} s")
            known = published.get(epoch)
            if published:
                line.append(f"{known.seconds[workers]:.0f} s" if known and workers in known.seconds else "–")
        table.append(line)
    return ["seconds of training, one split", *_aligned(table)]


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[index]) for line in table) for index in range(len(table[0]))]
    return ["  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in table]
