"""One reader for all picture files: what becomes of 16 bits, EXIF turns, transparency, bombs.

Colour profiles are not applied: neither CLIP's training nor the published numbers applied them.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from helpers.errors import StudyError, closed

HIDDEN = (".", "__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found")  # no folders of pictures
ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif"),
    *(".tif", ".tiff", ".avif", ".ppm", ".pgm"),
)
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "PPM")  # no other decoder
FOLDERS = 1_000_000  # below one, those behind links counted each time
PIXELS = 80_000_000  # of a picture; larger ones are not decoded
warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # begins at more than ``PIXELS``


def rgb(
    file: Path | bytes, name: object = "", side: int | None = None, reduced: bool = False
) -> np.ndarray:
    """A picture as (height, width, 3) uint8, turned as its EXIF says, transparent parts white.

    Of animations the first frame; 16 bits become 8 by their higher byte. With ``side`` the centre
    square, resized bicubically as in CLIP's validation transform; ``reduced``: JPEGs are decoded
    at the smallest scale that is large enough. ``StudyError`` names the file, or ``name``.
    """
    try:
        if isinstance(file, Path) and file.exists() and not file.is_file():
            raise ValueError("it is no file, but a folder, pipe or device")
        source = io.BytesIO(file) if isinstance(file, bytes) else file
        with Image.open(source, "r", FORMATS) as image:
            if image.width * image.height > PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are over {PIXELS:,}")
            if reduced and side:
                image.draft("RGB", (side, side))
            picture = _flattened(ImageOps.exif_transpose(image), image.format)
        if side:
            picture = ImageOps.fit(picture, (side, side), Image.Resampling.BICUBIC)
        return np.asarray(picture)
    except Exception as e:  # decoders raise anything on what strangers wrote
        reason = " ".join(str(e).split()) or type(e).__name__
        advice = "A broken image? Restore it from the data set's archive, or take it out."
        raise StudyError(f"cannot read the image {name or file}: {reason}. {advice}") from e


def _flattened(image: Image.Image, kind: str | None) -> Image.Image:
    """A picture from a file of some kind in RGB, on white where it is transparent."""
    if image.mode == "F":
        raise ValueError("its pixels are fractions of no known range; save it with 8 bits")
    clear = image.info.get("transparency")
    if isinstance(clear, tuple) and max(clear) > 255:  # told in 16 bits, which are 8 by now
        image.info["transparency"] = tuple(level >> 8 for level in clear)
    if image.mode.startswith("I"):
        levels = np.asarray(image)
        if levels.min() < 0 or levels.max() >= 2**16:
            raise ValueError("its pixels have more than 16 bits; save it with 8")
        wide = kind == "TIFF" and image.mode == "I" and levels.max() < 2**8  # 8 bits, stored as 32
        levels = np.where(levels == clear, 255, levels if wide else levels >> 8)
        image = Image.fromarray(levels.astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def files_below(folder: Path) -> Iterator[Path]:
    """All files in a folder and its subfolders, but hidden ones and what macOS leaves in archives.

    Links are followed, but to no folder that they lie in, as that would go round in circles.
    """
    outside = frozenset(map(os.path.realpath, Path(os.path.normpath(folder.absolute())).parents))
    above: dict[Path, frozenset[str]] = {}  # folder -> it, and those that it lies in
    for top, inside, files in os.walk(folder, onerror=closed, followlinks=True):
        real = os.path.realpath(top)
        around = above.get(Path(top).parent, outside)
        again = real in around
        above[Path(top)] = around.union((real,), map(str, Path(real).parents))
        if len(above) > FOLDERS:
            raise StudyError(f"{folder} has over {FOLDERS:,} folders. Take out some of its links.")
        inside[:] = [] if again else sorted(n for n in inside if not n.startswith(HIDDEN))
        yield from (Path(top, n) for n in sorted(files) if not (again or n.startswith(HIDDEN)))
