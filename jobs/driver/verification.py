"""Verify a run: are its files what its ledger says, and does recomputing its rounds end in the same bits?

Three questions, from cheap to dear: does every file match its round's manifest and the chain of the ledger; are the
shards the ones it was trained on; does replaying a round from the nearest kept model end in the same bytes.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from jobs.driver.final_scores import final_scores
from jobs.driver.run_setup import initial_states
from jobs.mapreduce.launcher import RoundLauncher, model_files
from nnlib.collective.communicator import Communicator
from nnlib.collective.in_process import InProcessGroup
from nnlib.config.code_files import WEIGHTS, hash_of_file
from nnlib.config.devices import AUTO, CPU, count_devices, parse_device
from nnlib.config.identity import device_hashes
from nnlib.config.options import torch_options
from nnlib.config.schema import Config
from nnlib.core.errors import ConfigError, DataError, DivergedError, NnjobsError
from nnlib.core.events import Listener, Note, ignore
from nnlib.core.numerics import blas_threads
from nnlib.core.progress import progressing
from nnlib.core.scratch import scratch_folder
from nnlib.data.dataset import Dataset
from nnlib.data.shard_reader import ShardReader
from nnlib.run.checkpoint import Checkpoint
from nnlib.run.directory import FINAL_METRICS, RunDirectory, final_bytes
from nnlib.run.frozen import FROZEN
from nnlib.run.ledger import LedgerLine, canonical, digest, first_facts
from nnlib.run.manifest import KEPT, LEDGER, MODEL, STATE
from nnlib.run.planner import make_spec
from nnlib.run.round_length import drained_round, epochs_after, round_count
from nnlib.run.round_metrics import RoundMetrics
from nnlib.run.round_store import RoundStore
from nnlib.run.spec import JobSpec, Trial, WorkerPlan, assign_shards, initial_frozen, with_frozen
from nnlib.storage import LocalStorage
from nnlib.training.advance import advance
from nnlib.training.collective_training import train_together
from nnlib.training.contribution import WorkerFailedError
from nnlib.training.worker import LocalWorker, numerics_here


@dataclass
class Verification:
    """The result of a verification. ``problems`` name the file or round; ``notes`` say what could not be checked here,
    and why."""

    run_dir: str
    rounds: int
    ledger: str | None = None
    recomputed: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON-able data."""
        return {
            "run_dir": self.run_dir,
            "rounds": self.rounds,
            "ledger_sha256": self.ledger,
            "recomputed": self.recomputed,
            "problems": self.problems,
            "notes": self.notes,
            "verified": not self.problems,
        }


def verify(
    address: str,
    *,
    round_: int | None = None,
    every: bool = False,
    runner: str | None = None,
    listen: Listener = ignore,
) -> Verification:
    """Check a run; recompute its last round, or ``round_``, or ``every`` round from the seed on, by its own runner or
    by ``runner``.

    Whatever differs is a problem in the result. Raises the typed errors of `nnlib.core.errors` where that cannot be
    decided: no run, no such round, a storage or a cluster that is away, a runner that cannot read the data."""
    run = RunDirectory.open(address)
    spec = run.spec()
    spec.admit_code()
    store = run.rounds(spec)
    committed = store.rounds()
    if not committed or (round_ is not None and round_ not in committed):
        there = f"{committed[0]} to {committed[-1]}" if committed else "none"
        raise ConfigError(f"there is no round {round_} to verify (rounds: {there})", run=run.address)
    result = Verification(run.address, committed[-1])
    _check_files(store, committed, result)
    _check_chain(spec, store, committed, result)
    _check_frozen(spec, result)
    _check_data(spec, result)
    if result.problems:
        result.notes.append("no round was recomputed: its files or its data are not what they were")
        return result
    with ExitStack() as stack:
        stack.enter_context(blas_threads(spec.config.runtime.blas_threads))  # they decide which kernel this is, too
        if not _same_device(spec, result) or not _same_kernel(spec, store, committed, result):
            return result
        wanted = committed if every else [committed[-1] if round_ is None else round_]
        try:
            _replay(stack, run, _with_runner(spec, runner), wanted, result, listen)
        except (DataError, DivergedError) as error:
            result.problems.append(f"recomputing failed: {error}")
    return result


def _with_runner(spec: JobSpec, runner: str | None) -> JobSpec:
    """Which runner recomputes is no part of the bits."""
    if runner is None:
        return spec
    runtime = spec.config.runtime.model_copy(update={"runner": runner})
    return replace(spec, config=spec.config.model_copy(update={"runtime": runtime}))


def _check_files(store: RoundStore, committed: Sequence[int], result: Verification) -> None:
    if list(committed) != list(range(committed[-1] + 1)):
        missing = sorted(set(range(committed[-1] + 1)) - set(committed))
        wrong = f"round {', '.join(map(str, missing))} is missing" if missing else "two commits hold the same round"
        result.problems.append(wrong)
    with progressing("checking the files of", committed[-1], "rounds") as advance:
        for span in store.log.spans():
            try:
                result.problems += store.log.damaged(span[-1])
            except NnjobsError as error:
                result.problems.append(f"round {span[-1]}: {error}")
            advance(span[-1])


def _check_chain(spec: JobSpec, store: RoundStore, committed: Sequence[int], result: Verification) -> None:
    """Each line must name the hash of the line before, the run's facts, and its round's files."""
    previous: bytes | None = None
    facts_of_spec = first_facts(spec, None).to_json()
    hashes = device_hashes(spec.config, spec.dataset.fingerprint)
    for round_ in committed:
        try:
            line = store.log.ledger(round_)
            parsed = LedgerLine.parse(line)
            facts = parsed.facts
            if parsed.previous != (None if previous is None else digest(previous)):
                result.problems.append(
                    f"ledger line {round_} is not chained to line {round_ - 1}: one of them was altered"
                )
            for key in ("config", "dataset", "workers"):
                if facts[key] != facts_of_spec[key] and not (key == "config" and facts[key] in hashes):
                    result.problems.append(f"ledger line {round_}: {key} is not the run's (spec.json)")
            for key in ("seed", "splits", "folds", "trials", "shards") if round_ == 0 else ():
                if facts[key] != facts_of_spec[key]:
                    result.problems.append(f"ledger line 0: {key} are not those of spec.json")
            if round_ == 0 and facts.get("frozen") != facts_of_spec.get("frozen"):
                result.problems.append("ledger line 0: the frozen parameters are not those of spec.json")
            stored, within = store.log.hashes(round_), store.log.commit_of(round_) != round_
            for name, expected in parsed.files.items():
                if stored.get(name) != expected and not (within and name not in stored):
                    result.problems.append(f"ledger line {round_}: {name} is not the one of the manifest")
        except (NnjobsError, ValueError, KeyError, TypeError, AttributeError) as error:
            result.problems.append(f"ledger line {round_} cannot be read: {error}")
            return
        previous = line
    result.ledger = None if previous is None else digest(previous)


def _check_frozen(spec: JobSpec, result: Verification) -> None:
    """The parameters that no round trains must be the file that the spec and the ledger name."""
    try:
        spec.frozen_arrays(spec.trials[0])
    except NnjobsError as error:
        result.problems.append(str(error).splitlines()[0])


def _check_data(spec: JobSpec, result: Verification) -> None:
    for index in range(len(spec.dataset.shards)):
        try:
            ShardReader(spec.dataset, index).close()
        except NnjobsError as error:
            result.problems.append(str(error).splitlines()[0])


def _same_device(spec: JobSpec, result: Verification) -> bool:
    """Whether this machine has the device that the run was computed on."""
    kind, index = parse_device(spec.config.runtime.device)
    if kind in (AUTO, CPU) or count_devices(kind) > (index or 0):
        return True
    result.notes.append(
        f"other device: the run was computed on {spec.config.runtime.device}, which {platform.node()} does not have; "
        "files and chain are whole, but its rounds can only be recomputed on such a device"
    )
    return False


def _same_kernel(spec: JobSpec, store: RoundStore, committed: Sequence[int], result: Verification) -> bool:
    """Whether this machine computes the bits that the run's workers computed."""
    here = numerics_here(spec)
    kernels = {kernel for round_ in committed[1:] for kernel in LedgerLine.parse(store.log.ledger(round_)).numerics}
    if kernels <= here:
        return True
    result.notes.append(
        f"other kernel: the run was computed with numerics {', '.join(sorted(kernels))}, this machine has "
        f"{', '.join(sorted(here))}; files and chain are whole, but its rounds can only be recomputed with the same "
        "numpy, BLAS and torch kernels"
    )
    return False


def _replay(
    stack: ExitStack, run: RunDirectory, spec: JobSpec, wanted: Sequence[int], result: Verification, listen: Listener
) -> None:
    """Recompute the wanted rounds into a scratch store and compare their manifests with the run's."""
    store = run.rounds(spec)
    scratch = RoundStore(LocalStorage(stack.enter_context(scratch_folder())), store.layouts)
    plans = assign_shards([shard.rows for shard in spec.dataset.shards], spec.config.workers)
    site = stack.enter_context(RoundLauncher(spec, plans, listen))
    if 0 in wanted:
        _verify_start(run, spec, store, scratch, result)
    current: tuple[RoundStore, Checkpoint] | None = None
    lacking = {round_ for round_ in store.rounds()[1:] if LedgerLine.parse(store.log.ledger(round_)).lacks_workers}
    together = _needs_group(spec)
    for target in [round_ for round_ in wanted if round_ > 0]:
        if current is not None and current[1].round >= target:  # on the way to the end of an overlap
            _compare(store, scratch, target, result)
            continue
        if current is None:
            base = max(round_ for round_ in store.rounds() if round_ < target and store.has_model(round_))
            current = (store, store.load(base))
            current[1].kept = store.kept(base)
        if between := sorted(lacking & set(range(current[1].round + 1, target + 1))):
            result.notes.append(
                f"round {target} was not recomputed: workers were missing (a quorum) from round "
                f"{', '.join(map(str, between))}"
            )
            current = None
            continue
        end = drained_round(spec.config, target) if together else target
        if (rounds := end - current[1].round) > 1:
            by = "" if together else f", a job each (-r {spec.config.runtime.runner})"
            listen(Note(f"recomputing {rounds} rounds from the model of round {current[1].round}{by}"))
        if together:
            current = (scratch, _replay_together(spec, plans, current[1], end, scratch))
        while current[1].round < target:
            where, before = current
            active = [index for index, trial in enumerate(before.trials) if trial.status == "active"]
            epochs = epochs_after(spec.config, before.metrics)
            files = model_files(where, before)
            after = advance(spec, before, site.run("train", before.round, active, *files, epochs=epochs))
            scratch.commit(after, before)
            current = (scratch, after)
            listen(Note(f"recomputed round {after.round}"))
        _compare(store, scratch, target, result)
    last = store.rounds()[-1]
    if last in wanted and run.final() is not None and not result.problems:
        _verify_final(run, site, store, last, result)


def _needs_group(spec: JobSpec) -> bool:
    """Whether a worker's round depends on more than the model that it starts from."""
    sync, trials = spec.config.sync, map(spec.settings, spec.trials)
    keeps = any(settings.train.optimizer_state == "keep" for settings in trials)
    return bool(sync.every == "batch" or sync.error_feedback or sync.overlap or keeps)


def _replay_together(
    spec: JobSpec, plans: Sequence[WorkerPlan], start: Checkpoint, target: int, scratch: RoundStore
) -> Checkpoint:
    """Rounds whose workers average at every step, or keep something for themselves (what rounding took, an optimizer's
    state, what is not averaged yet), can only be trained by a group: one in this process."""
    reached: list[Checkpoint] = []

    class Committing:
        def is_commit_due(self, round_: int) -> bool:
            return True

        def on_round(self, before: Checkpoint, after: Checkpoint, *_: object, **__: object) -> None:
            scratch.commit(after, before)

        def finish(self) -> None:
            """Every round is committed already."""

    def take_part(group: Communicator) -> None:
        observer = Committing() if group.worker == 0 else None
        with LocalWorker(spec, plans[group.worker]) as worker:
            end = train_together(worker, group, start, observer, until=target)
            if observer is not None:
                reached.append(end)

    try:
        InProcessGroup(spec.workers).run(take_part)
    except WorkerFailedError as failed:
        raise failed.error from failed
    return reached[0]


def _compare(store: RoundStore, scratch: RoundStore, round_: int, result: Verification) -> None:
    """The line of the ledger has the hashes of all the round's files, also of those that a span does not keep."""
    lines = [each.log.ledger(round_) for each in (scratch, store)]
    ours, theirs = (LedgerLine.parse(line).files for line in lines)
    differing = [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]
    if lines[0] != lines[1]:
        differing.append(LEDGER)
    if store.log.commit_of(round_) == round_:  # what workers keep is in no line, for rounds within spans have none
        files = [each.log.manifest(round_).files for each in (scratch, store)]
        differing += [name for name in KEPT if files[0].get(name) != files[1].get(name)]
    if differing:
        result.problems.append(f"round {round_}: recomputing gives another {', '.join(differing)}")
    result.recomputed.append(round_)


def _verify_start(
    run: RunDirectory, spec: JobSpec, store: RoundStore, scratch: RoundStore, result: Verification
) -> None:
    """Round 0: the splits from the labels, the first weights from the seeds (or a note, after a warm start)."""
    dataset = Dataset.open(spec.dataset.address)
    verify_trials(make_spec(spec.config, dataset, spec.sources)[0].trials, spec.trials, result)
    if LedgerLine.parse(store.log.ledger(0)).has_origin:
        result.notes.append(
            "round 0 got its weights from elsewhere (train --from, or a program): only their hash was checked"
        )
        return
    if (address := _missing_weights(spec.config)) is not None:
        result.notes.append(f"round 0 got its weights from {address}, which is not here: only their hash was checked")
        return
    scratch.commit(Checkpoint(0, initial_states(spec), RoundMetrics(0), first_facts(spec, None)))
    again = with_frozen(spec, [initial_frozen(spec, trial) for trial in spec.trials])
    if again.frozen != spec.frozen:
        result.problems.append(f"round 0: the seeds give another {FROZEN}")
    ours_files, theirs_files = (each.log.manifest(0).files for each in (scratch, store))
    for name in (MODEL, STATE):
        if ours_files.get(name) != theirs_files.get(name):
            result.problems.append(f"round 0: the seeds give another {name}")
    result.recomputed.append(0)


def _missing_weights(config: Config) -> str | None:
    """The address of the first weights, where the file is not here any more, or another one is."""
    options = torch_options(config.model)
    if options is None or options.weights is None:
        return None
    try:
        return None if hash_of_file(options.weights) == options.sha256.get(WEIGHTS) else options.weights
    except NnjobsError:
        return options.weights


def verify_trials(ours: Sequence[Trial], theirs: Sequence[Trial], result: Verification) -> None:
    """Check that each trial of a run (``theirs``) is one that its configuration plans (``ours``), none twice.

    Their order may differ: the plan is made again from spec.json, which has the swept keys sorted; the run went through
    them as they stood in its YAML file.
    """
    planned = Counter(_facts_of(trial) for trial in ours)
    for trial in theirs:
        if not planned[facts := _facts_of(trial)]:
            result.problems.append(f"spec.json: trial {trial.index} is not what its split seed gives")
        planned[facts] -= 1


def _facts_of(trial: Trial) -> bytes:
    """All of a trial but its number and its scaling, which its rows alone do not give."""
    return canonical({**trial.to_json(), "index": 0, "scaler": None})


def _verify_final(run: RunDirectory, site: RoundLauncher, store: RoundStore, last: int, result: Verification) -> None:
    finished = run.final()
    detailed = finished is not None and finished.has_details
    final, arrays = final_scores(site, store, store.load(last), round_count(site.spec.config), detailed=detailed)
    if final_bytes(final) != run.storage.read(FINAL_METRICS):
        result.problems.append("final/metrics.json: recomputing gives other scores")
    kept = run.final_arrays()
    if kept.keys() != arrays.keys() or any(kept[name].tobytes() != arrays[name].tobytes() for name in arrays):
        result.problems.append("final/model.safetensors: not the model of its round")
