"""The errors that WebHDFS's refusals stand for: which may pass by themselves, and what to do about the others."""

from __future__ import annotations

import requests
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from nnlib.core.errors import StorageError
from nnlib.storage.hdfs.client import AlreadyThereError, NotThereError

DENIED = (
    "hdfs dfs -ls shows whose it is; we are who the Kerberos ticket is for (klist), without Kerberos HADOOP_USER_NAME"
)


class TransientError(Exception):
    """It was not carried out, and may be later. ``ask_another``: by another NameNode perhaps at once; ``at_once``: by
    the same, with another DataNode."""

    def __init__(self, message: str, *, ask_another: bool = False, at_once: bool = False) -> None:
        super().__init__(message)
        self.ask_another, self.at_once = ask_another, at_once


class LostReplyError(Exception):
    """It may have been carried out or not. ``cut_short``: the answer began and broke off."""

    def __init__(self, message: str, *, cut_short: bool = False) -> None:
        super().__init__(message)
        self.cut_short = cut_short


def was_not_sent(error: requests.RequestException) -> bool:
    """Return whether the connection was never made, so that the other side cannot have done anything."""
    if isinstance(error, requests.ConnectTimeout):
        return True
    cause = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(cause, NewConnectionError | ConnectTimeoutError)


def tls_reason(error: requests.exceptions.SSLError) -> str:
    """Return why a connection is not trusted, without the address that was asked."""
    return str(getattr(error.args[0] if error.args else None, "reason", type(error).__name__))


def explained(reply: requests.Response, path: str) -> Exception:
    """Return the error that a refusal stands for."""
    try:
        remote = reply.json()["RemoteException"]
        kind, message = str(remote["exception"]), str(remote["message"]).partition("\n")[0]
    except (ValueError, KeyError, TypeError):
        kind, message = "", f"HTTP {reply.status_code} {reply.reason}"
    if kind == "StandbyException":
        return TransientError("the NameNode is in standby", ask_another=True)
    if kind in ("SafeModeException", "RetriableException") or "safe mode" in message.lower():
        return TransientError("the NameNode is in safe mode")
    if _passing(kind, message) or (not kind and reply.status_code in (502, 503, 504)):
        return TransientError(message)
    if kind in ("EOFException", "SocketException", "SocketTimeoutException"):
        return LostReplyError(f"a DataNode lost the NameNode: {kind}")  # or HttpFS did: it may have been carried out
    if kind == "FileNotFoundException" and "not a file" not in message:
        return NotThereError("no such file or directory", file=path)
    if kind == "FileAlreadyExistsException":
        return AlreadyThereError("is there already", file=path)
    if kind == "ParentNotDirectoryException":
        return StorageError("cannot write: a part of its path is a file", file=path)
    if kind == "AccessControlException":
        return StorageError(f"permission denied: {message}", hint=DENIED, file=path)
    if kind == "InvalidToken" or "InvalidToken" in message:
        return StorageError(
            f"HDFS does not accept the job's delegation token: {message}",
            hint="tokens end after 7 days (dfs.namenode.delegation.token.max-lifetime), and when their job does: go on "
            "with --resume; for another HDFS than the default one set mapreduce.job.hdfs-servers in "
            "runtime.hadoop.jobconf",
            file=path,
        )
    if reply.status_code == 401 or kind == "SecurityException":
        return StorageError(
            f"HDFS does not accept who we are: {message}",
            hint="kinit, and set NNJOBS_HDFS_AUTH=kerberos where HADOOP_CONF_DIR does not say so",
            file=path,
        )
    if "QuotaExceeded" in kind or "quota" in message.lower():
        return StorageError(
            f"the HDFS quota is used up: {message}",
            hint="free some space or raise the quota (hdfs dfsadmin -setSpaceQuota), then run the same command with "
            "--resume",
            file=path,
        )
    if "could only be written to 0" in message or "No space left" in message:
        return StorageError(
            f"HDFS has no room for it: {message}",
            hint="free some space (hdfs dfsadmin -report), then run the same command with --resume",
            file=path,
        )
    if any(word in message or word in kind for word in ("BlockMissing", "Could not obtain block", "Checksum")):
        return StorageError(
            f"is not readable, for a block is lost or damaged: {message}",
            hint=f"hdfs fsck {path} -files -blocks -locations shows which",
            file=path,
        )
    return StorageError(f"HDFS refused: {f'{kind}: ' if kind else ''}{message}", file=path)


def _passing(kind: str, message: str) -> bool:
    """Whether it is the state of daemons that have just been started, or are about to be."""
    if kind in ("ConnectException", "NoRouteToHostException"):  # of a DataNode that asks the NameNode
        return True
    return "Failed to find datanode" in message or "There are 0 datanode(s) running" in message
