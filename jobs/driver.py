"""The iterative driver: restore or initialise, then round after round: run the job, take the outer step, commit.

All randomness is a function of the round, so a run that was killed goes on from its newest round to the bits of a run
never stopped.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from jobs.prepare import make_spec
from jobs.rounds import JobSite, TrialOutput
from jobs.tasks import merge_stats
from nnlib.checkpoint import ROUNDS, Checkpoint, RoundStore, TrialState, flat_vector, named_arrays
from nnlib.config.identity import resume_problems
from nnlib.config.schema import Config
from nnlib.data.dataset import Dataset
from nnlib.data.scaling import Scaler
from nnlib.errors import ConfigError, MismatchError
from nnlib.events import Event, Listener, Note, PhaseStarted, RoundDone, RunDone, RunStarted, TrialStopped, ignore
from nnlib.numerics import blas_threads
from nnlib.optim import build_outer
from nnlib.plan import JobSpec, WorkerPlan, assign_shards, round_count, round_epochs
from nnlib.rundir import EVENTS, LOG, METRICS_VIEW, WRITE_SECONDS, Journal, RunDirectory, metrics_lines
from nnlib.training import initial_vector, partial_layout


def train(
    config: Config, *, resume: bool = False, start_from: str | None = None, listen: Listener = ignore
) -> dict[str, Any]:
    """Train all trials of a configuration; returns what ``--json`` prints.

    ``resume`` goes on with the run in ``config.run_dir`` (or starts it, if it never got so far); ``start_from``
    (``RUN`` or ``RUN@ROUND``) takes the first weights from another run. Raises the typed errors of `nnlib.errors`; a
    diverged trial is no exception but listed under ``diverged`` in the result.
    """
    started = time.monotonic()
    if resume and config.run_dir is None:
        raise ConfigError("to resume, say which run", hint="add --run-dir RUN", key="run_dir")
    if resume and RunDirectory(str(config.run_dir)).exists():
        run = RunDirectory.open(str(config.run_dir))
    else:
        run, resume = RunDirectory.create(config.run_dir, config.name), False
    with ExitStack() as stack:
        stack.enter_context(blas_threads(config.runtime.blas_threads))
        driver = Driver(run, listen)
        stack.callback(driver.close)
        spec, plans = driver.reopen(config) if resume else driver.begin(config, start_from)
        site = stack.enter_context(JobSite(spec, plans, lambda text: driver.tell(Note(text, "warning"))))
        return driver.run_to_end(site, started)


class Driver:
    """Drives one run: owns its directory's journals, tells its listener what happens."""

    def __init__(self, run: RunDirectory, listen: Listener) -> None:
        self.directory = run
        self._listen = listen
        self._log = Journal(run.storage, LOG, held=not run.exists())
        self._events = Journal(run.storage, EVENTS, held=not run.exists())
        self._viewed = time.monotonic()

    def tell(self, event: Event) -> None:
        """Pass an event on, and keep a line of it in the run's log."""
        self._log.line(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {event}")
        self._listen(event)

    def close(self) -> None:
        self._log.flush()
        self._events.flush()

    def begin(self, config: Config, start_from: str | None) -> tuple[JobSpec, list[WorkerPlan]]:
        """A new run: find the splits, fit the scaling, commit round 0; the spec last: with it the run exists."""
        dataset = Dataset.open(config.data.path)
        self.tell(PhaseStarted("split", "finding the splits"))
        spec, plans = make_spec(config, dataset)
        if config.data.scale != "none":
            spec = self._fit_scaling(spec, plans)
        states = [self._initial(spec, index) for index in range(len(spec.trials))]
        if start_from is not None:
            self._warm_start(spec, states, start_from)
        self.directory.storage.delete(ROUNDS)  # of a start that was killed before there was a spec
        self.directory.rounds(spec).commit(Checkpoint(0, states, {"round": 0, "epoch": 0, "from": start_from}))
        self.directory.write_spec(spec)
        self._log.held = self._events.held = False
        return spec, plans

    def reopen(self, config: Config) -> tuple[JobSpec, list[WorkerPlan]]:
        """An existing run, under a configuration that may differ only in what does not touch its mathematics."""
        spec = self.directory.spec()
        problems = resume_problems(spec.config, config)
        if problems:
            raise ConfigError(
                "this run cannot go on with a changed configuration:\n" + "\n".join(f"    {line}" for line in problems),
                hint=f"train a new run from its model: --from {self.directory.address}",
                run=self.directory.address,
            )
        dataset = Dataset.open(config.data.path)
        if dataset.fingerprint != spec.dataset.fingerprint:
            raise MismatchError(
                "the dataset is not the one this run was started with",
                hint=f"bring the old one back, or train a new run: --from {self.directory.address}",
                dataset=dataset.address,
            )
        spec = replace(spec, config=config, dataset=dataset)
        self.directory.write_spec(spec)
        return spec, assign_shards([shard.rows for shard in dataset.shards], config.workers)

    def run_to_end(self, site: JobSite, started: float) -> dict[str, Any]:
        """From the newest committed round to the last, then the final scores."""
        spec, store = site.spec, self.directory.rounds(site.spec)
        rounds = round_count(spec.config)
        checkpoint = store.load(store.rounds()[-1])
        finished = self.directory.final()
        if finished is not None and finished["rounds_planned"] == rounds:
            self.tell(Note("this run is finished; nothing to do"))
            return self._result(finished, started)
        self._announce(spec, checkpoint.round)
        while checkpoint.round < rounds and any(trial.status == "active" for trial in checkpoint.trials):
            checkpoint = self._round(site, store, checkpoint, rounds)
        final = self._finish(site, store, checkpoint, rounds)
        self._write_view(store, final)
        result = self._result(final, started)
        self.tell(RunDone(result))
        return result

    def _round(self, site: JobSite, store: RoundStore, before: Checkpoint, rounds: int) -> Checkpoint:
        """One round: job, outer step, commit."""
        began = time.monotonic()
        config = site.spec.config
        active = [index for index, trial in enumerate(before.trials) if trial.status == "active"]
        outputs = site.run("train", before.round, active, *self._files(store, before))
        epochs = round_epochs(config, before.round)
        trials, entries = list(before.trials), []
        for index in active:
            trials[index] = self._next_state(site.spec, index, before, outputs[index])
            entries.append(_entry(site.spec, index, before.round, outputs[index], trials[index]))
        round_ = before.round + 1
        checkpoint = Checkpoint(
            round_,
            trials,
            {"round": round_, "epoch": epochs.stop, "epochs": [epochs.start, epochs.stop], "trials": entries},
        )
        store.commit(checkpoint)
        store.prune(config.checkpoint.keep, {trial.best_round for trial in trials if trial.best_round is not None})
        self._record(checkpoint.round, outputs, time.monotonic() - began)
        self._tell_round(config, checkpoint, entries, rounds, time.monotonic() - began)
        if time.monotonic() - self._viewed > WRITE_SECONDS:
            self._write_view(store, None)
        return checkpoint

    def _next_state(self, spec: JobSpec, index: int, before: Checkpoint, output: TrialOutput) -> TrialState:
        """A trial after the round: stopped early, diverged, or moved by the outer step."""
        config, old = spec.config, before.trials[index]
        state = replace(old)
        if config.train.stop is not None or config.train.keep == "best":
            _watch(state, before.round, output.scores["validation"]["loss"], config)
            if config.train.stop is not None and state.waited >= config.train.stop.patience:
                state.status = "stopped"
                state.reason = f"no better validation loss since round {state.best_round}"
                self.tell(TrialStopped(index, spec.trials[index].split, before.round, state.reason))
                return state
        error = output.diverged
        if error is not None:
            state.status, state.reason = "diverged", str(error).splitlines()[0]
            self.tell(TrialStopped(index, spec.trials[index].split, before.round, f"diverged: {state.reason}"))
            return state
        assert output.average is not None
        size = old.weights.size
        outer = build_outer(config.sync.outer, size)
        weights, state.outer = outer.apply(old.weights, output.average[:size], old.outer.astype(np.float64))
        if not np.isfinite(weights).all():
            state.status, state.reason = "diverged", f"round {before.round}: the outer step gave a weight not finite"
            self.tell(TrialStopped(index, spec.trials[index].split, before.round, state.reason))
            return replace(state, outer=old.outer)
        state.weights, state.optimizer = weights, output.average[size:]
        state.round = before.round + 1
        return state

    def _finish(self, site: JobSite, store: RoundStore, last: Checkpoint, rounds: int) -> dict[str, Any]:
        """Score the last models by a job of 0 epochs, choose which to keep, store both."""
        self.tell(PhaseStarted("final", "scoring the final models"))
        spec, everyone = site.spec, range(len(site.spec.trials))
        outputs = site.run(
            "score",
            last.round,
            everyone,
            store_path(self.directory, store.model_file(last.round)),
            self._files(store, last)[1],
        )
        entries: list[dict[str, Any]] = []
        arrays: dict[str, Any] = {}
        digest = hashlib.sha256()
        for index in everyone:
            state, trial, scores = last.trials[index], spec.trials[index], outputs[index].scores
            weights, round_ = state.weights, state.round
            if spec.config.train.keep == "best" and state.status != "diverged":
                if state.status == "active":
                    _watch(state, state.round, scores["validation"]["loss"], spec.config)
                if state.best_round is not None and state.best_round != state.round:
                    round_ = state.best_round
                    weights = store.load(round_).trials[index].weights
                    scores = _scores_of(store, index, round_)
            arrays |= named_arrays(index, weights, spec.model(trial).layout)
            digest.update(np.ascontiguousarray(weights, weights.dtype.newbyteorder("<")).tobytes())
            entries.append(
                {
                    "trial": index,
                    "split": trial.split,
                    "fold": trial.fold,
                    "status": state.status,
                    "reason": state.reason,
                    "round": round_,
                    "test": scores["test"],
                    "validation": scores["validation"],
                }
            )
        final = {
            "rounds": last.round,
            "rounds_planned": rounds,
            "task": spec.dataset.task,
            "model_sha256": digest.hexdigest(),
            "trials": entries,
        }
        self.directory.finish(final, arrays)
        return final

    def _result(self, final: dict[str, Any], started: float) -> dict[str, Any]:
        """The object that ``--json`` prints."""
        classes = final["task"] == "classification"
        trials = []
        for entry in final["trials"]:
            test = entry["test"]
            line = {"split": entry["split"], "test_accuracy": test.get("accuracy"), "test_loss": test["loss"]}
            if not classes:
                line |= {"test_r2": test["r2"], "test_mse": test["mse"], "test_mae": test["mae"]}
            trials.append(line | {"status": entry["status"], "round": entry["round"]})
        result: dict[str, Any] = {
            "test_accuracy": _mean([line["test_accuracy"] for line in trials]) if classes else None,
            "trials": trials,
            "model_sha256": final["model_sha256"],
            "rounds": final["rounds"],
            "seconds": round(time.monotonic() - started, 3),
            "run_dir": self.directory.address,
            "diverged": [
                {"trial": entry["trial"], "split": entry["split"], "reason": entry["reason"]}
                for entry in final["trials"]
                if entry["status"] == "diverged"
            ],
        }
        if not classes:
            result["test_metric"] = {"name": "r2", "value": _mean([line["test_r2"] for line in trials])}
        return result

    def _initial(self, spec: JobSpec, index: int) -> TrialState:
        """A trial before round 0: weights by its seed, all other state zero."""
        trial = spec.trials[index]
        weights = initial_vector(spec, trial)
        rest = partial_layout(spec.config, spec.model(trial)).size - weights.size
        outer = build_outer(spec.config.sync.outer, weights.size).initial()
        return TrialState(weights, np.zeros(rest, weights.dtype), outer)

    def _warm_start(self, spec: JobSpec, states: Sequence[TrialState], address: str) -> None:
        """First weights from another run's final models or one of its rounds, trial by trial with the same split."""
        place, separator, round_ = address.rpartition("@")
        if not separator or not round_.isdigit():
            place, round_ = address, ""
        parent = RunDirectory.open(place)
        old = parent.spec()
        store = parent.rounds(old)
        if round_ and (int(round_) not in store.rounds() or not store.has_model(int(round_))):
            kept = ", ".join(str(number) for number in store.rounds() if store.has_model(number))
            raise ConfigError(f"that run keeps no model of round {round_} (kept: {kept})", run=parent.address)
        by_split = {(trial.split, trial.fold): trial.index for trial in old.trials}
        newest = None if round_ or parent.final() is not None else store.load(store.rounds()[-1])
        chosen = store.load(int(round_)) if round_ else newest
        arrays = {} if chosen is not None else parent.final_arrays()
        for state, trial in zip(states, spec.trials, strict=True):
            index = by_split.get((trial.split, trial.fold))
            if index is None:
                raise ConfigError(
                    f"that run has no trial of split {trial.split} (it has {', '.join(str(s) for s, _ in by_split)}): "
                    "another split's model has seen this split's test rows",
                    run=parent.address,
                    key="split.seeds",
                )
            layout = spec.model(trial).layout
            if old.model(old.trials[index]).layout != layout:
                raise ConfigError(
                    "that run's model has another shape or dtype", run=parent.address, key="model", trial=trial.index
                )
            if chosen is not None:
                state.weights = chosen.trials[index].weights
            else:
                state.weights = flat_vector(index, arrays, layout, parent.address)

    def _fit_scaling(self, spec: JobSpec, plans: Sequence[WorkerPlan]) -> JobSpec:
        """Fit the feature scaling of every trial on its training rows, by one job."""
        self.tell(PhaseStarted("scale", "fitting the feature scaling"))
        with JobSite(spec, plans, lambda text: self.tell(Note(text, "warning"))) as site:
            outputs = site.run("scale", 0, range(len(spec.trials)))
        kind = spec.config.data.scale
        trials = [
            replace(trial, scaler=Scaler.from_stats(kind, merge_stats(outputs[trial.index].stats)))
            for trial in spec.trials
        ]
        return replace(spec, trials=tuple(trials))

    def _files(self, store: RoundStore, checkpoint: Checkpoint) -> tuple[str, str | None]:
        """Paths of the model, and of the averaged optimizer state if there is any, for a job's tasks."""
        model = store_path(self.directory, store.model_file(checkpoint.round))
        if not any(trial.optimizer.size for trial in checkpoint.trials):
            return model, None
        return model, store_path(self.directory, store.state_file(checkpoint.round))

    def _announce(self, spec: JobSpec, first_round: int) -> None:
        config, trial = spec.config, spec.trials[0]
        shared = config.sampling.streams == "shared"
        self._events.record(
            event="start", host=platform.node(), process=os.getpid(), runner=config.runtime.runner, round=first_round
        )
        self.tell(
            RunStarted(
                name=config.name,
                run_dir=self.directory.address,
                runner=config.runtime.runner,
                workers=config.workers,
                trials=len(spec.trials),
                first_round=first_round,
                rounds=round_count(config),
                epochs=config.train.epochs,
                parameters=spec.model(trial).layout.size,
                train_rows=trial.train_rows[0] if shared else sum(trial.train_rows),
                test_rows=sum(trial.test_rows),
            )
        )

    def _tell_round(
        self, config: Config, checkpoint: Checkpoint, entries: list[dict[str, Any]], rounds: int, seconds: float
    ) -> None:
        def mean(value: Callable[[dict[str, Any]], float | None]) -> float | None:
            return _mean([value(entry) for entry in entries])

        drift = [
            worker["drift"]["relative"]
            for entry in entries
            for worker in (entry["training"] or {}).get("workers", [])
            if worker["drift"]["relative"] is not None
        ]
        r2 = mean(lambda entry: entry["test"].get("r2"))
        self.tell(
            RoundDone(
                round=checkpoint.round,
                rounds=rounds,
                epoch=checkpoint.metrics["epoch"],
                epochs=config.train.epochs,
                active_trials=sum(trial.status == "active" for trial in checkpoint.trials),
                train_loss=mean(lambda entry: (entry["training"] or {}).get("loss")),
                test_loss=mean(lambda entry: entry["test"]["loss"]),
                test_accuracy=mean(lambda entry: entry["test"].get("accuracy")),
                test_metric=None if r2 is None else ("r2", r2),
                validation_loss=mean(lambda entry: entry["validation"]["loss"]),
                drift=max(drift) if drift else None,
                seconds=seconds,
            )
        )

    def _record(self, round_: int, outputs: dict[int, TrialOutput], seconds: float) -> None:
        """What may differ between two runs of the same bits: times."""
        phases: dict[str, float] = {}
        for output in outputs.values():
            for record in output.records.values():
                for phase, spent in record.get("seconds", {}).items():
                    phases[phase] = phases.get(phase, 0.0) + spent
        rounded = {phase: round(spent, 4) for phase, spent in phases.items()}
        self._events.record(event="round", round=round_, seconds=round(seconds, 4), worker_seconds=rounded)

    def _write_view(self, store: RoundStore, final: dict[str, Any] | None) -> None:
        lines = metrics_lines(store, store.rounds(), final)
        self.directory.storage.write(METRICS_VIEW, "".join(f"{line}\n" for line in lines).encode())
        self._viewed = time.monotonic()


def store_path(run: RunDirectory, name: str) -> str:
    """Where a file of the run lies, as a local path for the runners."""
    return f"{run.address}/{name}"


def _watch(state: TrialState, round_: int, loss: float | None, config: Config) -> None:
    """Early stopping's memory: the best validation loss so far, and how many scored rounds were no better."""
    min_delta = config.train.stop.min_delta if config.train.stop is not None else 0.0
    if loss is not None and (state.best_loss is None or loss < state.best_loss - min_delta):
        state.best_loss, state.best_round, state.waited = loss, round_, 0
    else:
        state.waited += 1


def _entry(spec: JobSpec, index: int, scored_round: int, output: TrialOutput, state: TrialState) -> dict[str, Any]:
    """A trial's part of a round's metrics: scores of the model it started from, and its training."""
    training = None
    if output.average is not None and state.round == scored_round + 1:
        drift = output.drift()
        workers = [
            {"worker": worker, "examples": record["examples"], "losses": record["losses"], "drift": drift[worker]}
            for worker, record in sorted(output.records.items())
        ]
        examples = sum(worker["examples"] for worker in workers)
        training = {
            "loss": sum(worker["examples"] * worker["losses"][-1] for worker in workers) / examples,
            "examples": examples,
            "workers": workers,
        }
    return {
        "trial": index,
        "split": spec.trials[index].split,
        "fold": spec.trials[index].fold,
        "scored_round": scored_round,
        "test": output.scores["test"],
        "validation": output.scores["validation"],
        "training": training,
        "status": state.status,
    }


def _scores_of(store: RoundStore, trial: int, round_: int) -> dict[str, dict[str, Any]]:
    """The scores of a trial's model after ``round_`` rounds: the next round's job made them."""
    for entry in store.metrics(round_ + 1)["trials"]:
        if entry["trial"] == trial and entry["scored_round"] == round_:
            return {"test": entry["test"], "validation": entry["validation"]}
    raise MismatchError("the scores of the best round are not there", round=round_, trial=trial)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
