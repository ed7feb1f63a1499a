"""Read images: a folder of them with a folder for each class, a zip or tar archive of one, or single files.

Needs Pillow. The classes are the names of their folders. ``train`` and ``test`` folders around them become a column
``split``; the column ``file`` has each image's path below the folder, by which predictions name it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
import pyarrow as pa

from nnlib.core.errors import DataError
from nnlib.core.liveness import heartbeat
from nnlib.core.progress import progressing
from nnlib.data.columns import Columns
from nnlib.data.importing.formats.table import Role, Table, rows_per_chunk
from nnlib.data.importing.image_decoding import ImageForm, ImageSurvey, image_facts, require_pillow
from nnlib.data.importing.image_tree import ImageFile, ImageTree, list_images, open_tree, printable
from nnlib.data.importing.read_options import ReadOptions

IMAGE, LABEL, FILE, SPLIT = "x", "label", "file", "split"
"""The columns of the table."""


def open_images(sources: Sequence[str], options: ReadOptions) -> list[Table]:
    """Open folders, archives and single images as one table.

    All images get one form, which their headers decide: all grey, or else colour; of one size, unless
    ``options.resize`` says which. Raises `DataError` for files that are no images, damaged ones, classes without
    images and images of several sizes.
    """
    require_pillow()
    trees = [open_tree(source) for source in sources]
    images = [(tree, image) for tree in trees for image in list_images(tree)]
    survey = ImageSurvey(options.mode, options.resize, options.row_shape)
    with progressing("looking at images", len(images), "images") as advance:
        for done, (tree, image) in enumerate(images):
            shown = tree.shown(image.name)
            with tree.open(image.name) as stream:
                survey.add(image_facts(stream, {"file": shown}), shown)
            if done % 256 == 0:
                heartbeat()
                advance(done)
    if not options.row_shape and all(image.label is None for _, image in images):
        raise DataError(
            "its images lie in no folders of classes", hint="sort them: folder/CLASS/name.png", file=sources[0]
        )
    return [_table(sources[0], images, survey.form(sources[0]))]


def _table(source: str, images: Sequence[tuple[ImageTree, ImageFile]], form: ImageForm) -> Table:
    has_labels = any(image.label is not None for _, image in images)
    has_parts = any(image.part is not None for _, image in images)
    if odd := next((each for each in images if has_labels != (each[1].label is not None)), None):
        raise DataError("lies in no folder of a class, others do", file=odd[0].shown(odd[1].name))
    if odd := next((each for each in images if has_parts != (each[1].part is not None)), None):
        raise DataError("lies in no folder of a part (train, test), others do", file=odd[0].shown(odd[1].name))

    def chunks(roles: Mapping[str, Role]) -> Iterator[Columns]:
        waiting = iter(images)
        while block := list(islice(waiting, rows_per_chunk(int(np.prod(form.shape))))):
            columns: dict[str, pa.Array | np.ndarray] = {}
            for name in roles:
                if name == IMAGE:
                    columns[name] = _pixels(block, form)
                elif name == FILE:
                    columns[name] = pa.array([printable(image.name) for _, image in block], pa.string())
                else:
                    columns[name] = pa.array(
                        [image.label if name == LABEL else image.part for _, image in block], pa.string()
                    )
            yield columns

    texts = [*([LABEL] if has_labels else []), FILE, *([SPLIT] if has_parts else [])]
    return Table(
        source,
        (IMAGE, *texts),
        chunks,
        {IMAGE: form.shape},
        {IMAGE: "uint8"} | dict.fromkeys(texts, "str"),
        LABEL if has_labels else None,
        (IMAGE,),
        (SPLIT,) if has_parts else (),
        len(images),
        key=(FILE,),
    )


def _pixels(block: Sequence[tuple[ImageTree, ImageFile]], form: ImageForm) -> np.ndarray:
    """Decode images, shape (n, width of a row) uint8."""
    pixels = np.empty((len(block), *form.shape), np.uint8)
    for row, (tree, image) in enumerate(block):
        heartbeat()
        with tree.open(image.name) as stream:
            pixels[row] = form.decode(stream, {"file": tree.shown(image.name)})
    return pixels.reshape(len(block), -1)
