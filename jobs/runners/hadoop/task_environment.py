"""Chooses the Python that runs a job's tasks: the nodes' installed one, or one that is shipped with the job."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from jobs.runners.hadoop.pack import LAUNCHER, cached_environment, code_archive, hash_of
from nnlib.config.schema import Runtime
from nnlib.core.errors import ConfigError, UsageError
from nnlib.core.events import Note
from nnlib.core.machine import BLAS_VARIABLES
from nnlib.core.scratch import scratch_folder
from nnlib.storage import Access, Storage, file_at, has_scheme

ENVIRONMENTS = "environments"
"""Folder of the packed environments in HDFS, by hash; nothing else stays there after a run."""

UNPACKED = "nnjobs-env"
CODE = "nnjobs-code"
"""The names of the unpacked archives in a task's folder."""

COPIED_BYTES = 8 << 20
"""Bytes copied at a time."""

PASSED_ON = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "MKL_CBWR", "NPY_DISABLE_CPU_FEATURES")
"""Variables that hold for the nodes, too, where they are set here: which kernels numpy and BLAS compute with, so that
nodes with unlike processors can compute equal bits."""


@dataclass(frozen=True)
class Environment:
    """How tasks' processes start: ``python`` is the command, ``archives`` are what the distributed cache unpacks
    (``address#name``), ``files`` what it copies as it is, ``variables`` are environment variables."""

    python: tuple[str, ...]
    archives: tuple[str, ...]
    variables: dict[str, str]
    files: tuple[str, ...] = ()


_inherited: Environment | None = None


def inherit(environment: Environment) -> None:
    """Let the jobs of this process start their tasks as it was started itself: a driver that runs in a task has no
    environment that it could pack."""
    global _inherited
    _inherited = environment


def environment(
    runtime: Runtime,
    base: Storage,
    notify: Callable[[Note], None],
    distributions: Sequence[str] = (),
    access: Access | None = None,
) -> Environment:
    """Return the tasks' environment; a packed one is uploaded to HDFS if it is not there yet.

    ``base`` is the folder in HDFS for what nnjobs keeps there; ``distributions`` are packed beside those that every
    task needs; ``access`` is to what tasks reach besides ``base``. Raises `ConfigError` for an archive that does not
    exist.
    """
    if _inherited is not None:
        return _inherited
    settings = runtime.hadoop
    access = base.access() | (access or Access())
    names, files = _needed_files(base, access)
    variables = dict.fromkeys(BLAS_VARIABLES, str(runtime.blas_threads)) | _variables(access) | names
    if settings.python_bin is not None:
        if settings.archive is not None:
            raise ConfigError("python_bin and archive exclude each other", key="runtime.hadoop.archive")
        return Environment(tuple(settings.python_bin.split()), (), variables, files)
    python = (f"{UNPACKED}/{LAUNCHER}",)
    if settings.archive is not None:
        address = _configured_archive(settings.archive, base, notify)
        return Environment(python, (f"{address}#{UNPACKED}",), variables, files)
    packed, packed_hash = cached_environment(notify, (*distributions, *access.distributions))
    code, code_hash = code_archive()
    addresses = _uploaded(base, packed_hash, packed, notify), _uploaded(base, code_hash, code, notify)
    archives = tuple(f"{address}#{name}" for address, name in zip(addresses, (UNPACKED, CODE), strict=True))
    return Environment(python, archives, variables | {"PYTHONPATH": CODE}, files)


def _needed_files(base: Storage, access: Access) -> tuple[dict[str, str], tuple[str, ...]]:
    """Send the files that tasks need to reach storages, such as certificates; return the variables that name their
    copies in a task's folder, and what the distributed cache is to copy."""
    variables, files = {}, []
    for variable, path in access.files.items():
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}", variable=variable) from error
        digest = hashlib.sha256(data).hexdigest()
        address = f"{ENVIRONMENTS}/{digest}.file"
        if not base.exists(address):
            base.create(address, data)
        variables[variable] = f"nnjobs-{digest[:16]}"
        files.append(f"{escaped(f'{base.root}/{address}')}#{variables[variable]}")
    return variables, tuple(files)


def _variables(access: Access) -> dict[str, str]:
    """Return the variables that tasks need, above all to reach storages: containers have no files of the client."""
    kernels = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    # Streaming takes a value's end for what is before its first space; numpy takes its list with commas, too.
    return {name: ",".join(value.split()) for name, value in {**kernels, **access.environment}.items()}


def _configured_archive(archive: str, base: Storage, notify: Callable[[Note], None]) -> str:
    """The address of an archive that the configuration names, here or in HDFS."""
    if has_scheme(archive):
        folder, name = file_at(archive)
        if not folder.exists(name):
            raise ConfigError("there is no such archive", key="runtime.hadoop.archive", file=archive)
        if folder.is_remote and not folder.is_read_by_hadoop:
            with fetched(folder, name) as copy:
                return _uploaded(base, hash_of(copy), copy, notify)
        return escaped(archive)
    path = Path(archive)
    if not path.is_file():
        raise ConfigError("there is no such archive", key="runtime.hadoop.archive", file=archive)
    return _uploaded(base, hash_of(path), path, notify)


@contextlib.contextmanager
def fetched(folder: Storage, name: str) -> Iterator[Path]:
    """Copy a file to this machine; yield its path there, which is gone when the block ends."""
    with scratch_folder() as scratch, folder.open(name) as source:
        with (scratch / name).open("xb") as target:
            shutil.copyfileobj(source, target, COPIED_BYTES)
        yield scratch / name


def _uploaded(base: Storage, digest: str, archive: Path | bytes, notify: Callable[[Note], None]) -> str:
    """The address of an archive in HDFS, where it lies under its hash; it is uploaded as a whole if it is missing."""
    name = f"{ENVIRONMENTS}/{digest}.tar.gz"
    if not base.exists(name):
        if isinstance(archive, Path):
            megabytes = archive.stat().st_size >> 20
            notify(Note(f"sending the packed environment to {base.root} ({megabytes} MB), once"))
            with archive.open("rb") as source:
                base.create_from(name, source)  # never over another driver's: a job fails whose archive gets a new date
        else:
            base.create(name, archive)
    return escaped(f"{base.root}/{name}")


def escaped(address: str) -> str:
    """Return an address as Hadoop's lists of files need it, which have commas between files and ``#`` before names."""
    return quote(address, safe=":/")
