"""What keys of the section `train` must fit, beyond their own values: the model, the optimizer, the way workers run."""

from __future__ import annotations

from nnlib.config.devices import AUTO, CPU
from nnlib.config.kinds import MODELS, OPTIMIZERS
from nnlib.config.runtime import Runtime
from nnlib.config.training import Model, Train
from nnlib.core.partition import Partition


def check_training(model: Model, train: Train, mode: str, gang_fallback: str) -> None:
    """Raise `ValueError` for a key of ``train`` that does not fit ``model``, the optimizer, ``sync.mode`` or
    ``sync.gang_fallback``. What depends on the dataset is checked where that is known."""
    _check_steps(train)
    _check_loss(model, train)
    _check_precision(model, train)
    if (kinds := OPTIMIZERS.of(train).model_kinds) and model.kind not in kinds:
        raise ValueError(f"train.optimizer: {train.optimizer} trains models of the kind {', '.join(kinds)} alone")
    if train.optimizer_state == "keep" and mode != "collective":
        raise ValueError(
            "train.optimizer_state: keep needs sync.mode: collective: what a worker keeps would be lost with its task"
        )
    if train.optimizer_state == "keep" and gang_fallback == "rounds":
        raise ValueError("train.optimizer_state: keep cannot go on in rounds mode: set sync.gang_fallback: stop")


def check_subnets(train: Train, mode: str, workers: int) -> None:
    """Raise `ValueError` for sub-nets that do not fit ``train``, ``sync.mode`` or the number of workers. Whether a
    partition fits the model is checked where that is built."""
    subnets = train.subnets
    if subnets is None or subnets.partition is None:
        return
    if mode != "rounds":
        raise ValueError("train.subnets needs sync.mode: rounds: reducers average what sub-nets have in common")
    if train.optimizer_state != "reset":
        raise ValueError("train.subnets needs train.optimizer_state: reset: sub-nets have no optimizer in common")
    if train.epochs_per_round == "auto":
        raise ValueError("train.subnets needs a number of train.epochs_per_round: auto chooses by the workers' drift")
    if subnets.between == "zero" and subnets.alternate != "none":
        raise ValueError("train.subnets.between: zero needs train.subnets.alternate: none: else sub-nets train them")
    at_once = Partition.parse(subnets.partition).subnets_at_once(subnets.alternate)
    if workers < at_once:
        raise ValueError(
            f"workers is {workers}, but {at_once} sub-nets train at once (train.subnets.alternate: "
            f"{subnets.alternate}): each needs a worker"
        )


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


def check_device(model: Model, runtime: Runtime) -> None:
    """Raise `ValueError` for a device that cannot compute ``model``, and for GPUs of containers that nothing uses."""
    if runtime.device not in (AUTO, CPU) and not MODELS.of(model).uses_devices:
        raise ValueError(f"runtime.device: {runtime.device} is not for model.kind: {model.kind}: the CPU computes it")
    if runtime.hadoop.gpus and (runtime.device == CPU or not MODELS.of(model).uses_devices):
        raise ValueError(
            f"runtime.hadoop.gpus is {runtime.hadoop.gpus}, but the CPU computes the model: set it to 0, or "
            "runtime.device to cuda"
        )
    if runtime.hadoop.gpus and runtime.hadoop.uber == "on":
        raise ValueError("runtime.hadoop.uber: on runs tasks in the master's container, which has no GPU: use auto")
