"""WebHDFS against a NameNode that misbehaves: standby, safe mode, lost replies, broken bodies, refused connections."""

from __future__ import annotations

import json
import socket
import threading
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from nnlib.core.errors import StorageError, UsageError
from nnlib.storage import Storage, storage
from nnlib.storage.hdfs.avoided_datanodes import AVOIDED_SECONDS, AvoidedDataNodes
from nnlib.storage.hdfs.choose_client import choose
from nnlib.storage.hdfs.hadoop_config import HdfsAddress, locate
from nnlib.storage.hdfs.storage import HdfsStorage
from nnlib.storage.hdfs.webhdfs import WebHdfs

Refusal = tuple[int, str, str]
NO_ANSWER = (0, "", "")


@dataclass
class Cluster:
    """Files by path, and what is to go wrong: ``faults`` are asked, in order, before and after each call."""

    files: dict[str, bytes] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)
    before: Callable[[str, str], Refusal | None] = lambda operation, path: None
    lose_reply: Callable[[str, str], bool] = lambda operation, path: False
    cut_bodies: int = 0
    datanodes: list[str] = field(default_factory=list)
    """IP addresses that the NameNode names, in order of preference; none: its own."""
    urls: list[str] = field(default_factory=list)

    def rename(self, source: str, target: str, option: str) -> Refusal | None:
        if source not in self.files:
            return 404, "FileNotFoundException", f"rename source {source} is not found."
        if target in self.files and option == "NONE":
            return 403, "FileAlreadyExistsException", f"rename destination {target} already exists"
        self.files[target], self.ids[target] = self.files.pop(source), self.ids.pop(source)
        return None

    def put(self, path: str, data: bytes) -> None:
        self.files[path] = data
        self.ids[path] = 1 + max(self.ids.values(), default=0)


class Handler(BaseHTTPRequestHandler):
    """One server is NameNode and DataNode at once."""

    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def log_message(self, *_: object) -> None: ...

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.hang_up()

    def hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        path = unquote(parts.path).removeprefix("/webhdfs/v1")
        operation = query.get("op", "") + ("-data" if "data" in query else "")
        cluster = self.cluster
        cluster.calls.append(operation)
        cluster.queries.append(query)
        refusal = cluster.before(operation, path)
        if refusal == NO_ANSWER:
            self.hang_up()
            return
        if refusal is None:
            refusal = self.carry_out(operation, path, query, body)
        if refusal is not None and refusal[0]:
            status, kind, message = refusal
            remote = {"RemoteException": {"exception": kind, "message": message}}
            self.answer(status, json.dumps(remote).encode() if kind else b"<html>")

    def carry_out(self, operation: str, path: str, query: dict[str, str], body: bytes) -> Refusal | None:
        cluster = self.cluster
        reply: tuple[int, bytes, dict[str, str]] = (200, b"{}", {})
        if operation in ("CREATE", "OPEN"):
            if operation == "OPEN" and path not in cluster.files:
                return 404, "FileNotFoundException", f"File {path} not found."
            excluded = query.get("excludedatanodes", "").split(",")
            host, _, port = self.headers["Host"].partition(":")
            nodes = [node for node in cluster.datanodes or [host] if node not in excluded]
            if not nodes:
                return 403, "IOException", f"Failed to find datanode, excludeDatanodes={','.join(excluded)}"
            reply = (307, b"", {"Location": f"http://{nodes[0]}:{port}{self.path}&data=1"})
        elif operation == "CREATE-data":
            cluster.put(path, body)
            reply = (201, b"", {})
        elif operation == "OPEN-data":
            start = int(query.get("offset", "0"))
            data = cluster.files[path][start : start + int(query.get("length", "1000000000"))]
            if cluster.cut_bodies:
                cluster.cut_bodies -= 1
                self.answer(200, data, cut=True)
                return NO_ANSWER
            reply = (200, data, {})
        elif operation == "RENAME":
            refusal = cluster.rename(path, query["destination"], query["renameoptions"])
            if refusal is not None:
                return refusal
        elif operation == "DELETE":
            cluster.files.pop(path, None)
        elif operation == "GETFILESTATUS":
            if path not in cluster.files:
                return 404, "FileNotFoundException", f"File does not exist: {path}"
            status = {
                "pathSuffix": "",
                "type": "FILE",
                "length": len(cluster.files[path]),
                "fileId": cluster.ids[path],
            }
            reply = (200, json.dumps({"FileStatus": status}).encode(), {})
        if cluster.lose_reply(operation, path):
            self.hang_up()
        else:
            self.answer(*reply)
        return None

    do_GET = do_PUT = do_DELETE = serve  # noqa: N815  (http.server's names)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    state = Cluster()
    handler = type("OwnHandler", (Handler,), {"cluster": state})
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        state.urls.append(f"http://127.0.0.1:{server.server_address[1]}")
    yield state
    for server in servers:
        server.shutdown()
        server.server_close()


def place_of(cluster: Cluster, *, nodes: int = 1, wait: float = 5.0, kerberos: bool = False) -> HdfsAddress:
    return HdfsAddress("hdfs", "test", tuple(cluster.urls[:nodes]), "ann", kerberos, None, "webhdfs", wait)


@pytest.fixture
def store(cluster: Cluster) -> Storage:
    return HdfsStorage("hdfs://test/dir", client=WebHdfs(place_of(cluster)))


def once(*refusals: Refusal | None) -> Callable[[str, str], Refusal | None]:
    """Give each refusal to one call, then none."""
    left = list(refusals)
    return lambda operation, path: left.pop(0) if left else None


STANDBY = (403, "StandbyException", "Operation category READ is not supported in state standby")
SAFE_MODE = (403, "SafeModeException", "Cannot create /dir/x. Name node is in safe mode.")


def test_a_standby_sends_to_the_other(cluster: Cluster) -> None:
    store = HdfsStorage("hdfs://test/dir", client=WebHdfs(place_of(cluster, nodes=2)))
    cluster.put("/dir/x", b"data")
    cluster.before = once(STANDBY)
    assert store.read("x") == b"data"
    assert cluster.calls == ["OPEN", "OPEN", "OPEN-data"]
    assert store.exists("x")  # the active one is remembered
    assert cluster.calls[3:] == ["GETFILESTATUS"]


def test_safe_mode_and_starting_daemons_are_waited_for(cluster: Cluster, store: Storage) -> None:
    cluster.before = once(
        SAFE_MODE,
        (403, "RetriableException", "later"),
        (403, "IOException", "Failed to find datanode"),
        None,
        (400, "ConnectException", "Call From data-node to name-node failed on connection exception"),
        None,
        (403, "EOFException", "End of File Exception between local host is: data-node"),
    )
    store.write("x", b"data")
    assert cluster.files == {"/dir/x": b"data"}


NOBODY = "127.0.0.3"
"""An address of this machine at which nothing listens."""


def test_a_datanode_that_cannot_be_reached_is_left_out(
    cluster: Cluster, store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, and by other calls too: a NameNode goes on naming a lost DataNode for ten minutes."""
    cluster.datanodes = [NOBODY, "127.0.0.1"]
    unhurried = types.SimpleNamespace(monotonic=time.monotonic, sleep=pytest.fail)
    monkeypatch.setattr("nnlib.storage.backoff.time", unhurried)
    store.write("x", b"data")
    assert store.read("x") == b"data"
    asked = [query.get("excludedatanodes") for query in cluster.queries if query["op"] in ("CREATE", "OPEN")]
    assert asked[0] is None and set(asked[1:]) == {NOBODY}


def test_when_all_are_left_out_all_are_tried_again(cluster: Cluster, store: Storage) -> None:
    cluster.put("/dir/x", b"data")
    cluster.datanodes = [NOBODY]

    def back(operation: str, path: str) -> Refusal | None:
        if cluster.calls.count("OPEN") == 4:  # left out, asked without it, tried again; then it is back
            cluster.datanodes = ["127.0.0.1"]
        return None

    cluster.before = back
    assert store.read("x") == b"data"


def test_datanodes_that_stay_away_are_named(cluster: Cluster) -> None:
    cluster.put("/dir/x", b"data")
    cluster.datanodes = [NOBODY]
    store = HdfsStorage("hdfs://test/dir", client=WebHdfs(place_of(cluster, wait=0.3)))
    with pytest.raises(StorageError, match=rf"HDFS is not available: {NOBODY}:\d+ cannot be reached"):
        store.read("x")


def test_a_datanode_is_avoided_for_a_while() -> None:
    now = 0.0
    avoided = AvoidedDataNodes(lambda: now)
    assert avoided.add("http://127.0.0.1:9864/webhdfs/v1/x?op=OPEN", "first")
    assert not avoided.add("http://127.0.0.1:9864/webhdfs/v1/y", "again")
    assert not avoided.add("http://no-such-host.invalid:9864/webhdfs/v1/y", "it has no address")
    assert avoided.current() == (["127.0.0.1"], ["again"])
    now = AVOIDED_SECONDS
    assert avoided.current() == ([], [])


def test_a_service_that_stays_away_is_an_error(cluster: Cluster, tmp_path: Path) -> None:
    cluster.urls[:1] = ["http://127.0.0.1:1"]
    store = HdfsStorage("hdfs://test/dir", client=WebHdfs(place_of(cluster, wait=0.3)))
    for use in (store.read, store.exists, store.names, store.delete, lambda name: store.write(name, b"")):
        with pytest.raises(StorageError, match=r"not available: 127.0.0.1:1 cannot be reached") as caught:
            use("x")
        assert caught.value.where["file"] == "hdfs://test/dir/x"
        assert caught.value.exit_code == 4 and "--resume" in str(caught.value)


def test_a_lost_reply_to_a_rename_is_looked_into(cluster: Cluster, store: Storage) -> None:
    """Whether or not the NameNode did it: one writer wins, who did it first, and says so."""
    for done in (True, False):
        lost: list[str] = []

        def lose(operation: str, path: str, lost: list[str] = lost) -> bool:
            if operation != "RENAME" or lost:
                return False
            lost.append(operation)
            return True

        def refuse(operation: str, path: str, lost: list[str] = lost) -> Refusal | None:
            return NO_ANSWER if lose(operation, path, lost) else None  # and nothing is done

        cluster.before, cluster.lose_reply = (lambda *_: None, lose) if done else (refuse, lambda *_: False)
        name = f"manifest-{done}"
        assert store.create(name, b"mine") is True
        assert store.create(name, b"other") is False
        assert cluster.files[f"/dir/{name}"] == b"mine"
        store.write(name, b"replaced")
        assert cluster.files[f"/dir/{name}"] == b"replaced"
        assert not [path for path in cluster.files if path.endswith(".tmp")]


def test_a_lost_race_after_a_lost_reply(cluster: Cluster, store: Storage) -> None:
    """Another writer's equal file is told from ours by the NameNode's own number of it."""
    lost: list[str] = []

    def another_was_quicker(operation: str, path: str) -> bool:
        if operation != "RENAME" or lost:
            return False
        lost.append(path)
        cluster.files.pop("/dir/manifest")  # ours, which another process swept away ...
        cluster.put("/dir/manifest", b"same")  # ... before it wrote the same bytes
        return True

    cluster.lose_reply = another_was_quicker
    with pytest.raises(StorageError, match="taken away while it was being written"):
        store.create("manifest", b"same")


def test_lost_replies_to_what_can_be_repeated(cluster: Cluster, store: Storage) -> None:
    for operation in ("GETFILESTATUS", "OPEN", "OPEN-data", "CREATE", "CREATE-data", "DELETE", "MKDIRS"):
        lost: list[str] = []

        def lose(called: str, path: str, operation: str = operation, lost: list[str] = lost) -> bool:
            if called != operation or lost:
                return False
            lost.append(called)
            return True

        cluster.lose_reply = lose
        store.write("x", b"data")
        assert store.read("x") == b"data" and store.size("x") == 4
        store.delete("x")
        assert cluster.files == {}
        assert lost == ([] if operation == "MKDIRS" else [operation])


def test_a_body_that_breaks_off_is_fetched_again_but_not_for_ever(cluster: Cluster, store: Storage) -> None:
    cluster.put("/dir/x", bytes(1000))
    cluster.cut_bodies = 2
    assert store.read("x") == bytes(1000)
    cluster.cut_bodies = 100
    with pytest.raises(StorageError, match="broke off every time") as caught:
        store.read("x")
    assert "hdfs fsck /dir/x" in str(caught.value)
    assert cluster.cut_bodies == 96


REFUSALS = [
    ((403, "AccessControlException", "Permission denied: user=ann"), "permission denied", "HADOOP_USER_NAME"),
    ((403, "DSQuotaExceededException", "The DiskSpace quota of /dir is exceeded"), "quota is used up", "--resume"),
    ((403, "NSQuotaExceededException", "The NameSpace quota of /dir is exceeded"), "quota is used up", "--resume"),
    ((403, "RemoteException", "File could only be written to 0 of the 1 minReplication nodes. There are 1 datanode(s) "
      "running and 1 node(s) are excluded"), "no room", "--resume"),
    ((401, "SecurityException", "Failed to obtain user group information"), "does not accept who we are", "kinit"),
    ((403, "ParentNotDirectoryException", "/dir/x (is not a directory)"), "a part of its path is a file", ""),
    ((403, "InvalidPathException", "Invalid path name /dir/a:b"), "Invalid path name", ""),
    ((500, "", ""), "HTTP 500", ""),
]  # fmt: skip


@pytest.mark.parametrize(("refusal", "message", "hint"), REFUSALS, ids=[each[0][1] for each in REFUSALS])
@pytest.mark.parametrize("at", ["CREATE", "CREATE-data", "RENAME"])
def test_refusals_are_explained_and_leave_nothing(
    cluster: Cluster, store: Storage, refusal: Refusal, message: str, hint: str, at: str
) -> None:
    cluster.before = lambda operation, path: refusal if operation == at else None
    for write in (store.write, store.create):
        with pytest.raises(StorageError, match=message) as caught:
            write("x", b"data")
        assert caught.value.where["file"] == "hdfs://test/dir/x" and hint in str(caught.value)
        assert cluster.files == {}


def test_every_name_arrives_as_it_is(cluster: Cluster, store: Storage) -> None:
    for name in ("a b", "100%25#a?b&c=d", "plus+semi;comma,", "Größe-数据-😀", "a'b\"c\\d", "~%41"):
        store.write(name, name.encode())
        assert cluster.files == {f"/dir/{name}": name.encode()}
        assert store.read(name) == name.encode()
        store.delete(name)


def test_large_files_are_read_by_ranges(cluster: Cluster, store: Storage) -> None:
    data = bytes(range(256)) * (6 << 12)
    cluster.put("/dir/x", data)
    with store.open("x") as stream:
        stream.seek(-100, 2)
        assert stream.read() == data[-100:]
        stream.seek(5_000_000)
        assert stream.read(10) == data[5_000_000:5_000_010]
        assert stream.read(10) == data[5_000_010:5_000_020]
    assert cluster.calls.count("OPEN-data") == 2


def test_who_asks(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.put("/dir/x", b"data")
    HdfsStorage("hdfs://test/dir", client=WebHdfs(place_of(cluster))).read("x")
    assert cluster.queries[0]["user.name"] == "ann"


def site(folder: Path, **properties: str) -> str:
    """A Hadoop configuration folder; ``__`` stands for a dot, ``_`` for a dash."""
    entries = "".join(
        f"<property><name>{name.replace('__', '.').replace('_', '-')}</name><value>{value}</value></property>"
        for name, value in properties.items()
    )
    (folder / "hdfs-site.xml").write_text(f"<configuration>{entries}</configuration>")
    return str(folder)


def test_addresses_are_found_in_hadoops_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HADOOP_CONF_DIR", "HADOOP_HOME", "HADOOP_USER_NAME", "NNJOBS_HDFS_HTTP"):
        monkeypatch.delenv(name, raising=False)
    assert locate("hdfs://nn:8020/a/b/")[0].urls == ("http://nn:9870",)
    assert locate("hdfs://nn:8020//a//b/")[1] == "/a/b"
    assert locate("webhdfs://gate:14000/x")[0].urls == ("http://gate:14000",)
    assert locate("swebhdfs://gate/x")[0].urls == ("https://gate:9871",)
    with pytest.raises(UsageError, match="names no NameNode"):
        locate("hdfs:///a")
    with pytest.raises(UsageError, match="upward"):
        locate("hdfs://nn/a/../b")
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    assert locate("hdfs://nn:8020/a")[0].urls == ("http://nn:9870",)  # an empty folder says nothing
    (tmp_path / "core-site.xml").write_text(
        "<configuration><property><name>fs.defaultFS</name><value>hdfs://${env.NN}:8020</value></property>"
        "<property><name>hadoop.security.authentication</name><value>kerberos</value></property></configuration>"
    )
    monkeypatch.setenv("NN", "head")
    site(tmp_path, dfs__namenode__http_address="0.0.0.0:5070")
    place, path = locate("hdfs:///a b")
    assert (place.authority, place.urls, path, place.kerberos) == ("head:8020", ("http://head:5070",), "/a b", True)
    with monkeypatch.context() as patch:
        patch.setenv("NNJOBS_HDFS_AUTH", "simple")
        assert storage("hdfs:///a b", private=True).root == "hdfs://head:8020/a b"
    assert locate("hdfs://elsewhere:8020/a")[0].urls == ("http://elsewhere:9870",)  # not that cluster's configuration
    site(
        tmp_path,
        **{
            "dfs__ha__namenodes__pair": "one, two",
            "dfs__namenode__https_address__pair__one": "h1:9871",
            "dfs__namenode__https_address__pair__two": "h2:9871",
            "dfs__http__policy": "HTTPS_ONLY",
        },
    )
    assert locate("hdfs://pair/a")[0].urls == ("https://h1:9871", "https://h2:9871")
    monkeypatch.setenv("NNJOBS_HDFS_HTTP", "https://gateway:14000/webhdfs/v1/")
    monkeypatch.setenv("NNJOBS_HDFS_AUTH", "simple")
    monkeypatch.setenv("HADOOP_USER_NAME", "bob")
    place, _ = locate("hdfs://pair/a")
    assert (place.urls, place.kerberos, place.user) == (("https://gateway:14000",), False, "bob")
    for name, value in (("NNJOBS_HDFS_HTTP", "gateway"), ("NNJOBS_HDFS_AUTH", "ldap"), ("NNJOBS_HDFS_WAIT", "soon")):
        with monkeypatch.context() as patch, pytest.raises(UsageError) as caught:
            patch.setenv(name, value)
            locate("hdfs://pair/a")
        assert caught.value.where["variable"] == name
    (tmp_path / "core-site.xml").write_text("<configuration>")
    with pytest.raises(UsageError, match="not a readable Hadoop configuration"):
        locate("hdfs:///a")


def test_the_way_in_is_chosen_by_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HADOOP_HOME", "ARROW_LIBHDFS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HADOOP_CONF_DIR", site(tmp_path, dfs__webhdfs__enabled="false"))
    place, _ = locate("hdfs://nn:8020/a")
    with pytest.raises(UsageError, match="turned off"):
        choose(place)
    (tmp_path / "hadoop").write_text("#!/bin/sh\n")
    (tmp_path / "hadoop").chmod(0o755)
    assert choose(place) == "cli"
    (tmp_path / "libhdfs.so").write_bytes(b"")
    monkeypatch.setenv("ARROW_LIBHDFS_DIR", str(tmp_path))
    assert choose(place) == "native"
    site(tmp_path)
    assert choose(place) == "webhdfs"
