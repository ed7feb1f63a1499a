"""Build the learner of a torch model: on the CPU, or on the device that is dealt to its worker."""

from __future__ import annotations

from typing import cast

from nnlib.config.runners import runner_named
from nnlib.core.errors import ConfigError
from nnlib.models.protocol import Model
from nnlib.optim import build_optimizer
from nnlib.torch.device_learner import DeviceLearner
from nnlib.torch.devices import deal_device
from nnlib.torch.learner import TorchLearner, TrainingTorchLearner
from nnlib.torch.model import TorchModel
from nnlib.training.learner import TrainingSetup
from nnlib.training.optimizer_steps import OptimizerSteps


def build(model: Model, setup: TrainingSetup | None) -> TorchLearner:
    """Build the learner of a torch model; without ``setup`` one that only scores, on the CPU.

    Raises `ConfigError` for an optimizer that does not train torch models, `JobError` for a device that is not there.
    """
    model = cast(TorchModel, model)
    if setup is None:
        return TorchLearner(model)
    optimizer = build_optimizer(setup.config.train, model.layout)
    if optimizer.minimizes:
        raise ConfigError(
            f"{setup.config.train.optimizer} does not train torch models", key="train.optimizer", hint="adam, say"
        )
    runtime = setup.config.runtime
    one_for_all = runner_named(runtime.runner).in_one_process
    device = deal_device(runtime.device, setup.worker, one_for_all=one_for_all)
    if device is None:
        return TrainingTorchLearner(model, setup, OptimizerSteps(setup, optimizer))
    return DeviceLearner(model, setup, optimizer, device)
