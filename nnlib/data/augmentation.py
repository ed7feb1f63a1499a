"""Change images at random while they train: moved, mirrored, with noise (`data.augment`).

Every batch has draws of its own, which its key alone decides (`nnlib.core.seeds`): a retried task, another runner and
another mode change the same images in the same way. Rows that are scored or predicted are never changed.
"""

from __future__ import annotations

import numpy as np

from nnlib.config.schema import Augment
from nnlib.core.arrays import Array
from nnlib.core.errors import ConfigError

_CHANNELS = (1, 3, 4)
"""Numbers of channels that images have: grey, colour, colour with opacity."""


class Augmenter:
    """Changes batches of rows of one shape, in place. Serves one thread at a time, for it keeps a buffer.

    In this order: ``crop``, ``shift``, ``flip``, ``noise``; what is 0 or false draws nothing.
    """

    def __init__(self, options: Augment, shape: tuple[int, ...]) -> None:
        """``shape``: of a row, (height, width) or (channels, height, width). Raises `ConfigError` as
        `check_augmentation` does."""
        check_augmentation(options, shape)
        self._options, self._shape = options, shape
        self._padded: Array = np.empty(0)

    def apply(self, x: Array, rng: np.random.Generator) -> None:
        """Change a batch, shape (b, features), C order, writable, of any float dtype, by the draws of ``rng``."""
        options, rows = self._options, len(x)
        if options.moves:
            images = x.reshape(rows, -1, *self._shape[-2:])
            if options.crop:
                self._move(images, options.crop, rng, mirrors=True)
            if options.shift:
                self._move(images, options.shift, rng, mirrors=False)
            if options.flip:
                chosen = rng.random(rows) < 0.5
                images[chosen] = images[chosen][..., ::-1]
        if options.noise:
            noise = rng.standard_normal(x.shape, x.dtype)
            noise *= x.dtype.type(options.noise)
            x += noise

    def _move(self, images: Array, most: int, rng: np.random.Generator, *, mirrors: bool) -> None:
        """Move each image, shape (b, channels, height, width), by up to ``most`` pixels in each direction.

        What comes in at its edges is its mirror image, or 0.
        """
        padded = self._pad(images, most, mirrors=mirrors)
        height, width = images.shape[2:]
        corners = rng.integers(0, 2 * most, (len(images), 2), endpoint=True).tolist()
        for row, (top, left) in enumerate(corners):  # slices of rows: index arrays take longer than the copying
            images[row] = padded[row, :, top : top + height, left : left + width]

    def _pad(self, images: Array, most: int, *, mirrors: bool) -> Array:
        """Return the images with an edge of ``most`` pixels around, in a buffer that is used again."""
        rows, channels, height, width = images.shape
        sides = (channels, height + 2 * most, width + 2 * most)
        if self._padded.shape[1:] != sides or len(self._padded) < rows or self._padded.dtype != images.dtype:
            self._padded = np.zeros((rows, *sides), images.dtype)
        padded = self._padded[:rows]
        inner = slice(most, most + height), slice(most, most + width)
        padded[:, :, *inner] = images
        if mirrors:  # the edge itself is not repeated
            padded[:, :, inner[0], :most] = images[..., most:0:-1]
            padded[:, :, inner[0], most + width :] = images[..., -2 : -most - 2 : -1]
            padded[:, :, :most] = padded[:, :, 2 * most : most : -1]
            padded[:, :, most + height :] = padded[:, :, most + height - 2 : height - 2 : -1]
        else:
            padded[:, :, :most] = padded[:, :, most + height :] = 0
            padded[..., :most] = padded[..., most + width :] = 0
        return padded


def check_augmentation(options: Augment, shape: tuple[int, ...]) -> None:
    """Raise `ConfigError` for rows that are no images, or too small to be moved so far."""
    if not options.moves:
        return
    shown = " x ".join(map(str, shape))
    name = next(name for name in ("crop", "shift", "flip") if getattr(options, name))
    if len(shape) < 2:
        raise ConfigError(
            f"moves or mirrors images, but a row of this dataset has {shown} features",
            hint="import it with --shape HEIGHTxWIDTH, or set only data.augment.noise",
            key=f"data.augment.{name}",
        )
    if len(shape) > 2 and shape[-1] in _CHANNELS and shape[0] not in _CHANNELS:
        raise ConfigError(
            f"the dataset's rows of shape {shown} seem to have their channels last",
            hint="import it again: images are stored with their channels first",
            key=f"data.augment.{name}",
        )
    most = max(options.crop, options.shift)
    if most >= min(shape[-2:]):
        name = "crop" if options.crop == most else "shift"
        raise ConfigError(f"{most} pixels are too many for images of {shown}", key=f"data.augment.{name}")
