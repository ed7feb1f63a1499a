"""Which code of models may run on this machine: that which the user has trained with here, or has said to trust.

A run brings its code along, and somebody else's run brings somebody else's. So code that a run brings is imported only
if its hash is in the user's own list: a folder with a file for each, made by conditional create, so that
any number of processes may add to it. The list is asked where code is about to be imported, never in tasks: the driver
that starts them has asked.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnlib.config.code_files import SUFFIX, code_names, factory_module, hash_of, model_sections, names_code
from nnlib.config.options import TorchOptions
from nnlib.config.schema import Config
from nnlib.core.errors import UsageError
from nnlib.core.notes import note

_trusting: ContextVar[bool] = ContextVar("trusting", default=False)
_here: set[str] = set()
"""Digests that this process trusts, whether or not they could be written down."""


@dataclass(frozen=True)
class Code:
    """What a model section runs: a factory, and the SHA-256 of its files (or of the source of its installed module).

    ``arguments`` belong to it where the factory is an installed package's: such a function was not written to be called
    with anything that a run may say.
    """

    factory: str
    sha256: tuple[tuple[str, str], ...]
    arguments: str | None = None

    @classmethod
    def of(cls, options: TorchOptions) -> Code | None:
        """Return the code of a section; None where the factory comes with nnjobs."""
        if not names_code(options.factory):
            return None
        module, hashes = factory_module(options.factory), options.sha256
        files = tuple((name, hashes[name]) for name in code_names(hashes))
        if f"{module}{SUFFIX}" in hashes:
            return cls(options.factory, files)
        arguments = json.dumps(options.arguments, sort_keys=True)
        return cls(options.factory, (*files, (module, hashes.get(module, ""))), arguments)

    @property
    def digest(self) -> str:
        """The hash that is trusted or not, 64 hex digits."""
        return hash_of(json.dumps(self.to_json(), sort_keys=True).encode())

    def to_json(self) -> dict[str, Any]:
        """Return what is hashed, as JSON-able data."""
        arguments = {} if self.arguments is None else {"arguments": json.loads(self.arguments)}
        return {"factory": self.factory, "sha256": dict(self.sha256), **arguments}


def codes_of(config: Config) -> list[Code]:
    """Return the code of each model of a configuration, each once."""
    codes = [Code.of(section) for section in model_sections(config)]
    return list(dict.fromkeys(code for code in codes if code is not None))


def trust_code_of(config: Config) -> None:
    """Trust the code of a configuration on this machine from now on. Where that cannot be written down, a note says so,
    and this process alone trusts it."""
    for code in codes_of(config):
        if not is_trusted(code):
            _here.add(code.digest)
            _write(code)


def require_trusted(options: TorchOptions, origin: str) -> None:
    """Raise `UsageError` if the code of a section is not trusted here; ``origin`` is the address of what brings it."""
    code = Code.of(options)
    if code is None or is_trusted(code):
        return
    if _trusting.get():
        _here.add(code.digest)
        _write(code)
        return
    names = ", ".join(name for name, _ in code.sha256)
    raise UsageError(
        f"brings code that this machine does not trust yet: {names}, hash {code.digest[:16]}",
        hint="read it (it is in the run's folder code/, or installed), then add --trust-code, in Python "
        "trust_code=True: it runs with your rights",
        run=origin,
    )


def is_trusted(code: Code) -> bool:
    """Return whether the user has trusted this code on this machine."""
    return code.digest in _here or _is_own(trust_folder() / code.digest)


@contextmanager
def trusting_code(trusts: bool = True) -> Iterator[None]:
    """Trust, and write down, what code the block asks for; nothing changes where ``trusts`` is false."""
    token = _trusting.set(trusts or _trusting.get())
    try:
        yield
    finally:
        _trusting.reset(token)


def trust_folder() -> Path:
    """Return the folder of the list: ``$XDG_STATE_HOME/nnjobs/trusted-code``, by default in ``~/.local/state``."""
    base = os.environ.get("XDG_STATE_HOME")
    state = base or os.path.expanduser("~/.local/state")  # noqa: PTH111  (pathlib's fails where there is no home)
    return Path(state) / "nnjobs" / "trusted-code"


def _is_own(path: Path) -> bool:
    """Whether a file is there, and only this user can have made it."""
    try:
        found = [path.lstat(), path.parent.stat()]
    except OSError:
        return False
    own = all(each.st_uid == os.getuid() and not each.st_mode & 0o022 for each in found)
    return own and stat.S_ISREG(found[0].st_mode)


def _write(code: Code) -> None:
    folder = trust_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(folder / code.digest, flags, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(json.dumps(code.to_json()).encode() + b"\n")
    except FileExistsError:
        if not _is_own(folder / code.digest):
            note(f"{folder} can be written by others: only this command trusts {code.factory}")
    except OSError as error:
        note(
            f"cannot write down in {folder} that {code.factory} is trusted ({error}): later commands on its runs will "
            "need --trust-code"
        )
