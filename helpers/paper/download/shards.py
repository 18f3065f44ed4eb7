"""img2dataset's downloader and writer, each with one thing changed. The import takes seconds.

Its ``download`` is not called, only its parts: that function takes over the interrupt key, starts
its own processes and never notices when one is killed.
"""

from __future__ import annotations

import io
import os
import urllib.request
from pathlib import Path

import pandas as pd
from PIL import Image, ImageOps
from pyarrow import feather

from helpers.data import pictures
from helpers.engine import store
from helpers.errors import StudyError
from helpers.paper.download import polite

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # the import would ask for news
try:
    from img2dataset import downloader, writer
except ImportError as e:
    advice = "Install it with: pip install -r requirements.txt"
    raise StudyError(f"downloads need img2dataset, which cannot be imported ({e}). {advice}") from e

SIDE = 256  # pixels, padded to a square [C]
QUALITY = 95  # of the JPEGs [C]
DIGITS = 5  # of a shard's name


def resized(stream: io.BytesIO, boxes: None = None) -> tuple:
    """A picture as a JPEG with white beside it; img2dataset's tuple of bytes, sizes and error."""
    try:
        image = Image.fromarray(pictures.rgb(stream.getvalue(), "downloaded"))
    except StudyError as e:
        return None, None, None, None, None, str(e)
    buffer = io.BytesIO()
    square = ImageOps.pad(image, (SIDE, SIDE), Image.Resampling.BICUBIC, "white")
    square.save(buffer, "jpeg", quality=QUALITY)
    return buffer.getvalue(), SIDE, SIDE, *image.size, None


class Downloader(downloader.Downloader):
    """img2dataset's downloader behind polite.py's opener, with the study's reader of pictures."""

    def __init__(self, folder: Path, extra: list[str], limits: polite.Limits):
        super().__init__(
            sample_writer_class=Writer,
            resizer=resized,
            thread_count=limits.threads,
            save_caption=True,
            extract_exif=False,
            output_folder=str(folder),
            column_list=[*extra, "caption", "url"],
            timeout=limits.seconds,
            number_sample_per_shard=limits.shard_rows,
            oom_shard_count=DIGITS,
            compute_hash="sha256",
            verify_hash_type=None,
            encode_format="jpg",
            retries=0,
            user_agent_token=None,  # this and the next are the opener's business
            disallowed_header_directives=None,
        )
        self.rules = (limits, Path(folder) / "_tmp" / "turns")

    def __call__(self, shard: int, rows: pd.DataFrame) -> None:
        """Download a shard: its number, its ``url``, ``caption`` and more. Raises what fails."""
        file = Path(self.output_folder) / "_tmp" / f"{shard}.feather"
        file.parent.mkdir(exist_ok=True)
        feather.write_feather(rows, str(file), compression="uncompressed")
        urllib.request.install_opener(polite.opener(*self.rules))
        try:
            self.download_shard((shard, str(file)))
        finally:
            urllib.request.install_opener(None)


class Writer(writer.WebDatasetSampleWriter):
    """img2dataset's writer in order of the keys instead of arrival, so that threads leave no trace.

    A finished shard is moved into place as a whole: ``00000.tar`` and ``00000.parquet`` with the
    images that came, row by row alike, and ``report/00000.parquet`` with all rows. Where no image
    came there is no tar.
    """

    def __init__(self, shard: int, folder: str, *settings):
        super().__init__(shard, str(Path(folder) / "_tmp"), *settings)
        self.folder = Path(folder)
        self.samples: list[tuple] = []
        self.tarwriter.mtime = 0

    def write(self, *sample) -> None:
        """Keep (image, key, caption, row) until ``close``."""
        self.samples.append(sample)

    def close(self) -> None:
        """Write what was kept and move it into place."""
        for sample in sorted(self.samples, key=lambda s: s[1]):
            super().write(*sample)
        super().close()
        name = f"{self.shard_id:0{DIGITS}d}"
        rows = store.read_table(self.folder / "_tmp" / f"{name}.parquet")
        store.write(self.folder / "report" / f"{name}.parquet", rows)
        came = rows[rows["status"] == "success"].drop(columns=["status", "error_message"])
        if len(came):
            tar = self.folder / "_tmp" / f"{name}.tar"
            with tar.open("rb") as f:
                os.fsync(f.fileno())
            tar.replace(self.folder / tar.name)
            came = came.rename(columns={"caption": "TEXT", "url": "URL"})  # a pool's names
            store.write(self.folder / f"{name}.parquet", came)
