"""What an exported file of a torch module holds: the module's ``state_dict``, and in words how to compute with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from nnlib.config.options import TorchOptions
from nnlib.config.section import options_of
from nnlib.core.arrays import Array
from nnlib.core.errors import UsageError
from nnlib.export.exported_model import ExportedModel, surroundings
from nnlib.inference.trained_model import TrainedModel
from nnlib.torch.model import TorchModel

NUMPY_FLOATS = ("float16", "float32", "float64")


@dataclass(frozen=True, kw_only=True)
class TorchNetwork(ExportedModel):
    """A torch module with its numbers.

    ``module`` is the `torch.nn.Module`; ``shape`` is that of a row as it gets it. ``arrays`` are those of the module's
    ``state_dict``, frozen parameters and buffers included; tied ones once, under their first name, and ``tied`` maps
    their other names to it.
    ``hashes``: SHA-256 of the factory's files by name. ``counts``: how many numbers are trained, frozen, in buffers.
    """

    module: Any
    factory: str
    arguments: Mapping[str, Any]
    hashes: Mapping[str, str]
    shape: tuple[int, ...]
    outputs: int
    arrays: Mapping[str, Array]
    tied: Mapping[str, str]
    counts: Mapping[str, int]

    @classmethod
    def of(cls, model: TrainedModel) -> TorchNetwork:
        """The exported form of a trained torch module. Raises `UsageError` for arrays of types that numpy lacks."""
        module, shape = model.module, cast(TorchModel, model.spec.model(model.trial))
        options = options_of(model.spec.settings(model.trial).model, TorchOptions)
        arrays: dict[str, Array] = {}
        names: dict[int, str] = {}
        tied: dict[str, str] = {}
        for name, tensor in module.state_dict(keep_vars=True).items():
            if id(tensor) in names:
                tied[name] = names[id(tensor)]
                continue
            kind = str(tensor.dtype).removeprefix("torch.")
            if tensor.is_floating_point() and kind not in NUMPY_FLOATS:
                raise UsageError(f"the module's {name} is {kind}, which these files cannot hold", hint="--format onnx")
            names[id(tensor)] = name
            arrays[name] = tensor.detach().cpu().numpy()
        parameters = list(module.parameters())
        trained = sum(tensor.numel() for tensor in parameters if tensor.requires_grad)
        frozen = sum(tensor.numel() for tensor in parameters) - trained
        return cls(
            module=module,
            factory=options.factory,
            arguments=dict(options.arguments),
            hashes=dict(options.sha256),
            shape=shape.shape,
            outputs=shape.outputs,
            arrays=arrays,
            tied=tied,
            counts={
                "trained": trained,
                "frozen": frozen,
                "buffers": sum(array.size for array in arrays.values()) - trained - frozen,
            },
            **surroundings(model, shape.loss),
        )

    @property
    def features(self) -> int:
        """See `ExportedModel.features`."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the trained parameters."""
        return np.dtype(next(str(each.dtype) for each in self.module.parameters() if each.requires_grad)[6:])

    @property
    def computation(self) -> str:
        """See `ExportedModel.computation`."""
        steps = [*self.scaling_steps, f"x with the shape (rows, {', '.join(map(str, self.shape))})"]
        return "; ".join([*steps, f"the module in evaluation mode, then {self.answer}"])

    def description(self) -> dict[str, Any]:
        """See `ExportedModel.description`. ``scaling`` has the numbers of the feature scaling: the file's arrays are
        the module's alone."""
        scaling = None
        if self.scaling is not None:
            scaling = {"shift": self.scaling[0].tolist(), "factor": self.scaling[1].tolist()}
        return self.description_of(
            factory=self.factory,
            arguments=dict(self.arguments),
            sha256=dict(self.hashes),
            shape=list(self.shape),
            outputs=self.outputs,
            counts=dict(self.counts),
            tied=dict(self.tied),
            scaling=scaling,
        )
