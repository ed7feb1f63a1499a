"""The function that every change to any storage calls first."""

from __future__ import annotations

from pathlib import Path


def step(action: str, place: str | Path) -> None:
    """Do nothing: called before every single change (creating, renaming, deleting ...) of a file, by path or address.

    Tests replace it: they count the changes here, and kill the process, or let the storage fail, at any one.
    """
