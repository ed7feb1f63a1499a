"""Measures the training on several numbers of workers: one run for each, kept and resumable."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import statistics
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jobs.driver import driver
from nnlib import FORMAT_VERSION
from nnlib.config.earlier import stable_values
from nnlib.config.schema import Config
from nnlib.config.sweep import applied
from nnlib.core.errors import MismatchError, StorageError, UsageError
from nnlib.core.events import Event, Listener, Note, RoundDone
from nnlib.data.dataset import Dataset
from nnlib.run.directory import RunDirectory
from nnlib.run.journal import last_rounds, read_events
from nnlib.run.ledger import canonical
from nnlib.run.model_file import parse_json
from nnlib.run.spec import assign_shards
from nnlib.storage import Storage, storage
from nnlib.storage.output_folder import NOTHING, FolderContent, claimed_folder
from nnlib.storage.outputs import refuse_overlap

Notify = Callable[[str], None]
"""Called with each step, a line for people."""

STUDY = "scale.json"
FIGURE = "scale.png"
"""What a whole measurement writes; its runs are in folders beside them."""

BUSY_LOAD = 0.5
"""Load average per core above which other programs may disturb a measurement."""


@dataclass(frozen=True)
class Timing:
    """The times of one finished run.

    ``seconds`` is the whole training (splits, rounds, final scores), ``rounds_seconds`` the rounds
    alone. For a run that was interrupted (``resumed``) ``seconds`` is
    the time of its rounds.
    ``test_accuracy`` is the mean over the trials (None for regression), ``accuracy_sd`` their standard deviation
    (None for one trial)."""

    workers: int
    seconds: float
    rounds_seconds: float
    examples_per_second: float
    test_accuracy: float | None
    accuracy_sd: float | None
    test_metric: dict[str, Any] | None
    diverged: int
    resumed: bool
    run_dir: str


def changed(config: Config, **keys: Any) -> Config:
    """Return a configuration with some keys replaced; a dot in a key is written as two underscores."""
    overrides = {key.replace("__", "."): value for key, value in keys.items()}
    return Config.model_validate(applied(config.model_dump(mode="json"), overrides))


@contextlib.contextmanager
def claimed_results(config: Config, output: str, inputs: Sequence[str] = ()) -> Iterator[Storage]:
    """Claim the folder of a measurement for the block. What is not of an earlier measurement is not replaced.

    Args:
        config: the experiment.
        output: the address of the folder.
        inputs: addresses that are read besides the dataset.

    Raises:
        UsageError: the folder is an input, holds one or lies in one, or files of others would be replaced.
        StorageError: another command writes into it.
    """
    results = storage(output)
    content = FolderContent.of(STUDY, FIGURE)

    def ours() -> FolderContent:
        """A study names its points; before it is written, the timings of single runs are there."""
        names = [name for name in results.names() if re.fullmatch(r"workers-\d+(-again-\d+)?\.json", name)]
        is_ours = _has_keys(results, STUDY, {"format_version", "points"})
        is_ours |= not results.exists(STUDY) and any(_has_keys(results, name, {"setting", "timing"}) for name in names)
        return content if is_ours else NOTHING

    if ours() == NOTHING:
        refuse_overlap(output, (config.data.path, *inputs))
    with claimed_folder(results, content, ours):
        yield results


def _has_keys(files: Storage, name: str, keys: Collection[str]) -> bool:
    """Return whether a file is a JSON object with these keys."""
    try:
        data = json.loads(files.read(name)) if files.exists(name) else None
    except (StorageError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and set(keys) <= data.keys()


def measure(
    config: Config, workers: Sequence[int], output: str, *, repeat: int = 1, notify: Notify
) -> list[list[Timing]]:
    """Train with every number of workers, ``repeat`` times, and keep the timings in ``output``.

    All numbers are run once before any is repeated, so that a machine that gets busier slows all alike. A run that is
    finished in ``output`` is not repeated.

    Returns the timings of each number, in its order. Raises `UsageError` if ``output`` holds runs of other settings.
    """
    dataset = Dataset.open(config.data.path)
    refuse_beyond_shards(dataset, workers)
    results = storage(output)
    setting = _setting(config, dataset)
    timings: dict[int, list[Timing]] = {count: [] for count in workers}
    for repetition in range(repeat):
        for count in workers:
            name = f"workers-{count}" if repetition == 0 else f"workers-{count}-again-{repetition}"
            timing = _kept(results, f"{name}.json", setting)
            if timing is None:
                notify(f"{name}: training")
                run = changed(config, workers=count, run_dir=f"{results.root}/{name}")
                try:
                    timing = _run(run, lambda event: _show(event, notify))
                except KeyboardInterrupt:
                    notify("interrupted; the same command goes on from here")
                    raise
                record = {"format_version": FORMAT_VERSION, "setting": setting, "timing": asdict(timing)}
                results.write(f"{name}.json", canonical(record))
            notify(f"{name}: {timing.seconds:.2f} s")
            timings[count].append(timing)
    return list(timings.values())


def refuse_beyond_shards(dataset: Dataset, workers: Sequence[int]) -> None:
    """Raise `ConfigError` before anything is measured if a number of workers cannot be."""
    assign_shards([shard.rows for shard in dataset.shards], max(workers))


def load_warning() -> str | None:
    """Return a warning if other programs keep this machine busy: they lengthen the times. None if not."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load < BUSY_LOAD * cores:
        return None
    return f"warning: this machine is busy (load {load:.1f} on {cores} cores); times will vary with it"


def _setting(config: Config, dataset: Dataset) -> str:
    """Return a hash of all that a timing depends on, except the number of workers."""
    values = {key: value for key, value in stable_values(config).items() if key not in ("workers", "run_dir", "name")}
    return hashlib.sha256(canonical({"config": values, "dataset": dataset.fingerprint})).hexdigest()


def _kept(results: Storage, name: str, setting: str) -> Timing | None:
    """Read the timing that an earlier measurement kept; None if there is none."""
    if not results.exists(name):
        return None
    file = f"{results.root}/{name}"
    record = parse_json(results.read(name), file)
    if record.get("setting") != setting:
        raise UsageError(
            "holds a measurement of another configuration, dataset or runner",
            hint="measure into another directory (-o)",
            file=file,
        )
    try:
        return Timing(**record["timing"])
    except (KeyError, TypeError) as error:
        raise MismatchError(f"is no timing: {error}", hint="delete it to measure again", file=file) from error


def _run(config: Config, listen: Listener) -> Timing:
    """Train one run, or its rest, and time it."""
    run = RunDirectory(str(config.run_dir))
    resumed = run.exists()
    result = driver.train(config, resume=True, listen=listen)
    rounds = round_seconds(run, result.rounds)
    epochs = config.train.epochs
    examples = epochs * sum(trial.objective_rows for trial in run.spec().trials)
    accuracies = [trial.test_accuracy for trial in result.trials if trial.test_accuracy is not None]
    return Timing(
        workers=config.workers,
        seconds=round(rounds, 3) if resumed else result.seconds,
        rounds_seconds=round(rounds, 3),
        examples_per_second=round(examples / rounds, 1) if rounds else 0.0,
        test_accuracy=result.test_accuracy,
        accuracy_sd=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        test_metric=result.to_json().get("test_metric"),
        diverged=len(result.diverged),
        resumed=resumed,
        run_dir=run.address,
    )


def round_seconds(run: RunDirectory, rounds: int) -> float:
    """Sum the seconds of a run's ``rounds`` rounds. A kill can lose the record of the newest ones: they count as the
    mean of the rest."""
    recorded = last_rounds(read_events(run))
    return statistics.fmean(each.event.seconds for each in recorded) * rounds if recorded else 0.0


def _show(event: Event, notify: Notify) -> None:
    if isinstance(event, Note) and event.level != "info":
        notify(f"{event.level}: {event.text}")
    elif isinstance(event, RoundDone) and event.epoch == event.epochs:
        notify(f"  {event.round} rounds trained")
