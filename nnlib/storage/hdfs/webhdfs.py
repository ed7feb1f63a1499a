"""HDFS over HTTP (WebHDFS, or HttpFS): no Java on this side, 2 ms a call instead of a second for ``hadoop fs``.

fsspec's client was tried: it has no overwriting rename (so no atomic replacement), no timeouts, no second NameNode
and no retries. The protocol: https://hadoop.apache.org/docs/stable/hadoop-project-dist/hadoop-hdfs/WebHDFS.html

What is tried again, and what is not. A call that surely was not carried out (connection refused, a standby or starting
NameNode) is repeated. One whose reply was lost may have been carried out: reading, making directories, deleting and
writing a temporary file whose name is ours alone are repeated, for twice is as good as once. A rename is not: whether
it happened is looked up first.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote

import requests

from nnlib.core.errors import StorageError
from nnlib.core.waiting import Wait, waiting_for
from nnlib.storage.backoff import Backoff
from nnlib.storage.hdfs.avoided_datanodes import AvoidedDataNodes
from nnlib.storage.hdfs.client import FileStatus, HdfsClient, NotThereError
from nnlib.storage.hdfs.hadoop_config import HdfsAddress
from nnlib.storage.hdfs.hadoop_http import HadoopConnection, hdfs_login
from nnlib.storage.hdfs.ticket import current_ticket, require_ticket, ticket_problem
from nnlib.storage.hdfs.ticket_keeper import keep_ticket
from nnlib.storage.hdfs.webhdfs_errors import (
    LostReplyError,
    TransientError,
    explained,
    tls_reason,
    was_not_sent,
)

Result = TypeVar("Result")

CONNECT_SECONDS = 10.0
READ_SECONDS = 90.0
"""Longest silence of a service that has answered the connection. A DataNode may be writing through a slow pipeline."""

CUT_SHORT = 4
"""Times in a row that a body may end early. Time does not help a damaged block, so it is not waited for."""


class WebHdfs(HdfsClient):
    """An HDFS client over WebHDFS or HttpFS. Threads may share one; a forked process opens new connections."""

    ranged = True

    def __init__(self, hdfs: HdfsAddress) -> None:
        self._hdfs = hdfs
        self._login = hdfs_login(hdfs.authority, hdfs.user, kerberos=hdfs.kerberos)
        if self._login.negotiates:
            require_ticket()  # at once: the NameNode would be asked again and again
            keep_ticket()
        self._active = 0
        self._avoided = AvoidedDataNodes()
        self._lock = threading.Lock()
        self._connection = HadoopConnection(hdfs.certificates)

    def status(self, path: str) -> FileStatus | None:
        try:
            entry = self._call("GET", "GETFILESTATUS", path).json()["FileStatus"]
        except NotThereError:
            return None
        return _status(entry)

    def list(self, path: str) -> list[FileStatus]:
        try:
            entries = self._call("GET", "LISTSTATUS", path).json()["FileStatuses"]["FileStatus"]
        except NotThereError:
            return []
        return [_status(entry) for entry in entries if entry["pathSuffix"]]  # a file lists itself, without a name

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        parameters = {"offset": str(offset)} | ({} if length is None else {"length": str(length)})

        def attempt(base: str) -> bytes:
            where = self._redirect("GET", base, "OPEN", path, parameters)
            body = self._at_datanode("GET", where, None, path).content
            return bytes(body)

        return self._with_retries(attempt, path)

    def upload(self, path: str, data: bytes | BinaryIO, *, private: bool) -> None:
        parameters = {"overwrite": "true"} | ({"permission": "600"} if private else {})

        def attempt(base: str) -> None:
            if not isinstance(data, bytes):
                data.seek(0)
            where = self._redirect("PUT", base, "CREATE", path, parameters)
            self._at_datanode("PUT", where, data, path)

        self._with_retries(attempt, path)

    def rename(self, source: str, target: str, *, overwrite: bool, id: int = 0) -> None:
        parameters = {"destination": target, "renameoptions": "OVERWRITE" if overwrite else "NONE"}
        unsure = False
        while True:
            try:
                self._call("PUT", "RENAME", source, parameters, repeatable=False)
                return
            except LostReplyError:
                unsure = True
                if self.status(source) is not None:
                    continue  # it was not renamed, or not yet: the next attempt then finds it gone
            except NotThereError:
                if not unsure:
                    raise
            # Gone: only our own rename moves it, unless somebody swept it away.
            there = self.status(target)
            if there is None or (id and there.id != id):
                raise StorageError("was taken away while it was being written: does another process work here?")
            return

    def sweep(self, path: str) -> None:
        self.delete(path)

    def mkdirs(self, path: str, *, private: bool) -> None:
        self._call("PUT", "MKDIRS", path, {"permission": "700"} if private else {})

    def delete(self, path: str, *, wait: bool = True) -> None:
        with contextlib.suppress(NotThereError):
            self._call("DELETE", "DELETE", path, {"recursive": "true"}, wait=wait)

    def _call(
        self,
        method: str,
        operation: str,
        path: str,
        parameters: dict[str, str] | None = None,
        *,
        repeatable: bool = True,
        wait: bool = True,
    ) -> requests.Response:
        """A call that the NameNode answers by itself."""

        def attempt(base: str) -> requests.Response:
            return self._send(method, self._url(base, path), None, path, self._query(operation, parameters))

        return self._with_retries(attempt, path, repeatable=repeatable, wait=wait)

    def _redirect(self, method: str, base: str, operation: str, path: str, parameters: dict[str, str]) -> str:
        """Where the NameNode sends us for a file's bytes: a DataNode's address, good for this once. It is none of those
        that failed lately, which the NameNode may take for alive for ten minutes."""
        avoided, reasons = self._avoided.current()
        left_out = {"excludedatanodes": ",".join(avoided)} if avoided else {}
        query = self._query(operation, parameters | left_out)
        try:
            reply = self._send(method, self._url(base, path), None, path, query)
        except (StorageError, TransientError) as error:
            if not avoided or isinstance(error, NotThereError):
                raise
            self._avoided.forget()  # without them there is none: perhaps one is back
            raise TransientError(reasons[-1]) from error
        where = reply.headers.get("Location")
        if where is None:
            raise StorageError(f"{base} does not speak WebHDFS: it named no DataNode", file=path)
        return where

    def _at_datanode(self, method: str, where: str, body: bytes | BinaryIO | None, path: str) -> requests.Response:
        """Exchange a file's bytes with a DataNode; one that fails is avoided from then on. One that breaks off is not:
        it may be the block that is damaged."""
        try:
            return self._send(method, where, body, path)
        except LostReplyError as error:
            if not error.cut_short:
                self._avoided.add(where, str(error))
            raise
        except TransientError as error:
            raise TransientError(str(error), at_once=self._avoided.add(where, str(error))) from error

    def _with_retries(
        self, attempt: Callable[[str], Result], path: str, *, repeatable: bool = True, wait: bool = True
    ) -> Result:
        backoff = Backoff(
            self._hdfs.wait_seconds if wait else 0.0,
            "HDFS",
            self._hdfs.authority,
            variable="NNJOBS_HDFS_WAIT",
            check="see that its daemons run (hdfs dfsadmin -report)",
        )
        with waiting_for(f"HDFS at {self._hdfs.authority} has not answered ({path})", reports_end=True) as shown:
            return self._until_done(attempt, path, backoff, shown, repeatable=repeatable)

    def _until_done(
        self, attempt: Callable[[str], Result], path: str, backoff: Backoff, shown: Wait, *, repeatable: bool
    ) -> Result:
        """Attempt a call until it succeeds, or is not to be repeated any more; ``shown`` says what it waits for."""
        short = 0
        while True:
            active = self._active
            try:
                result = attempt(self._hdfs.urls[active])
                backoff.succeeded()
                return result
            except LostReplyError as error:
                if not repeatable:
                    raise
                short = short + 1 if error.cut_short else 0
                if short == CUT_SHORT:
                    raise StorageError(
                        "is not readable: the DataNode broke off every time",
                        hint=f"a block may be damaged or lost: hdfs fsck {path} -files -blocks",
                        file=path,
                    ) from error
                shown.what = f"HDFS at {self._hdfs.authority}: {error} ({path})"
                backoff.wait(str(error))
            except TransientError as error:
                if error.ask_another:
                    with self._lock:
                        if self._active == active:
                            self._active = (active + 1) % len(self._hdfs.urls)
                shown.what = f"HDFS at {self._hdfs.authority}: {error} ({path})"
                backoff.wait(str(error), at_once=error.at_once or (error.ask_another and self._active != 0))

    def _send(
        self, method: str, url: str, body: bytes | BinaryIO | None, path: str, query: dict[str, str] | None = None
    ) -> requests.Response:
        """One HTTP exchange. Raises `TransientError`, `LostReplyError`, or what the service says is wrong, none of them
        from the error of requests: that quotes the address, which may hold a delegation token."""
        if body is not None and not isinstance(body, bytes) and os.fstat(body.fileno()).st_size == 0:
            body = b""  # else it would be sent in chunks, which the DataNode takes for a file without an end
        try:
            reply = self._connection.session().request(
                method,
                url,
                params=query,
                data=body,
                headers={"Content-Type": "application/octet-stream"} if body is not None else None,
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                allow_redirects=False,
                auth=self._login.auth(),
            )
        except requests.exceptions.SSLError as error:
            raise StorageError(
                f"{url.partition('?')[0]}: {tls_reason(error)}",
                hint="name the certificates to trust in NNJOBS_HDFS_CA",
                file=path,
            ) from None
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            host = url.partition("://")[2].partition("/")[0]
            if was_not_sent(error):
                raise TransientError(f"{host} cannot be reached", ask_another=True) from None
            cut_short = isinstance(error, requests.exceptions.ChunkedEncodingError)
            raise LostReplyError(f"{host} did not answer to the end", cut_short=cut_short) from None
        if reply.status_code == 401 and self._login.negotiates:
            raise ticket_problem(current_ticket()) or explained(reply, path)
        if reply.status_code >= 400:
            raise explained(reply, path)
        return reply

    def _url(self, base: str, path: str) -> str:
        return f"{base}/webhdfs/v1{quote(path, safe='/')}"

    def _query(self, operation: str, parameters: dict[str, str] | None) -> dict[str, str]:
        return {"op": operation, **self._login.parameters, **(parameters or {})}


def _status(entry: dict[str, Any]) -> FileStatus:
    return FileStatus(entry["pathSuffix"], entry["type"] == "DIRECTORY", entry["length"], entry.get("fileId", 0))
