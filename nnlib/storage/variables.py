"""Environment variables by which storages are set up."""

from __future__ import annotations

import os

from nnlib.core.errors import UsageError


def choice(variable: str, allowed: tuple[str, ...], default: str = "") -> str:
    """Return the value of a variable, or ``default``. Raises `UsageError` for one that is not ``allowed``."""
    value = os.environ.get(variable) or default
    if value and value not in allowed:
        raise UsageError(f"got {value!r}; allowed: {', '.join(allowed)}", variable=variable)
    return value


def wait_seconds(variable: str, default: float) -> float:
    """Return the seconds that a variable says, or ``default``. Raises `UsageError` where it says none."""
    text = os.environ.get(variable) or str(default)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds <= 1e6:
        raise UsageError(f"got {text!r}, expected seconds", variable=variable)
    return seconds
