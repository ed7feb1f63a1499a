"""Imports a user's files under private names, so that two runs with different files of one name can live in a process.

The files of a run are the modules of a package that is named by their hash. Inside them ``import blocks`` means the
file ``blocks.py``, if there is one, else what it means everywhere. Nothing is put on Python's path.
"""

from __future__ import annotations

import importlib
import linecache
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib.abc import InspectLoader
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from types import CodeType, ModuleType
from typing import Any

from nnlib.config.code_files import SUFFIX, hash_of
from nnlib.core.errors import ConfigError

_lock = threading.RLock()
_packages: dict[str, _Package] = {}


def import_file(sources: Mapping[str, str], module: str) -> ModuleType:
    """Import the file ``module``.py of ``sources`` (texts by file name), and what it imports of the others, once.

    Raises `ConfigError` where a file cannot be imported: the line that raised, or the package that is missing.
    """
    hashes = "".join(f"{name} {hash_of(text.encode())}\n" for name, text in sorted(sources.items()))
    key = f"_nnjobs_{hash_of(hashes.encode())[:16]}"
    with _lock:
        if key not in _packages:
            _packages[key] = _Package(key, sources)
        return _packages[key].load(module)


class _Package:
    """The files of one run as a package of a private name."""

    def __init__(self, key: str, sources: Mapping[str, str]) -> None:
        self._sources = {name.removesuffix(SUFFIX): text for name, text in sources.items()}
        self._package = ModuleType(key)
        self._package.__path__ = []
        self._builtins = {**vars(sys.modules["builtins"]), "__import__": self._import}
        sys.modules[key] = self._package

    def load(self, name: str) -> ModuleType:
        """Return the module of a file, imported at the first call."""
        full = f"{self._package.__name__}.{name}"
        if full in sys.modules:
            return sys.modules[full]
        loader = _TextLoader(self._sources[name], f"{self._package.__name__}/{name}{SUFFIX}")
        module = module_from_spec(ModuleSpec(full, loader, origin=loader.file))
        module.__file__ = loader.file
        module.__dict__["__builtins__"] = self._builtins
        sys.modules[full] = module
        try:
            loader.exec_module(module)
        except BaseException as error:
            del sys.modules[full]
            if isinstance(error, Exception | SystemExit):
                raise _explained(error, loader.file) from error
            raise
        setattr(self._package, name, module)
        return module

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """What the statement ``import`` calls in these files."""
        first, _, rest = name.partition(".")
        if level == 0 and first in self._sources:
            if rest:
                raise ModuleNotFoundError(f"No module named {name!r}; {first!r} is a file", name=name)
            with _lock:
                return self.load(first)
        for wanted in [first] if first else fromlist or ():
            if level == 1 and wanted in self._sources:
                with _lock:
                    self.load(wanted)
        return importlib.__import__(name, globals, locals, fromlist or (), level)


class _TextLoader(InspectLoader):
    """Loads one module from its text; tracebacks and `inspect` find its lines."""

    def __init__(self, text: str, file: str) -> None:
        self._text, self.file = text, file

    def get_source(self, fullname: str) -> str:
        """Return the text of the module."""
        return self._text

    def get_code(self, fullname: str) -> CodeType:
        """Compile the module, under a file name that no other run's file has."""
        linecache.cache[self.file] = (len(self._text), None, self._text.splitlines(keepends=True), self.file)
        return self.source_to_code(self._text.encode(), self.file)


def line_of(error: BaseException) -> str:
    """Return where an error was raised, such as " (nets.py:7)": the last line of a user's file, else the last line."""
    trace, places = error.__traceback__, []
    while trace is not None:
        places.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    own = [(file.partition("/")[2], line) for file, line in places if file.partition("/")[0] in _packages]
    return "" if not places else " ({}:{})".format(*(own or places)[-1])


def _explained(error: BaseException, file: str) -> ConfigError:
    """The error of a file that cannot be imported."""
    if isinstance(error, ConfigError):  # of a file that this one imports
        return error
    file = file.rpartition("/")[2]
    if isinstance(error, ModuleNotFoundError):
        return ConfigError(
            f"imports {error.name or error}, which is neither among model.files nor installed here{line_of(error)}",
            hint="add its file to model.files, or install the package (on a cluster in the tasks' environment)",
            key="model.files",
            file=file,
        )
    text = " ".join(str(error).split())[:300]
    return ConfigError(
        f"raised {type(error).__name__} when it was imported: {text}{line_of(error)}", key="model.files", file=file
    )
