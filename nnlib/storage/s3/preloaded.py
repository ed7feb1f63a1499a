"""Imports what a process needs for S3, and reads the SDK's descriptions of it: for a server that forks processes."""

from __future__ import annotations

from nnlib.storage.s3 import storage
from nnlib.storage.s3.connection import read_descriptions

__all__ = ["storage"]

read_descriptions()
