"""What a factory says of the hidden layers of its modules: which of its arguments are their widths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Factory = TypeVar("Factory", bound=Callable[..., Any])

ATTRIBUTE = "hidden_widths"


def hidden_widths(*arguments: str) -> Callable[[Factory], Factory]:
    """Say of a factory that its modules can be cut into sub-nets: ``@hidden_widths("channels", "hidden")``.

    ``arguments`` are the names of its arguments that are widths of hidden layers (a number, or a list of them), from
    the inputs to the outputs: units, or channels of a convolution. The module's parameters must come layer by layer,
    and each layer must feed the next one alone.
    """

    def mark(factory: Factory) -> Factory:
        setattr(factory, ATTRIBUTE, arguments)
        return factory

    return mark
