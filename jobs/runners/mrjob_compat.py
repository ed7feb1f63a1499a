"""Lets mrjob 0.7.4, its last release, be imported on the Pythons that came after it."""

from __future__ import annotations

import importlib.util
import logging
import shlex
import sys
import types
import warnings

from nnlib.core.errors import JobError


def prepare_mrjob() -> None:
    """Make mrjob importable. `jobs.runners` calls this when it is imported.

    mrjob needs ``pipes`` (gone in Python 3.13), of which it uses only ``quote``, and ``distutils`` (gone in 3.12),
    which setuptools brings back. Raises `JobError` if a module it needs cannot be had.
    """
    # What mrjob logs, our errors say; without a handler Python would print its warnings on the terminal.
    mrjob = logging.getLogger("mrjob")
    if not mrjob.handlers:
        mrjob.addHandler(logging.NullHandler())
    if "pipes" not in sys.modules and importlib.util.find_spec("pipes") is None:
        pipes = types.ModuleType("pipes", "The one function of the former standard module that mrjob uses.")
        pipes.quote = shlex.quote  # type: ignore[attr-defined]
        sys.modules["pipes"] = pipes
    if sys.version_info < (3, 12) and "distutils" not in sys.modules:
        _use_own_distutils()
    if "distutils" not in sys.modules and importlib.util.find_spec("distutils") is None:
        _use_setuptools_distutils()
    if "distutils" not in sys.modules and importlib.util.find_spec("distutils") is None:
        raise JobError(
            f"mrjob needs the module distutils, which Python {sys.version_info[0]}.{sys.version_info[1]} no longer has",
            hint=f"{sys.executable} -m pip install setuptools",
        )


def _use_setuptools_distutils() -> None:
    """Make setuptools' copy importable, as its ``.pth`` file does in a site folder, which a node does not have."""
    try:
        import _distutils_hack
    except ImportError:
        return
    _distutils_hack.add_shim()


def _use_own_distutils() -> None:
    """Import Python's own distutils, not setuptools' copy of it: the copy loads all of setuptools, 0.2 s a process."""
    try:
        import _distutils_hack
    except ImportError:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        _distutils_hack.remove_shim()
        try:
            importlib.import_module("distutils")
        finally:
            _distutils_hack.add_shim()
