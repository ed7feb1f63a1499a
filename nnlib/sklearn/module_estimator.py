"""What the estimators of torch modules share: the factory, its arguments, the module."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

from nnlib.config.schema import stored_config
from nnlib.core.arrays import Array
from nnlib.core.layout import ModelState
from nnlib.models import build_model
from nnlib.models.parts import ModelParts
from nnlib.models.protocol import Model
from nnlib.sklearn.base import NNJobsEstimator, with_names
from nnlib.sklearn.fitting import Fitted
from nnlib.training.build_learner import build_learner

if TYPE_CHECKING:
    from torch.nn import Module

PREFIX = "module__"
"""What the parameters begin with that are arguments of the factory."""

MODULE_DOC = """\
factory : str or callable, default='torch-mlp'
        What makes the module, ``factory(**arguments, shape=, outputs=)``: 'torch-mlp', 'simple-nn', 'simple-cnn',
        'resnet-small', 'module:function', or a function or class that stands in a module of its own file. A lambda, a
        function within another and one of a notebook are refused: tasks could not import them.
        Arguments are parameters ``module__NAME``, also for `set_params` and searches.
    files : list of str, default=()
        Python files that 'module:function' and what it imports stand in, unless they are installed.
    shape : tuple of int or None, default=None
        Of a row, such as (28, 28) or (3, 32, 32). None: as ``X`` has it.
    device : str, default='auto'
        'cpu', 'cuda', 'cuda:1' or 'mps'; 'auto' takes a GPU where there is one.
    solver : {'sgd', 'momentum', 'nesterov', 'adam', 'adamw', 'rmsprop'}, default='adam'
        Local optimizer."""

MODULE_ATTRIBUTES_DOC = """\
module_ : torch.nn.Module
        A new module with the fitted numbers, on the CPU and in evaluation mode."""


class ModuleEstimator(NNJobsEstimator):
    """An abstract estimator whose model is a torch module."""

    def __init__(
        self,
        factory: str | Callable[..., Any] = "torch-mlp",
        *,
        files: Sequence[str] = (),
        shape: Sequence[int] | None = None,
        device: str = "auto",
        module_arguments: Mapping[str, Any],
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.factory = factory
        self.files = files
        self.shape = shape
        self.device = device
        for name, value in module_arguments.items():
            setattr(self, name, value)
        self._unknown = tuple(name for name in module_arguments if not name.startswith(PREFIX))  # for fit to refuse

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name, with those of the factory that were set.

        Parameters
        ----------
        deep : bool, default=True
            Without effect: no parameter is an estimator.

        Returns
        -------
        params : dict
            Name to value.
        """
        own = {name: value for name, value in vars(self).items() if name.startswith(PREFIX) or name in self._unknown}
        return {**super().get_params(deep), **own}

    def set_params(self, **params: Any) -> Self:
        """Set parameters, also ``module__NAME``.

        Parameters
        ----------
        **params : dict
            Name to value.

        Returns
        -------
        self : object
            This estimator.
        """
        super().set_params(**{name: value for name, value in params.items() if not name.startswith(PREFIX)})
        for name, value in params.items():
            if name.startswith(PREFIX):
                setattr(self, name, value)
        return self

    @property
    def module_(self) -> Module:
        """A new module with the fitted numbers, on the CPU and in evaluation mode."""
        check_is_fitted(self)
        learner: Any = build_learner(self._fitted_model())
        learner.load(self._state())
        return cast("Module", learner.trained_module())

    def _values(self, epochs: Any, classes: Array | None) -> dict[str, Any]:
        if self._unknown:
            raise ValueError(
                f"{type(self).__name__} has no parameter {self._unknown[0]}; arguments of the factory are {PREFIX}NAME"
            )
        values = super()._values(epochs, classes)
        factory, files = factory_reference(self.factory)
        arguments = {
            name.removeprefix(PREFIX): value for name, value in self.get_params().items() if name.startswith(PREFIX)
        }
        return values | {
            "model.kind": "torch",
            "model.factory": factory,
            "model.files": [*self.files, *(file for file in files if file not in self.files)],
            "model.arguments": arguments,
        }

    def _train(self, X: Any, y: npt.NDArray[Any], *, classes: Array | None, epochs: Any, go_on: bool) -> Self:
        if go_on and self._frozen:  # another run would draw others
            raise ValueError(
                "a module with frozen parameters is trained by one fit: neither warm_start nor partial_fit"
            )
        return super()._train(X, y, classes=classes, epochs=epochs, go_on=go_on)

    def _keep(self, fitted: Fitted) -> None:
        spec = fitted.trained.spec
        self._config = spec.config.model_dump(mode="json")
        self._shape, self._task = spec.dataset.shape, spec.dataset.task
        self._outputs_count = max(len(spec.dataset.classes), 1)
        self._sources, self._frozen = dict(spec.sources), fitted.frozen
        self._vector = np.array(fitted.trained.weights)
        self._buffers = tuple(np.array(buffer) for buffer in fitted.trained.buffers)

    def _fitted_model(self) -> Model:
        arrays: Mapping[str, Array] = self._frozen
        frozen: Callable[[], Mapping[str, Array]] | None = partial(dict, arrays) if arrays else None
        return build_model(
            stored_config(self._config).model,
            shape=tuple(self._shape),
            outputs=self._outputs_count,
            task=self._task,
            parts=ModelParts(self._sources, None, frozen),
        )

    def _state(self) -> ModelState:
        return ModelState(self._vector, self._buffers)

    def _flattened(self, X: Any, *, reset: bool) -> Any:
        own = tuple(X.shape[1:]) if getattr(X, "ndim", 2) > 2 else None
        if reset:
            self._seen = own if self.shape is None else tuple(self.shape)
        elif own is not None and _image(own) != _image(self._seen or ()):
            raise ValueError(f"rows of X have the shape {own}, those of fit had {self._seen or 'one axis'}")
        return with_names(X) if own is None else np.asarray(X).reshape(X.shape[0], math.prod(own))

    def _row_shape(self, features: int) -> tuple[int, ...] | None:
        if self._seen is not None and math.prod(self._seen) != features:
            raise ValueError(f"shape={self._seen} is a row of {math.prod(self._seen)} values, but X has {features}")
        return self._seen


def factory_reference(factory: str | Callable[..., Any]) -> tuple[str, list[str]]:
    """Return the name by which tasks import a factory, and the files that they need for it.

    Raises `ValueError` for one that only this process knows.
    """
    if isinstance(factory, str):
        return factory, []
    module, name = getattr(factory, "__module__", None), getattr(factory, "__qualname__", "<")
    if not isinstance(module, str) or module == "__main__" or "<" in name:
        raise ValueError(
            f"factory {factory!r} cannot be imported by tasks: write a function in a file of its own and pass it, or "
            "'module:function' and files"
        )
    file = inspect.getsourcefile(factory)
    return f"{module}:{name}", [file] if file is not None and "." not in module else []


def _image(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A row's shape, an image of one channel with it."""
    return (1, *shape) if len(shape) == 2 else shape
