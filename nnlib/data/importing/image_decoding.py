"""Decode encoded images (PNG, JPEG ...) with Pillow, which is imported when the first one is.

All images of a dataset have one form: grey or colour, so many pixels. `ImageSurvey` finds it from the images' headers,
`ImageForm` decodes an image into it. Nothing is decoded that the header says would not fit in memory.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from nnlib.core.errors import DataError, UsageError
from nnlib.core.notes import note

Mode = Literal["grey", "rgb"]
Size = tuple[int, int]
"""Height and width in pixels."""

MOST_PIXELS = 89_478_485
"""Pixels of an image, at most: Pillow's own bound, beyond which a small file may be made to fill the memory."""
MOST_BYTES = 1 << 28
"""Bytes of an encoded image, at most."""

_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""The formats that are read, as Pillow names them. Others start programs (EPS) or are hardly ever data."""
_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
_DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N")
"""Modes of 16 bits a pixel; "I" is one only where a format cannot hold 32."""
_ORIENTATION = 0x0112
"""The EXIF tag that says how a camera was held."""
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""Value of that tag -> the step of Pillow that shows the image as it was seen."""

Origin: TypeAlias = Mapping[str, Any]
"""Where an image is, as the keywords of an error: file, or file, row and column."""


class ImageFacts(NamedTuple):
    """What an image's header says: its size as it is to be seen, and how its pixels are stored."""

    size: Size
    is_grey: bool
    has_opacity: bool
    is_deep: bool
    has_frames: bool


def require_pillow() -> Any:
    """Return Pillow's module of images. Raises `DataError` where it is not installed."""
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(
            f"reading images needs the package Pillow ({error})", hint="pip install 'nnjobs[images]'"
        ) from None
    return Image


def image_facts(source: IO[bytes] | bytes, origin: Origin) -> ImageFacts:
    """Read what the header of an image says. Raises `DataError`, with ``origin`` as its place, if it is no image that
    can be read, or too large a one."""
    with _opened(source, origin) as image:
        return _facts(image)


def _facts(image: Any) -> ImageFacts:
    width, height = image.size
    if _turn_of(image) >= 5:
        width, height = height, width
    return ImageFacts(
        (height, width),
        image.mode in _GREY,
        image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info,
        image.mode in _DEEP,
        image.format != "MPO" and bool(getattr(image, "is_animated", False)),
    )


@dataclass(frozen=True)
class ImageForm:
    """What all images of a dataset become: their mode, and their size in pixels.

    ``resizes``: whether images of another size are resized to it; else they are errors.
    """

    mode: Mode
    size: Size
    resizes: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a row: (height, width), or (3, height, width)."""
        return self.size if self.mode == "grey" else (3, *self.size)

    def decode(self, source: IO[bytes] | bytes, origin: Origin) -> npt.NDArray[np.uint8]:
        """Return the pixels of an image, shape ``self.shape``.

        Raises `DataError`, with ``origin`` as its place, for an image that is damaged or has another size.
        """
        with _opened(source, origin) as image:
            facts = _facts(image)
            if facts.size != self.size and not self.resizes:
                raise size_error(facts.size, self.size, origin)
            try:
                pixels = self._pixels(image, facts)
            except Exception as error:  # decoders raise whatever comes to them
                raise _unreadable(error, origin) from None
        return pixels if self.mode == "grey" else np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def _pixels(self, image: Any, facts: ImageFacts) -> npt.NDArray[np.uint8]:
        module = require_pillow()
        turn = _turn_of(image)  # before loading: what a file says behind its pixels does not count
        if facts.is_deep:
            high = np.asarray(image).astype(np.uint32) >> 8
            plain = module.fromarray(np.minimum(high, 255).astype(np.uint8))
        elif image.mode in ("P", "PA") and facts.has_opacity:
            plain = image.convert("RGBA")  # Pillow has no shorter way
        else:
            plain = image
        mode = "L" if self.mode == "grey" else "RGB"
        plain = plain.convert("RGB") if mode == "L" and plain.mode not in _GREY and plain.mode != "RGB" else plain
        plain = plain.convert(mode)
        if turn in _TURNS:
            plain = plain.transpose(getattr(module.Transpose, _TURNS[turn]))
        height, width = self.size
        if plain.size != (width, height):
            plain = plain.resize((width, height), module.Resampling.BILINEAR)
        return np.array(plain, np.uint8)


@dataclass
class ImageSurvey:
    """What the headers of many images say together.

    ``mode`` and ``resize`` are what the user wants, ``wanted`` the shape of a row that a model takes; None or () where
    nothing is said.
    """

    mode: Mode | None = None
    resize: Size | None = None
    wanted: tuple[int, ...] = ()
    count: int = 0
    greys: int = 0
    with_opacity: int = 0
    deep: int = 0
    with_frames: int = 0
    first: tuple[str, Size] | None = field(default=None)

    def add(self, facts: ImageFacts, file: str) -> None:
        """Count an image. Raises `DataError` for another size than the first one's, where nothing is resized."""
        self.count += 1
        self.greys += facts.is_grey
        self.with_opacity += facts.has_opacity
        self.deep += facts.is_deep
        self.with_frames += facts.has_frames
        if self.first is None:
            self.first = file, facts.size
        if self.resize is None and not self.wanted and facts.size != self.first[1]:
            first_file, first_size = self.first
            raise DataError(
                f"has {shown_size(facts.size)} pixels, but {first_file} has {shown_size(first_size)}",
                hint=f"resize all to one size, such as --resize {first_size[0]}x{first_size[1]}",
                file=file,
            )

    def form(self, source: str) -> ImageForm:
        """Return the form of the images, and note what they lose in it; ``source`` stands in the notes.

        Raises `DataError` for a model that takes no images, and `UsageError` for options that do not fit the model.
        """
        assert self.first is not None
        form = wanted_form(self.wanted, self.mode, self.resize, source) or ImageForm(
            self.mode or ("grey" if self.greys == self.count else "rgb"),
            self.resize or self.first[1],
            self.resize is not None,
        )
        colours = self.count - self.greys
        if form.mode == "rgb" and self.greys:
            other = "" if self.wanted or self.mode else " (--mode grey makes all grey)"
            note(f"{source}: {self.greys:,} of {self.count:,} images are grey, they become colour ones{other}")
        if form.mode == "grey" and colours:
            note(f"{source}: {colours:,} of {self.count:,} images have colours, they become grey")
        for number, what in (
            (self.with_opacity, "have an opacity, which is left out"),
            (self.deep, "have 16 bits a pixel, of which the upper 8 are kept"),
            (self.with_frames, "have several frames, of which the first is kept"),
        ):
            if number:
                note(f"{source}: {number:,} of {self.count:,} images {what}")
        return form


def wanted_form(wanted: tuple[int, ...], mode: Mode | None, resize: Size | None, source: str) -> ImageForm | None:
    """Return the form that a model takes whose rows have the shape ``wanted``; None if that is ().

    Raises `DataError` for rows that are no images, and `UsageError` for options that do not fit them.
    """
    if not wanted:
        return None
    if len(wanted) != 2 and not (len(wanted) == 3 and wanted[0] == 3):
        shown = " x ".join(map(str, wanted))
        raise DataError(f"the model takes rows of {shown} features, which are no images to it", file=source)
    form = ImageForm("grey" if len(wanted) == 2 else "rgb", (wanted[-2], wanted[-1]), resize is not None)
    if resize is not None and resize != form.size:
        raise UsageError(f"--resize {resize[0]}x{resize[1]}: the model takes images of {shown_size(form.size)} pixels")
    if mode is not None and mode != form.mode:
        raise UsageError(f"--mode {mode}: the model takes {form.mode} images")
    return form


def shown_size(size: Size) -> str:
    """Write height and width for a message."""
    return f"{size[0]} x {size[1]}"


def size_error(size: Size, expected: Size, origin: Origin) -> DataError:
    """Make the error for an image of another size than is expected."""
    return DataError(
        f"has {shown_size(size)} pixels, expected {shown_size(expected)}",
        hint=f"resize images with --resize {expected[0]}x{expected[1]}",
        **origin,
    )


def _turn_of(image: Any) -> int:
    """Return the orientation that the header states, 1 if it states none. Pillow turns TIFF files by itself."""
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    try:
        turn = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # garbled: other viewers show the image as it lies, too
        return 1
    return turn if turn in _TURNS else 1


@contextlib.contextmanager
def _opened(source: IO[bytes] | bytes, origin: Origin) -> Iterator[Any]:
    """Open an image, of which only the header is read, for the block."""
    module = require_pillow()
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with warnings.catch_warnings(action="ignore"):  # sizes are checked below, and odd metadata is no matter
            image = module.open(stream, formats=_FORMATS)
    except (DataError, MemoryError):
        raise
    except module.DecompressionBombError:
        raise _too_large("more than " + f"{2 * MOST_PIXELS:,}", origin) from None
    except Exception as error:  # decoders raise whatever comes to them
        raise _unreadable(error, origin) from None
    with image, warnings.catch_warnings(action="ignore"):
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise _too_large(f"{width * height:,}", origin)
        if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
            raise DataError("has 32 bits a pixel", hint="convert it to 8 bits first", **origin)
        yield image


def _too_large(pixels: str, origin: Origin) -> DataError:
    return DataError(
        f"has {pixels} pixels, more than {MOST_PIXELS:,}: it may be made to fill the memory",
        hint="make it smaller",
        **origin,
    )


def _unreadable(error: Exception, origin: Origin) -> DataError:
    if type(error).__name__ == "UnidentifiedImageError":
        return DataError("is no image of a known format", hint=f"known: {', '.join(_FORMATS)}", **origin)
    return DataError(f"is damaged ({error or type(error).__name__})", **origin)
