"""The one reader of pictures: what each kind of file becomes, and what is refused, by name."""

import io
import os
import shutil
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from helpers.data import pictures
from helpers.errors import StudyError
from helpers.paper import benchmarks
from helpers.paper.download import shards
from tests.paper.test_download import bomb

RAMP = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
RED = (255, 0, 0)


def file(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def palette(transparency) -> bytes:
    image = Image.new("P", (20, 20), 0)
    image.putpalette([*RED, 0, 0, 0])
    image.paste(1, (10, 0, 20, 20))
    return file(image, "png", transparency=transparency)


def sixteen_bits(colour: tuple[int, ...], clear: tuple[int, ...]) -> bytes:
    """A PNG of 16 bits, grey or RGB, ``clear`` on the right, which its tRNS says is transparent."""
    row = b"\0" + b"".join(struct.pack(f">{len(colour)}H", *c) * 10 for c in (colour, clear))
    header = struct.pack(">IIBBBBB", 20, 20, 16, 2 if len(colour) == 3 else 0, 0, 0, 0)
    parts = {b"IHDR": header, b"tRNS": struct.pack(f">{len(clear)}H", *clear)}
    parts |= {b"IDAT": zlib.compress(row * 20), b"IEND": b""}
    chunks = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def turned() -> bytes:
    """Red on the left when turned as EXIF says; stored with red above."""
    image = Image.new("RGB", (40, 40), "white")
    image.paste(RED, (0, 0, 40, 20))
    exif = Image.Exif()
    exif[0x0112] = 8
    return file(image, "jpeg", exif=exif, quality=95)


half = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
half.paste((*RED, 255), (0, 0, 10, 20))
frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
cmyk = Image.new("CMYK", (20, 20), (0, 255, 255, 0))
profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
tiff = Image.fromarray(RAMP.astype(">u2"))
RED_AND_WHITE = (RED, (255, 255, 255))
GREY_AND_WHITE = ((100, 100, 100), (255, 255, 255))
wide = np.repeat(np.array([[200, 20]], np.int32), 10, 1).repeat(20, 0)  # 8 bits, stored as 32
photograph = file(frames[0], "mpo", save_all=True, append_images=frames[1:])
LEFT_AND_RIGHT = {  # file -> the mean colours of its left and right half
    "16 bits": (file(Image.fromarray(RAMP), "png"), ((127,) * 3, (127,) * 3)),
    "16 bits, TIFF": (file(tiff, "tiff"), ((127,) * 3, (127,) * 3)),
    "8 bits in 32, TIFF": (file(Image.fromarray(wide), "tiff"), ((200,) * 3, (20,) * 3)),
    "16 bits in 32, TIFF": (file(Image.fromarray(wide * 256), "tiff"), ((200,) * 3, (20,) * 3)),
    "dark, PGM of 16 bits": (b"P5 20 20 65535\n" + b"\0\xc8" * 400, ((0,) * 3,) * 2),
    "16 bits, grey, one level transparent": (sixteen_bits((25_700,), (0,)), GREY_AND_WHITE),
    "16 bits, RGB, one colour transparent": (
        sixteen_bits((25_700,) * 3, (4_660, 0, 4_660)),
        GREY_AND_WHITE,
    ),
    "MPO, as phones take them": (photograph, (RED, RED)),
    "transparent": (file(half, "png"), RED_AND_WHITE),
    "transparent WebP": (file(half, "webp", lossless=True), RED_AND_WHITE),
    "grey and alpha": (file(half.convert("LA"), "png"), ((76,) * 3, (255,) * 3)),
    "palette, one colour transparent": (palette(1), RED_AND_WHITE),
    "palette, alpha in bytes": (palette(b"\xff\x00"), RED_AND_WHITE),
    "turned by EXIF": (turned(), RED_AND_WHITE),
    "animated GIF": (file(frames[0], "gif", save_all=True, append_images=frames[1:]), (RED, RED)),
    "animated WebP": (
        file(frames[0], "webp", save_all=True, append_images=frames[1:], lossless=True),
        (RED, RED),
    ),
    "CMYK": (file(cmyk, "jpeg"), ((254, 0, 0),) * 2),
    "one bit": (file(Image.new("1", (20, 20), 1), "png"), ((255,) * 3,) * 2),
    "profile": (file(frames[0], "png", icc_profile=profile), (RED, RED)),
    "many pixels in one row": (file(Image.new("RGB", (3000, 1), RED), "png"), (RED, RED)),
}
READERS = {
    "bytes": lambda path: pictures.rgb(path.read_bytes(), path),
    "task": lambda path: benchmarks.Decoded([path], 32)[:][0],
    "probe": lambda path: benchmarks.Decoded([path], 32, reduced=False)[:][0],
    "download": lambda path: downloaded(path.read_bytes()),
}


def downloaded(data: bytes) -> np.ndarray:
    square = shards.resized(io.BytesIO(data))[0]
    return np.asarray(Image.open(io.BytesIO(square)))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", LEFT_AND_RIGHT)
def test_every_way_in_reads_a_picture_alike(tmp_path, kind, reader):
    data, colours = LEFT_AND_RIGHT[kind]
    if kind.startswith("many") and reader == "download":
        return  # padded with white
    (tmp_path / "a picture").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = READERS[reader](tmp_path / "a picture").astype(float)
    assert image.ndim == 3 and image.shape[2] == 3
    edge = max(image.shape[1] // 16, 0)
    middle = image.shape[1] // 2
    for part, colour in zip(
        (image[:, : middle - edge], image[:, middle + edge :]), colours, strict=True
    ):
        assert np.abs(part.mean((0, 1)) - colour).max() < 9, (kind, reader)


BROKEN = {
    "180 megapixels": (bomb(18_000, 10_000), "pixels"),
    "90 megapixels": (bomb(9_000, 10_000), "pixels"),
    "cut off": (file(frames[0], "png")[:60], "cannot read the image"),
    "nothing": (b"", "cannot identify"),
    "HTML": (b"<html>", "cannot identify"),
    "PostScript": (file(frames[0], "eps"), "cannot identify"),
    "fractions": (file(Image.new("F", (9, 9), 0.5), "tiff"), "fractions"),
    "32 bits": (file(Image.new("I", (9, 9), 2**20), "tiff"), "more than 16 bits"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_be_read_is_named_in_one_line(tmp_path, kind):
    data, message = BROKEN[kind]
    (tmp_path / "this one.png").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for reader in ("bytes", "task", "probe"):
            with pytest.raises(StudyError, match=message) as e:
                READERS[reader](tmp_path / "this one.png")
            assert "this one.png" in str(e.value) and "\n" not in str(e.value)
    assert shards.resized(io.BytesIO(data))[0] is None


def test_plain_pictures_are_what_pillow_makes_of_them(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (30, 50, 3), dtype=np.uint8)
    data = file(Image.fromarray(noise), "png")
    assert np.array_equal(pictures.rgb(data), noise)
    fitted = ImageOps.fit(Image.fromarray(noise), (16, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(pictures.rgb(data, side=16), fitted)


def test_all_pictures_of_a_class_are_found_and_others_counted(tmp_path, capsys):
    folder = tmp_path / "My Study [v2] 'a::b' 🐦" / "robin"
    (folder / "nested" / "deeper").mkdir(parents=True)
    (folder / ".ipynb_checkpoints").mkdir()
    names = ["a.jpg", "b.JPG", "c.jfif", "d.tif", "e.gif", "f.webp", "nested/deeper/g.png"]
    litter = ["._a.jpg", ".DS_Store", "Thumbs.db", ".ipynb_checkpoints/a.jpg"]
    for name in (*names, *litter, "notes.txt", "nested/h.svg", "i"):
        (folder / name).touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "j.png").touch()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "round").symlink_to(folder.parent)
    found = benchmarks.image_files(folder.glob("*"))
    assert len(found) == 8
    assert {f.name for f in found} == {name.rsplit("/")[-1] for name in names} | {"j.png"}
    said = capsys.readouterr().out
    assert "1 .svg, 1 .txt, 1 i" in said and said.count("\n") == 1
    shutil.rmtree(folder / "nested")
    assert len(benchmarks.image_files(folder.glob("*"))) == 7


def test_a_folder_that_two_classes_link_counts_in_both_and_loops_end(tmp_path):
    for place in ("top/rose", "top/tree", "elsewhere/deep"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a.png").touch()
    for name in ("rose", "tree"):
        (tmp_path / "top" / name / "shared").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "top" / name / "round").symlink_to(tmp_path / "top")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path)
    (tmp_path / "elsewhere" / "deep" / "back").symlink_to(tmp_path / "elsewhere")
    found = [str(p.relative_to(tmp_path)) for p in pictures.files_below(tmp_path / "top")]
    inside = ("a.png", "shared/deep/a.png")
    assert sorted(found) == [f"top/{name}/{file}" for name in ("rose", "tree") for file in inside]


def test_a_link_up_from_where_a_link_led_is_not_followed(tmp_path, monkeypatch):
    """``up -> ..`` leads to where its folder really lies, with strangers' pictures."""
    for place in ("study", "data/pool/deep", "data/strange"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a.png").touch()
    (tmp_path / "data" / "pool" / "up").symlink_to("..")
    (tmp_path / "study" / "pool").symlink_to(tmp_path / "data" / "pool")
    for folder in ("study/pool", "study", "study/../study"):
        found = [str(p) for p in pictures.files_below(tmp_path / folder)]
        assert len(found) == (1 if folder.endswith("pool") else 2) and "strange" not in str(found)
    monkeypatch.chdir(tmp_path / "study")  # ".." is no folder in this one
    assert len(list(pictures.files_below(Path("../data/pool")))) == 1
    assert any("strange" in str(p) for p in pictures.files_below(Path("..")))
    assert Path("../study/a.png") in pictures.files_below(Path(".."))


def test_links_that_multiply_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "FOLDERS", 1_000)
    for i in range(20):  # two links to the next, so that there are 2**20 ways to the last
        (tmp_path / f"{i}").mkdir()
        for name in "ab":
            (tmp_path / f"{i}" / name).symlink_to(tmp_path / f"{i + 1}")
    with pytest.raises(StudyError, match=r"over 1,000 folders. Take out some of its links"):
        list(pictures.files_below(tmp_path / "0"))


def test_a_folder_that_may_not_be_read_is_no_silent_loss(tmp_path, monkeypatch):
    (tmp_path / "open").mkdir()
    (tmp_path / "shut").mkdir()
    scan = os.scandir

    def denied(folder):
        if str(folder).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(StudyError, match=r"cannot look into .*shut: Permission denied\. Allow it"):
        list(pictures.files_below(tmp_path))


def test_a_pipe_is_no_picture(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(StudyError, match=r"x\.png: .* pipe"):
        pictures.rgb(tmp_path / "x.png")
