"""The folder of a dataset that is being made: what may be replaced there, and what is deleted of a failure."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from nnlib.core.errors import StorageError, UsageError
from nnlib.data.dataset import MANIFEST, shard_name
from nnlib.storage import Storage
from nnlib.storage.output_folder import NOTHING, FolderContent, claimed_folder, delete_content


class DatasetOutput:
    """A claimed folder for a new dataset; see `dataset_output`."""

    def __init__(self, files: Storage, content: FolderContent, replaced: FolderContent) -> None:
        self.files = files
        self._content = content
        self._replaced = replaced

    @contextlib.contextmanager
    def replacing(self) -> Iterator[None]:
        """Delete the old dataset, manifest first, before the block; if the block fails, delete all that it wrote."""
        self._delete(self._replaced)
        try:
            yield
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to report
                self._delete(self._content)
            raise

    def sweep(self) -> None:
        """Delete what tasks that were killed have left half written."""
        self.files.sweep(of=self._content.__contains__)

    def _delete(self, content: FolderContent) -> None:
        if MANIFEST in content:
            self.files.delete(MANIFEST)
        delete_content(self.files, content)


@contextlib.contextmanager
def dataset_output(files: Storage, shards: int, *, overwrite: bool) -> Iterator[DatasetOutput]:
    """Claim a folder for a dataset of ``shards`` shards, for the block.

    Only files that the manifest of a dataset names are replaced, and only with ``overwrite``; what a killed command of
    ours has left is deleted.

    Raises:
        UsageError: there is a dataset and ``overwrite`` is not set, or files of others would be replaced.
        StorageError: another live command writes into the folder, or it cannot be written.
    """
    content = FolderContent.of(MANIFEST, parts=shards)

    def ours() -> FolderContent:
        there = _dataset_content(files)
        if there != NOTHING and not overwrite:
            raise UsageError(
                "there is a dataset already", hint="choose another -o, or add --overwrite", output=files.root
            )
        return there

    with claimed_folder(files, content, ours) as left:
        there = _dataset_content(files)
        delete_content(files, left, but=there)
        yield DatasetOutput(files, content, there)


def _dataset_content(files: Storage) -> FolderContent:
    """Return the files of the dataset that is in a folder, by its manifest. Raises `UsageError` for another file of the
    manifest's name."""
    if not files.exists(MANIFEST):
        return NOTHING
    try:
        data: Any = json.loads(files.read(MANIFEST))
        names = [shard["name"] for shard in data["shards"]]
        is_ours = "format_version" in data and names == [shard_name(index) for index in range(len(names))]
    except (StorageError, ValueError, RecursionError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        raise UsageError(
            "this is no manifest of a dataset, so nnjobs will not replace it",
            hint="move it away, or choose another -o",
            file=f"{files.root}/{MANIFEST}",
        )
    return FolderContent.of(MANIFEST, parts=len(names))
