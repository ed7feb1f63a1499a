"""The one place that every change to any storage passes."""

from __future__ import annotations

from pathlib import Path


def step(action: str, place: str | Path) -> None:
    """Called before every single change (creating, renaming, deleting ...) to a file at a path or address.

    Tests replace it: they count the changes here, and kill the process, or let the storage fail, at any one.
    """
