"""Where an HDFS is and how to ask it, from the address, Hadoop's own files and the environment.

``core-site.xml`` and ``hdfs-site.xml`` are read in ``HADOOP_CONF_DIR`` (or ``HADOOP_HOME/etc/hadoop``). These
environment variables add what they cannot say; they are about the machine, not about an experiment, so no
configuration has them:

``NNJOBS_HDFS_CLIENT``  webhdfs, native (libhdfs) or cli (``hadoop fs``); default auto
``NNJOBS_HDFS_HTTP``    WebHDFS or HttpFS addresses, ``http://host:port``, in place of those in hdfs-site.xml
``NNJOBS_HDFS_AUTH``    simple or kerberos; default: hadoop.security.authentication of core-site.xml
``NNJOBS_HDFS_CA``      file of the certificates to trust for https, also YARN's
``NNJOBS_HDFS_WAIT``    seconds to wait for a NameNode or DataNode that is away; default 120
"""

from __future__ import annotations

import getpass
import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

from nnlib.core.errors import UsageError
from nnlib.storage.base import Access
from nnlib.storage.variables import choice, wait_seconds

CLIENTS = ("auto", "webhdfs", "native", "cli")
HDFS_SCHEMES = ("hdfs", "webhdfs", "swebhdfs")
HTTP_PORTS = {"http": 9870, "https": 9871}
WAIT_SECONDS = 120.0
PASSED_ON = ("NNJOBS_HDFS_CLIENT", "NNJOBS_HDFS_AUTH", "NNJOBS_HDFS_WAIT")
"""Variables that hold for tasks, too, where they are set here."""


@dataclass(frozen=True)
class HdfsAddress:
    """A file system and how to reach it.

    ``authority`` is host:port or a nameservice; ``urls`` are the WebHDFS addresses of its NameNodes (several where one
    replaces another that fails). ``user`` is "" with Kerberos: there the ticket, or a task's token, says who we are.
    """

    scheme: str
    authority: str
    urls: tuple[str, ...]
    user: str
    kerberos: bool
    certificates: str | None
    client: str
    wait_seconds: float

    def access(self) -> Access:
        """Return what leads a task to this HDFS: a container has none of Hadoop's files, nor those of the client."""
        variables = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        who = {"NNJOBS_HDFS_AUTH": "kerberos"} if self.kerberos else {"HADOOP_USER_NAME": self.user}
        is_secure = any(url.startswith("https:") for url in self.urls)
        files = {"NNJOBS_HDFS_CA": self.certificates} if is_secure and self.certificates else {}
        return Access({**variables, **who, "NNJOBS_HDFS_HTTP": ",".join(self.urls)}, files)


def locate(address: str) -> tuple[HdfsAddress, str]:
    """Split an address into its file system and the absolute path there. Raises `UsageError` if it cannot be used."""
    scheme, _, rest = address.partition("://")
    authority, _, path = rest.partition("/")
    path = posixpath.normpath(f"/{path.lstrip('/')}")
    if ".." in rest.split("/"):
        raise UsageError("an address must not go upward (..)", address=address)
    settings = properties()
    if scheme == "hdfs":
        if not authority:
            authority = _default_authority(settings, address)
        urls = _urls(authority, settings)
    else:
        if not authority:
            raise UsageError(f"names no host: write {scheme}://HOST:PORT/...", address=address)
        protocol = "https" if scheme == "swebhdfs" else "http"
        urls = (f"{protocol}://{_with_port(authority, HTTP_PORTS[protocol])}",)
    kerberos = wants_kerberos()
    return (
        HdfsAddress(
            scheme,
            authority,
            urls,
            "" if kerberos else os.environ.get("HADOOP_USER_NAME") or getpass.getuser(),
            kerberos,
            certificates(),
            choice("NNJOBS_HDFS_CLIENT", CLIENTS, "auto"),
            wait_seconds("NNJOBS_HDFS_WAIT", WAIT_SECONDS),
        ),
        path,
    )


def wants_kerberos() -> bool:
    """Return whether the cluster wants Kerberos, by its configuration or ``NNJOBS_HDFS_AUTH``."""
    default = properties().get("hadoop.security.authentication", "simple").lower()
    return choice("NNJOBS_HDFS_AUTH", ("simple", "kerberos"), default) == "kerberos"


def certificates() -> str | None:
    """Return the file of the certificates that are trusted for https; None for those of the system."""
    return os.environ.get("NNJOBS_HDFS_CA") or os.environ.get("REQUESTS_CA_BUNDLE")


def hosts(address: str) -> list[str]:
    """Return the host names of the NameNodes of an address in HDFS; [] for any other address."""
    if address.partition("://")[0] not in HDFS_SCHEMES:
        return []
    hdfs, _ = locate(address)
    return [host for url in hdfs.urls if (host := urlsplit(url).hostname)]


def has_namenode_pair() -> bool:
    """Return whether hdfs-site.xml names NameNodes that take over from each other."""
    return any(name.startswith("dfs.ha.namenodes.") for name in properties())


def other_servers(addresses: Iterable[str]) -> list[str]:
    """Return the file systems in HDFS, but for the default one, that addresses lie in: with Kerberos Hadoop's client
    has to be asked for tokens of them (``mapreduce.job.hdfs-servers``)."""
    default = properties().get("fs.defaultFS", "").rstrip("/")
    found = set()
    for address in addresses:
        if address.partition("://")[0] in HDFS_SCHEMES:
            hdfs, _ = locate(address)
            found.add(f"{hdfs.scheme}://{hdfs.authority}")
    return sorted(found - {default})


def properties() -> Mapping[str, str]:
    """Return the properties in Hadoop's configuration files; {} where there are none."""
    folder = os.environ.get("HADOOP_CONF_DIR")
    if not folder and os.environ.get("HADOOP_HOME"):
        folder = os.path.join(os.environ["HADOOP_HOME"], "etc", "hadoop")  # noqa: PTH118
    if not folder:
        return {}
    files = tuple(Path(folder, f"{name}-site.xml") for name in ("core", "hdfs", "yarn", "mapred"))
    return _parsed(tuple((path, path.stat().st_mtime_ns) for path in files if path.is_file()))


@lru_cache(maxsize=8)
def _parsed(files: tuple[tuple[Path, int], ...]) -> Mapping[str, str]:
    settings: dict[str, str] = {}
    for path, _ in files:
        try:
            for entry in ElementTree.parse(path).iter("property"):
                settings[(entry.findtext("name") or "").strip()] = (entry.findtext("value") or "").strip()
        except (ElementTree.ParseError, OSError) as error:
            raise UsageError(f"not a readable Hadoop configuration: {error}", file=str(path)) from None
    return {key: _expanded(value, settings) for key, value in settings.items()}


def _expanded(value: str, settings: Mapping[str, str]) -> str:
    """A value with its ``${other.key}`` and ``${env.NAME}`` filled in, as Hadoop does."""

    def fill(match: re.Match[str]) -> str:
        key = match[1]
        known = os.environ.get(key.removeprefix("env.")) if key.startswith("env.") else settings.get(key)
        return match[0] if known is None else known

    for _ in range(20):
        filled = re.sub(r"\$\{([^${}]+)\}", fill, value)
        if filled == value:
            break
        value = filled
    return value


def _default_authority(settings: Mapping[str, str], address: str) -> str:
    default = settings.get("fs.defaultFS") or settings.get("fs.default.name") or ""
    if not default.startswith("hdfs://"):
        raise UsageError(
            "names no NameNode, and no core-site.xml with fs.defaultFS was found",
            hint="write hdfs://HOST:PORT/..., or set HADOOP_CONF_DIR",
            address=address,
        )
    return default.removeprefix("hdfs://").partition("/")[0]


def _urls(authority: str, settings: Mapping[str, str]) -> tuple[str, ...]:
    """The WebHDFS addresses of a NameNode's ``host:port``, or of all NameNodes of a nameservice."""
    stated = os.environ.get("NNJOBS_HDFS_HTTP")
    if stated:
        urls = tuple(url.strip().rstrip("/").removesuffix("/webhdfs/v1") for url in stated.split(","))
        for url in urls:
            if not re.fullmatch(r"https?://[^/?#@\s]+", url):
                raise UsageError("not an address like http://HOST:PORT", variable="NNJOBS_HDFS_HTTP")
        return urls
    protocol = "https" if settings.get("dfs.http.policy") == "HTTPS_ONLY" else "http"
    key = f"dfs.namenode.{protocol}-address"
    host = authority.rpartition(":")[0] if re.search(r":\d+$", authority) else authority
    nodes = settings.get(f"dfs.ha.namenodes.{authority}")
    if nodes:
        named = [settings.get(f"{key}.{authority}.{node.strip()}") for node in nodes.split(",")]
        urls = tuple(f"{protocol}://{address}" for address in named if address)
        if not urls:
            raise UsageError(f"hdfs-site.xml has no {key} of its NameNodes", nameservice=authority)
        return urls
    address = settings.get(f"{key}.{authority}")
    if address is None and _is_configured(authority, settings):
        address = settings.get(key)
    if address is None:
        return (f"{protocol}://{host}:{HTTP_PORTS[protocol]}",)
    if address.startswith("0.0.0.0"):  # where it listens, not where it is
        address = host + address.removeprefix("0.0.0.0")
    return (f"{protocol}://{_with_port(address, HTTP_PORTS[protocol])}",)


def _is_configured(authority: str, settings: Mapping[str, str]) -> bool:
    """Whether hdfs-site.xml is about this NameNode, not about another cluster's."""
    default = settings.get("fs.defaultFS", "").removeprefix("hdfs://").partition("/")[0]
    return authority in (default, settings.get("dfs.namenode.rpc-address"))


def _with_port(authority: str, port: int) -> str:
    return authority if re.search(r":\d+$", authority) else f"{authority}:{port}"
