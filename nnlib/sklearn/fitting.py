"""From arrays through a run of the driver to arrays: what `fit` and `partial_fit` do between their checks.

Only here does the library import ``jobs``: the driver is there, and an estimator that trained in another way would not
be the same model. The import stands within `train_arrays`, so no other use of the library loads mrjob.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnlib.config.load import parse_config
from nnlib.config.schema import Config
from nnlib.core.arrays import Array
from nnlib.core.errors import DataError, DivergedError, UsageError
from nnlib.core.events import Event, Listener, RoundDone, ignore
from nnlib.core.layout import ModelState
from nnlib.core.notes import ignore as ignore_note
from nnlib.core.notes import listening, note
from nnlib.core.scratch import scratch_folder
from nnlib.data.importing.formats.arrays import ArrayColumn, is_scipy_sparse
from nnlib.data.importing.import_dataset import from_arrays
from nnlib.inference.trained_model import TrainedModel
from nnlib.run.directory import RunDirectory

PARAMETERS: dict[str, str] = {
    "hidden_layer_sizes": "model.hidden",
    "activation": "model.activation",
    "factory": "model.factory",
    "files": "model.files",
    "device": "runtime.device",
    "dtype": "model.dtype",
    "solver": "train.optimizer",
    "alpha": "train.l2",
    "batch_size": "train.batch_size",
    "learning_rate_init": "train.lr",
    "momentum": "train.momentum",
    "max_iter": "train.epochs",
    "epochs_per_round": "train.epochs_per_round",
    "validation_fraction": "split.validation",
    "n_iter_no_change": "train.stop.patience",
    "tol": "train.stop.min_delta",
    "class_weight": "train.class_weights",
    "scale": "data.scale",
    "target_scale": "data.target_scale",
    "workers": "workers",
    "runner": "runtime.runner",
    "random_state": "seed",
}
"""An estimator's parameter -> the configuration's key."""

OWNED = (
    *PARAMETERS.values(),
    "data.path",
    "run_dir",
    "split",
    "model.kind",
    "model.arguments",
    "train.keep",
    "train.stop",
)
"""Keys that the parameter ``config`` may not set."""


@dataclass(frozen=True)
class Fitted:
    """What a run leaves to an estimator: its model, one mean training loss an epoch (for cg and lbfgs: a round), the
    hash of the weights, and the parameters that were not trained, by name."""

    trained: TrainedModel
    losses: list[float]
    epochs: int
    sha256: str
    frozen: dict[str, Array]


def configuration(name: str, values: Mapping[str, Any], extra: Mapping[str, Any] | None) -> Config:
    """The configuration of an estimator's fit; ``values`` and ``extra`` are by dotted key.

    ``name`` is the estimator's class. Raises `ValueError` naming the parameter and its key.
    """
    overrides = []
    owned = [key for key in OWNED if key != "runtime.device" or key in values]
    for key, value in (extra or {}).items():
        if any(f"{key}.".startswith(f"{taken}.") or taken.startswith(f"{key}.") for taken in owned):
            raise ValueError(f"config: {key} is set by {name} itself{_instead(key)}")
        overrides.append(f"{key}={json.dumps(value, default=_plain)}")
    document: dict[str, Any] = {}
    for key, value in values.items():
        *path, last = key.split(".")
        section = document
        for part in path:
            section = section.setdefault(part, {})
        section[last] = value
    try:
        # An estimator has parameters for all solvers; sklearn's own, too, ignore those that the solver does not read.
        return parse_config(json.dumps(document, default=_plain), name, overrides, every_option=True)
    except UsageError as error:
        raise ValueError(_named(name, str(error))) from error


def _kept_rows(config: Config, folder: Path) -> dict[str, Any]:
    """Return the keys of ``runtime`` by which a temporary dataset leaves no decoded rows behind: they lie beside it.
    One process needs none, for it decodes only once."""
    return {"cache_dir": f"{folder}/cache", **({"decoded_mb": 0} if config.runtime.runner == "inline" else {})}


def train_arrays(
    config: Config,
    X: Any,
    y: npt.NDArray[Any],
    *,
    classes: int | None,
    start: ModelState | None,
    verbose: bool,
    shape: tuple[int, ...] | None = None,
) -> Fitted:
    """Train on all rows: ``X`` (n, features) float32 or float64, also sparse, ``y`` (n,) class indices below
    ``classes``, or targets if it is None.

    ``start`` are the numbers to go on from; ``shape`` is that of a row as the model sees it, (features,) if None. The
    dataset and the run live in a temporary directory. Bad parameters, bad data and divergence raise `ValueError`; a
    failing disk or job raises `nnlib.core.errors.NnjobsError`.
    """
    from jobs.driver.driver import train

    listen: Listener = _print_round if verbose else ignore
    with scratch_folder() as folder:
        config = config.model_copy(
            update={
                "data": config.data.model_copy(update={"path": f"{folder}/data"}),
                "run_dir": f"{folder}/run",
                "workers": min(config.workers, X.shape[0]),
                "runtime": config.runtime.model_copy(update=_kept_rows(config, folder)),
            }
        )
        try:
            with listening(ignore_note):  # notes are about files and configurations
                from_arrays(
                    X if shape is None else _shaped(X, shape),
                    y,
                    config.data.path,
                    shards=config.workers,
                    dtype="auto",
                    task="regression" if classes is None else "classification",
                    classes=tuple(map(str, range(classes or 0))),
                )
                result = train(config, start_from=None if start is None else [start], listen=listen)
        except (UsageError, DataError, DivergedError) as error:
            raise ValueError(str(error)) from error
        if result.diverged:
            raise ValueError(
                f"training diverged: {result.diverged[0].reason}; scale the features (and a regression's "
                "targets), or lower learning_rate_init"
            )
        losses, epochs = _history(f"{folder}/run")
        trained = TrainedModel.load(f"{folder}/run")
        is_rounded = config.data.scale == "none" and config.model.dtype == "float32"
        if is_rounded and trained.spec.dataset.x_dtype == "float64":
            note("the net computes in float32, in which some different values of X are the same: set scale='standard'")
        frozen = {name: np.array(array) for name, array in trained.spec.frozen_arrays(trained.trial).items()}
        return Fitted(trained, losses, epochs, result.model_sha256, frozen)


def _shaped(X: Any, shape: tuple[int, ...]) -> ArrayColumn:
    """Rows (n, features) as a column of rows of this shape, made dense where they are sparse, a few at a time."""
    column = X if isinstance(X, ArrayColumn) else ArrayColumn.of_sparse(X) if is_scipy_sparse(X) else ArrayColumn.of(X)

    def blocks(rows: int) -> Iterator[npt.NDArray[Any]]:
        return (block.reshape(len(block), *shape) for block in column.blocks(rows))

    return ArrayColumn((column.shape[0], *shape), column.dtype, blocks)


def _history(run: str) -> tuple[list[float], int]:
    """Mean training losses over all workers' examples, in order, and how many epochs were trained."""
    directory = RunDirectory.open(run)
    store = directory.rounds(directory.spec())
    losses: list[float] = []
    epochs = 0
    for round_ in store.rounds()[1:]:
        metrics = store.log.metrics(round_)
        training = metrics.trials[0].training
        if training is None:  # the round at which the trial stopped early
            continue
        examples = [worker.examples for worker in training.workers]
        by_worker = [worker.losses for worker in training.workers]
        losses += [float(np.average(epoch, weights=examples)) for epoch in zip(*by_worker, strict=True)]
        epochs += len(metrics.epochs)
    return losses, epochs


def _print_round(event: Event) -> None:
    if isinstance(event, RoundDone):
        scored = "" if event.validation_loss is None else f", validation loss before it {event.validation_loss:.6g}"
        loss = "none" if event.train_loss is None else f"{event.train_loss:.6g}"
        print(f"epoch {event.epoch} of {event.epochs}: training loss {loss}{scored}")


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as JSON knows them; anything else as text, for the configuration to refuse."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else repr(value)


def _named(name: str, message: str) -> str:
    """A configuration's error with the estimator's parameters in place of lines and options."""

    def parameter(match: re.Match[str]) -> str:
        key = match[1]
        name = next((name for name, whole in PARAMETERS.items() if f"{key}.".startswith(f"{whole}.")), key)
        return name if name == key else f"{name} ({key})"

    return re.sub(rf"{name}:1: ([a-z0-9_.]+)", parameter, message).replace("--set ", "config: ")


def _instead(key: str) -> str:
    parameter = next((name for name, whole in PARAMETERS.items() if whole == key), None)
    return f"; use the parameter {parameter}" if parameter else ""
