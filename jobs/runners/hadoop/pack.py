"""Packs a relocatable environment for the nodes: Python itself, nnjobs and what its tasks import, in one archive.

Nothing is downloaded: the files are those of this environment, as the installed distributions' records list them. The
archive runs from any folder: a launcher sets PYTHONHOME and the search paths to where it lies. Compiled modules are
stored next to sources in the form that Python accepts without comparing the source's date (PEP 552, unchecked), because
an archive has no dates; equal inputs give equal bytes.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib.metadata
import importlib.util
import marshal
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
from _imp import source_hash
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import CodeType
from typing import BinaryIO, cast

import jobs
import nnlib
from nnlib.core.errors import StorageError, UsageError
from nnlib.core.events import Note
from nnlib.core.progress import progressing
from nnlib.storage import file_at
from nnlib.storage.hashed_stream import HashedStream
from nnlib.storage.outputs import refuse_overlap

ROOTS: tuple[str, ...] = (
    *("numpy", "scipy", "pyarrow", "threadpoolctl"),
    *("pydantic", "PyYAML", "mrjob", "safetensors"),
    *("requests", "pyzmq"),
)
"""What tasks import; their own requirements come along."""

PYTHON = f"python{sys.version_info[0]}.{sys.version_info[1]}"
LAUNCHER = "bin/python"
PACKAGES = "lib"
"""Folder of the distributions in the archive."""

NOT_PACKED = re.compile(
    r"(^|/)(tests?|testing/tests|__pycache__|include|idlelib|tkinter|turtledemo|ensurepip|lib2to3|pydoc_data|site-packages"
    r"|config-[^/]*)/|\.(pyc|pyi|pyx|pxd|pxi|a|h|hpp|c|cpp|cc|cu|f|f90|lib|exe)$"
    r"|(^|/)(_test[^/]*|xx[^/]*|_ctypes_test[^/]*|_tkinter[^/]*|turtle\.py)$"
    r"|^pyarrow/(libarrow_flight|_flight|src/|includes/)"  # 35 MB of Arrow that nothing else loads
)
NEEDED = re.compile(r"^scipy/_lib/_test[^/]*\.py$")
"""Files that `NOT_PACKED` matches and that are imported all the same."""

SYSTEM_LIBRARIES = re.compile(r"^(linux-vdso|ld-linux|ld-musl|lib(c|m|pthread|dl|rt|util|resolv|nsl|anl)\.so)")
"""Libraries of the operating system: each node must use those that it has."""

MB = 10**6

LEVEL = 1
"""Of gzip: better ones take three times as long for a tenth less."""

_WITH_PYTHON = f"""#!/bin/sh
# Starts the Python that lies beside this file, wherever that is.
here=$(cd "$(dirname "$0")/.." && pwd -P) || exit 126
PYTHONHOME="$here/python"
PYTHONPATH="$here/{PACKAGES}${{PYTHONPATH:+:$PYTHONPATH}}"
LD_LIBRARY_PATH="$here/python/lib${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
export PYTHONHOME PYTHONPATH LD_LIBRARY_PATH
exec "$here/python/bin/{PYTHON}" -s -P "$@"
"""
_WITHOUT_PYTHON = f"""#!/bin/sh
# Starts this node's own {PYTHON} with the packages that lie beside this file.
here=$(cd "$(dirname "$0")/.." && pwd -P) || exit 126
command -v {PYTHON} >/dev/null || {{
    echo "nnjobs: this node has no {PYTHON}; pack the environment with its Python (leave out --no-python)" >&2
    exit 127
}}
PYTHONPATH="$here/{PACKAGES}${{PYTHONPATH:+:$PYTHONPATH}}"
export PYTHONPATH
exec {PYTHON} -s -P "$@"
"""


@dataclass(frozen=True)
class ArchiveEntry:
    """A file to pack: its name in the archive, and where it is or what it holds."""

    name: str
    source: Path | None = None
    data: bytes = b""
    executable: bool = False

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.data) if self.source is None else self.source.stat().st_size

    def read(self) -> bytes:
        """Return the content of the file."""
        return self.data if self.source is None else self.source.read_bytes()


def environment_entries(distributions: Sequence[str] = (), *, python: bool = True) -> list[ArchiveEntry]:
    """Return all files but nnjobs itself: the launcher, the interpreter (with ``python``), the distributions of `ROOTS`
    and ``distributions``.

    Raises `UsageError` where no environment can be packed.
    """
    if sys.platform != "linux":
        raise UsageError(
            f"an environment for a cluster is packed on Linux, this is {sys.platform}",
            hint="pack on a machine like the nodes, or use --python-bin",
        )
    launcher = ArchiveEntry(LAUNCHER, data=(_WITH_PYTHON if python else _WITHOUT_PYTHON).encode(), executable=True)
    entries = [launcher, *_distributions((*ROOTS, *distributions))]
    return entries + (list(_interpreter()) if python else [])


def code_entries(folder: str = "") -> list[ArchiveEntry]:
    """Return the files of nnjobs itself, the packages ``jobs`` and ``nnlib``, in ``folder`` of the archive."""
    return [
        ArchiveEntry(f"{folder}{package.__name__}/{path.relative_to(root).as_posix()}", path)
        for package in (jobs, nnlib)
        for root in [Path(str(package.__file__)).parent]
        for path in sorted(root.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]


def write_archive(target: BinaryIO, entries: Iterable[ArchiveEntry]) -> None:
    """Write a tar.gz of the entries, with the compiled form of every Python source; equal entries give equal bytes."""
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=LEVEL, fileobj=target, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as archive,
        contextlib.ExitStack() as stack,
    ):
        entries = sorted(entries, key=lambda each: each.name)
        advance = stack.enter_context(progressing("packing", sum(entry.size for entry in entries) // MB, "MB"))
        done = 0
        for entry in entries:
            data = entry.read()
            done += len(data)
            advance(done // MB)
            _add(archive, entry.name, data, entry.executable)
            if entry.name.endswith(".py") and (compiled := _compiled(entry, data)) is not None:
                _add(archive, *compiled, executable=False)


def _add(archive: tarfile.TarFile, name: str, data: bytes, executable: bool) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    member.mode = 0o755 if executable else 0o644
    archive.addfile(member, BytesIO(data))


def _compiled(entry: ArchiveEntry, source: bytes) -> tuple[str, bytes] | None:
    """Name and content of a source's compiled form; None for what is no Python of this version (templates).

    Code that Python has compiled before is reused: compiling all sources anew would take ten seconds. Format 2 of
    marshal has no references between equal objects, which depend on what else the process holds.
    """
    code = _cached_code(entry.source)
    if code is None:
        try:
            code = compile(source, str(entry.source or entry.name), "exec", dont_inherit=True, optimize=0)
        except (SyntaxError, ValueError):
            return None
    folder, _, file = entry.name.rpartition("/")
    name = f"{folder}/__pycache__/{file.removesuffix('.py')}.{sys.implementation.cache_tag}.pyc"
    header = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little")
    checked = source_hash(int.from_bytes(importlib.util.MAGIC_NUMBER[:4], "little"), source)
    return name.lstrip("/"), header + checked + marshal.dumps(code, 2)


def _cached_code(source: Path | None) -> CodeType | None:
    """The code of a source that Python has compiled before, if that is up to date."""
    if source is None:
        return None
    try:
        data = Path(importlib.util.cache_from_source(str(source))).read_bytes()
        facts = source.stat()
    except OSError:
        return None
    expected = (int(facts.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little") + (facts.st_size & 0xFFFFFFFF).to_bytes(
        4, "little"
    )
    if data[:8] != importlib.util.MAGIC_NUMBER + bytes(4) or data[8:16] != expected:
        return None
    code = marshal.loads(data[16:])
    return code if isinstance(code, CodeType) else None


def _distributions(roots: Sequence[str]) -> Iterator[ArchiveEntry]:
    """The files of the distributions and of all they require."""
    for distribution in installed(roots):
        for file in distribution.files or ():
            name = file.as_posix()
            path = Path(str(distribution.locate_file(file)))
            if not name.startswith("..") and (NEEDED.search(name) or not NOT_PACKED.search(name)) and path.is_file():
                yield ArchiveEntry(f"{PACKAGES}/{name}", path)


def installed(roots: Sequence[str]) -> list[importlib.metadata.Distribution]:
    """Return the distributions with these names, and those they require on this machine, each once, without extras.

    A requirement that is not installed is one for another platform or Python: what is installed works together.
    """
    wanted = list(roots) + (["setuptools"] if sys.version_info >= (3, 12) else [])  # mrjob needs its distutils
    distributions: dict[str, importlib.metadata.Distribution] = {}
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if name in distributions:
            continue
        try:
            distributions[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            if name in (re.sub(r"[-_.]+", "-", root).lower() for root in roots):
                raise UsageError(f"{name} is not installed here, so it cannot be packed") from None
            continue
        for requirement in distributions[name].requires or ():
            text, _, marker = requirement.partition(";")
            matched = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", text)
            if matched and "extra" not in marker:
                wanted.append(matched[1])
    return [distributions[name] for name in sorted(distributions)]


def _interpreter() -> Iterator[ArchiveEntry]:
    """Python itself: program, standard library, shared libraries that are not every system's own."""
    program = Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix}))
    yield ArchiveEntry(f"python/bin/{PYTHON}", program, executable=True)
    binaries = [program]
    for path in sorted(library.rglob("*")):
        name = path.relative_to(library).as_posix()
        if path.is_file() and not NOT_PACKED.search(name):
            yield ArchiveEntry(f"python/lib/{PYTHON}/{name}", path)
            if path.name.endswith(".so"):
                binaries.append(path)
    for name, path in sorted(_shared_libraries(binaries).items()):
        yield ArchiveEntry(f"python/lib/{name}", path)


def _shared_libraries(binaries: Sequence[Path]) -> dict[str, Path]:
    """The shared libraries that programs load, by name: libpython, OpenSSL, libffi ..., as the linker finds them."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        listing = subprocess.run(
            ["ldd", *map(str, binaries)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            check=False,
        ).stdout
    except OSError as error:
        raise UsageError("ldd, which finds Python's shared libraries, is not there", hint="--no-python") from error
    libraries = re.findall(r"^\s*(\S+) => (/\S+)", listing, re.MULTILINE)
    return {name: Path(path) for name, path in libraries if not SYSTEM_LIBRARIES.match(name)}


@dataclass(frozen=True)
class PackedArchive:
    """An archive that was written: its address, its bytes and their SHA-256."""

    address: str
    bytes: int
    sha256: str


def pack(target: str, *, distributions: Sequence[str] = (), python: bool = True) -> PackedArchive:
    """Write the whole environment, nnjobs included, into one archive at the address ``target``.

    An older archive is replaced as a whole. Raises `UsageError` where the archive would replace a part of the
    environment, and `StorageError` if it cannot be written.
    """
    entries = environment_entries(distributions, python=python) + code_entries(f"{PACKAGES}/")
    folder, name = file_at(target)
    if folder.exists(name):
        refuse_overlap(target, [str(entry.source) for entry in entries if entry.source is not None])
    return _write(target, entries)


def _write(target: str, entries: Iterable[ArchiveEntry]) -> PackedArchive:
    folder, name = file_at(target)
    try:
        with folder.writing(name) as stream:
            hashed = HashedStream(stream)
            write_archive(cast(BinaryIO, hashed), entries)
    except OSError as error:
        raise StorageError(f"cannot write the archive: {error.strerror or error}", file=target) from error
    return PackedArchive(f"{folder.root}/{name}", hashed.bytes, hashed.digest.hexdigest())


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cached_environment(notify: Callable[[Note], None], distributions: Sequence[str] = ()) -> tuple[Path, str]:
    """Return the archive of everything but nnjobs itself, and its SHA-256; it is packed only when the installed
    packages change. ``distributions`` are packed beside those that every task needs. ``notify`` gets a note where that
    takes seconds."""
    key = _installation((*ROOTS, *distributions))
    folder = cache_folder()
    for path in sorted(folder.glob(f"{key}-*.tar.gz")):
        return path, path.name.removesuffix(".tar.gz").partition("-")[2]
    entries = environment_entries(distributions)
    size = sum(entry.size for entry in entries)
    named = f" with {', '.join(distributions)}" if distributions else ""
    notify(Note(f"packing the tasks' environment{named} ({size / 1e6:,.0f} MB before compression), once"))
    temporary = folder / f"{key}.tar.gz"
    digest = _write(str(temporary), entries).sha256
    path = temporary.replace(folder / f"{key}-{digest}.tar.gz")
    _forget_old(folder)
    return path, digest


def code_archive() -> tuple[bytes, str]:
    """Return nnjobs itself as an archive (small, and changed more often than what it imports), and its SHA-256."""
    buffer = BytesIO()
    write_archive(buffer, code_entries())
    return buffer.getvalue(), hashlib.sha256(buffer.getvalue()).hexdigest()


def _installation(roots: Sequence[str]) -> str:
    """A hash of the state of the installed packages: every (re)installation writes a new record."""
    facts = [sys.version, sys.base_prefix, str(_date(Path(str(importlib.util.__file__)))), str(_date(Path(__file__)))]
    for distribution in installed(roots):
        record = next((file for file in distribution.files or () if file.name == "RECORD"), None)
        date = "" if record is None else _date(Path(str(distribution.locate_file(record))))
        facts.append(f"{distribution.metadata['Name']} {distribution.version} {date}")
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _date(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def cache_folder() -> Path:
    """Return the folder of packed environments on this machine."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home, "nnjobs", "environments")


KEPT = 3
"""How many packed environments stay on this machine: a few installations may take turns."""


def _forget_old(folder: Path) -> None:
    archives = sorted(folder.glob("*-*.tar.gz"), key=_date, reverse=True)
    for path in archives[KEPT:]:
        path.unlink(missing_ok=True)
