"""Files in S3: objects whose names begin with the folder's.

There are no directories and no renames, and none are needed: an object appears as a whole when its upload is done, and
a conditional write lets one of several writers make it. So nothing is written under a temporary name; what killed
writers leave are uploads in parts that were never completed.
"""

from __future__ import annotations

import contextlib
import io
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, cast

from nnlib.core.errors import NnjobsError, StorageError
from nnlib.storage import fault_hook
from nnlib.storage.base import TEMPORARY, Access, Storage
from nnlib.storage.s3.address import MOST_KEY_BYTES, parse_address
from nnlib.storage.s3.calls import S3Calls
from nnlib.storage.s3.download import open_object, read_object
from nnlib.storage.s3.errors import NotThereError
from nnlib.storage.s3.settings import read_settings
from nnlib.storage.s3.upload import upload
from nnlib.storage.traffic import PROCESS, Traffic
from nnlib.storage.upload_buffer import upload_buffer, writing_to

UPLOADS = 8
"""Files written at once."""
DELETED_AT_ONCE = 1000
"""Objects that one request deletes."""


class S3Storage(Storage):
    """A folder in a bucket. It is private as the bucket is: objects have no owners' permissions of their own."""

    is_remote = True
    journal_seconds = 30.0
    journal_growth = 0.125
    poll_seconds = 5.0
    status_seconds = 10.0

    def __init__(self, address: str) -> None:
        self._address = parse_address(address)
        self.root = str(self._address)
        self.traffic = Traffic(PROCESS)
        self._calls = S3Calls(self._address, read_settings(), self.traffic)

    def location(self) -> tuple[str, tuple[str, ...]]:
        """``s3://`` and ``s3a://`` lead to the same buckets."""
        return f"s3://{self._address.bucket}", tuple(part for part in self._address.prefix.split("/") if part)

    def access(self) -> Access:
        return self._calls.settings.access(self._calls.connection.region)

    def read(self, name: str) -> bytes:
        with self._explained(name):
            return read_object(self._calls, self._key(name))

    def open(self, name: str) -> BinaryIO:
        with self._explained(name):
            return cast(BinaryIO, open_object(self._calls, self._key(name)))

    def write(self, name: str, data: bytes) -> None:
        self._upload(name, io.BytesIO(data), only_new=False)

    def create(self, name: str, data: bytes) -> bool:
        return self._upload(name, io.BytesIO(data), only_new=True)

    def create_from(self, name: str, source: BinaryIO) -> bool:
        return self._upload(name, source, only_new=True)

    def commit(self, files: Mapping[str, bytes], last: str, data: bytes) -> bool:
        """The files are written at once: they do not count before the last one is there."""
        with ThreadPoolExecutor(UPLOADS) as pool:
            list(pool.map(self.write, files, files.values()))
        return self.create(last, data)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Written to a local file first: parts of it can be sent again then."""
        with upload_buffer() as buffer:
            with writing_to(buffer, f"{self.root}/{name}"):
                yield buffer
            self._upload(name, buffer, only_new=False)

    def _upload(self, name: str, source: BinaryIO, *, only_new: bool) -> bool:
        with self._explained(name):
            written = upload(self._calls, self._new_key(name), source, only_new=only_new)
        if written:
            self.traffic.count_upload(source.seek(0, io.SEEK_END))
        return written

    def names(self, under: str = "") -> list[str]:
        prefix = self._folder(under)
        names: set[str] = set()
        with self._explained(under):
            for page in self._calls.pages("ListObjectsV2", prefix, Delimiter="/"):
                names.update(entry["Key"].removeprefix(prefix) for entry in page.get("Contents", ()))
                names.update(entry["Prefix"].removeprefix(prefix)[:-1] for entry in page.get("CommonPrefixes", ()))
        return sorted(name for name in names if name and not name.endswith(TEMPORARY))

    def exists(self, name: str) -> bool:
        with self._explained(name):
            if self._key(name):
                with contextlib.suppress(NotThereError):
                    self._calls.call("HeadObject", Key=self._key(name))
                    return True
            page = self._calls.call("ListObjectsV2", Prefix=self._folder(name), MaxKeys=1)
            return bool(page.get("Contents"))

    def size(self, name: str) -> int:
        with self._explained(name):
            return int(self._calls.call("HeadObject", Key=self._key(name))["ContentLength"])

    def delete(self, name: str) -> None:
        fault_hook.step("delete", f"{self.root}/{name}")
        with self._explained(name):
            if self._key(name):
                self._calls.call("DeleteObject", Key=self._key(name))
            for page in self._calls.pages("ListObjectsV2", self._folder(name)):
                self._delete_all([entry["Key"] for entry in page.get("Contents", ())])

    def delete_files(self, names: Sequence[str]) -> None:
        fault_hook.step("delete", self.root)
        with self._explained(""):
            self._delete_all([self._key(name) for name in names])

    def _delete_all(self, keys: list[str]) -> None:
        for start in range(0, len(keys), DELETED_AT_ONCE):
            objects = [{"Key": key} for key in keys[start : start + DELETED_AT_ONCE]]
            fault_hook.step("delete", self.root)
            answer = self._calls.call("DeleteObjects", Delete={"Objects": objects, "Quiet": True})
            for error in answer.get("Errors", ()):
                raise StorageError(
                    f"cannot delete {error.get('Key')}: {error.get('Code')}: {error.get('Message')}",
                    hint="a policy must allow s3:DeleteObject, and no object lock forbid it",
                )

    def sweep(self, under: str = "", *, of: Callable[[str], bool] | None = None) -> None:
        """End uploads in parts that were not completed: they are not seen, but paid for."""
        prefix = self._folder(under)
        with self._explained(under):
            for page in self._calls.pages("ListMultipartUploads", prefix):
                for entry in page.get("Uploads", ()):
                    name = entry["Key"].removeprefix(prefix)
                    if of is None or ("/" not in name and of(name)):
                        self._end_upload(entry)

    def _end_upload(self, entry: Mapping[str, Any]) -> None:
        fault_hook.step("sweep", f"s3://{self._address.bucket}/{entry['Key']}")
        with contextlib.suppress(NotThereError):
            self._calls.call("AbortMultipartUpload", Key=entry["Key"], UploadId=entry["UploadId"])

    def _key(self, name: str) -> str:
        return posixpath.join(self._address.prefix, name) if name else self._address.prefix

    def _new_key(self, name: str) -> str:
        key = self._key(name)
        if not key:
            raise StorageError("names no file in the bucket")
        if len(key.encode()) > MOST_KEY_BYTES:
            raise StorageError(f"the name is longer than the {MOST_KEY_BYTES} bytes that S3 takes")
        return key

    def _folder(self, name: str) -> str:
        """What the names of a folder's objects begin with."""
        key = self._key(name)
        return f"{key}/" if key else ""

    @contextlib.contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        """Name the file by its address in every error."""
        try:
            yield
        except NnjobsError as error:
            error.where = {**error.where, "file": f"{self.root}/{name}" if name else self.root}
            raise
