"""What keys of the section `train` must fit, beyond their own values: the model, the optimizer, the way workers run."""

from __future__ import annotations

from nnlib.config.kinds import MODELS, OPTIMIZERS
from nnlib.config.training import Model, Train


def check_training(model: Model, train: Train, mode: str, gang_fallback: str) -> None:
    """Raise `ValueError` for a key of ``train`` that does not fit ``model``, the optimizer, ``sync.mode`` or
    ``sync.gang_fallback``. What depends on the dataset is checked where that is known."""
    _check_steps(train)
    _check_loss(model, train)
    _check_precision(model, train)
    if train.optimizer_state == "keep" and mode != "collective":
        raise ValueError(
            "train.optimizer_state: keep needs sync.mode: collective: what a worker keeps would be lost with its task"
        )
    if train.optimizer_state == "keep" and gang_fallback == "rounds":
        raise ValueError("train.optimizer_state: keep cannot go on in rounds mode: set sync.gang_fallback: stop")


def _check_steps(train: Train) -> None:
    """Refuse what is about single steps where the optimizer takes none."""
    wanted = {
        "clip_norm": train.clip_norm is not None,
        "micro_batch": train.micro_batch is not None,
        "schedule.by: step": train.schedule.by == "step",
        "optimizer_state: keep": train.optimizer_state == "keep",
    }
    if not OPTIMIZERS.of(train).averages_gradients:
        for key, is_wanted in wanted.items():
            if is_wanted:
                raise ValueError(f"train.{key} is for optimizers that take steps: {train.optimizer} takes none")
    if train.micro_batch is not None and train.micro_batch > train.batch_size:
        raise ValueError(f"train.micro_batch is {train.micro_batch}, but train.batch_size is {train.batch_size}")


def _check_loss(model: Model, train: Train) -> None:
    if train.loss == "huber" and model.output not in ("auto", "linear"):
        raise ValueError(f"train.loss: huber is for numeric targets, not for model.output: {model.output}")
    if train.loss != "huber" and train.huber_delta != 1.0:
        raise ValueError("train.huber_delta needs train.loss: huber")
    if train.label_smoothing and model.output not in ("auto", "softmax"):
        raise ValueError(f"train.label_smoothing is for a softmax, not for model.output: {model.output}")


def _check_precision(model: Model, train: Train) -> None:
    precisions = MODELS.of(model).precisions
    if train.precision not in precisions:
        raise ValueError(
            f"train.precision: {train.precision} is not for model.kind: {model.kind}; it has {', '.join(precisions)}"
        )
    if train.precision != "float32" and model.dtype != "float32":
        raise ValueError(f"train.precision: {train.precision} needs model.dtype: float32, not {model.dtype}")
