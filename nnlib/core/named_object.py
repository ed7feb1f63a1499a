"""Tables name code as text, ``module:name``, so that nothing is imported before it is used."""

from __future__ import annotations

import importlib
from typing import Any


def load_named(reference: str) -> Any:
    """Import the module of ``module:name`` and return what it calls by that name."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)
