"""Shards: what is written is read again, only what is asked for, and damage is named."""

import io
import tarfile

import numpy as np
import pandas as pd
import pytest

from helpers.data import shards, tables
from helpers.data.shards import tar_bytes
from helpers.engine import store
from helpers.errors import StudyError
from helpers.pocket.world.pool import fetch_tar


def test_broken_image_and_half_written_shard(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3), dtype=np.uint8)
    rows = [{"caption": f"number {i}", "label": i} for i in range(3)]
    tar = tmp_path / "a.tar"
    tar.write_bytes(tar_bytes(images, rows))
    again = tables.read_tars([tar, tar])
    assert np.array_equal(again.images, np.concatenate([images, images]))
    assert again.facts.to_dict("records") == rows + rows
    assert again.labels.tolist() == [0, 1, 2, 0, 1, 2]
    for broken in (tar.read_bytes()[:700], tar.read_bytes().replace(b"IHDR", b"IHDX", 1)):
        tar.write_bytes(broken)
        with pytest.raises(StudyError, match=r"a\.tar"):
            tables.read_tars([tar])


def pairs_in_tar() -> tuple[bytes, list[int]]:
    """A tar of 10 pairs, and where each of its 30 headers and its end begin."""
    images = np.random.default_rng(0).integers(0, 255, (10, 8, 8, 3), dtype=np.uint8)
    whole = tar_bytes(images, [{"caption": f"number {i}"} for i in range(10)])
    with tarfile.open(fileobj=io.BytesIO(whole)) as file:
        starts = [member.offset for member in file]
        return whole, [*starts, file.offset]


WHOLE, STARTS = pairs_in_tar()
FLIPPED = bytes([WHOLE[STARTS[15] + 5] ^ 1])
DAMAGED = {
    "a byte of a header": WHOLE[: STARTS[15] + 5] + FLIPPED + WHOLE[STARTS[15] + 6 :],
    "a hole": WHOLE[: STARTS[15]] + bytes(1_024) + WHOLE[STARTS[15] + 1_024 :],
    "a hole of a megabyte": WHOLE[: STARTS[15]] + bytes(2**20) + WHOLE[STARTS[15] :],
    "room that was never filled": WHOLE[: STARTS[15]] + bytes(2**20),
    "cut in a header": WHOLE[: STARTS[15] + 100],
    "cut before a header": WHOLE[: STARTS[15]],
    "cut in a file": WHOLE[: STARTS[15] + 700],
    "cut before its end": WHOLE[: STARTS[-1]],
    "two tars joined": WHOLE + WHOLE,
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_tar_that_does_not_reach_its_end_is_refused(tmp_path, damage):
    """``tarfile`` stops without a word at a header that it cannot read."""
    (tmp_path / "0.tar").write_bytes(DAMAGED[damage])
    with pytest.raises(StudyError, match=r"cannot read .*0\.tar: ") as e:
        shards.Tar(tmp_path / "0.tar")
    assert "\n" not in str(e.value)
    with tarfile.open(tmp_path / "0.tar") as file:  # as it was: fewer, or an error of another kind
        assert damage == "cut in a file" or len(list(file)) in (15, 30)


@pytest.mark.parametrize("end", [512, 1_024, 20_480, 2**20 - 512])
def test_a_tar_may_end_in_many_empty_blocks(tmp_path, end):
    (tmp_path / "0.tar").write_bytes(WHOLE[: STARTS[-1]] + bytes(end))
    assert len(shards.Tar(tmp_path / "0.tar")) == 10


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_claims_six_gigabytes_is_not_read(tmp_path, kind):
    info = tarfile.TarInfo("x")
    info.type = kind
    info.size = 6 * 2**30
    with (tmp_path / "0.tar").open("wb") as file:  # really that long, and sparse on the disk
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(512 + info.size + 1_024)
    with pytest.raises(StudyError, match=r"0\.tar: it has a header of 6,442,450,944 bytes"):
        shards.Tar(tmp_path / "0.tar")


def test_long_names_are_read(tmp_path):
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "0.tar", "w", format=form) as file:
            file.addfile(tarfile.TarInfo(f"{'deep/' * 200}a.png"))
        assert shards.Tar(tmp_path / "0.tar").images[0].key == f"{'deep/' * 200}a"


def test_only_wanted_members_are_decoded(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (5, 8, 8, 3), dtype=np.uint8)
    tar = tar_bytes(images, [{"caption": f"number {i}", "label": i} for i in range(5)])
    (tmp_path / "0.tar").write_bytes(tar.replace(b"IHDR", b"IHDX", 1))  # the first image is broken
    (tmp_path / "1.tar").write_bytes(tar)
    shards = tuple(
        store.write(tmp_path / f"{i}.parquet", pd.DataFrame({"TEXT": range(5)})) for i in range(2)
    )
    pool = tables.Pool(shards, fetch_tar, (5, 5))
    rows = [9, 3, 6, 3, 1]
    assert (
        np.array_equal(pool.fetch(rows), images[np.array(rows) % 5])
        and pool.fetch([]).shape[0] == 0
    )
    with pytest.raises(StudyError, match=r"0\.tar.*broken image"):
        pool.fetch([4, 0])
    (tmp_path / "1.tar").write_bytes(
        tar_bytes(images[:4], [{"caption": ""}] * 4)
    )  # another file of the same name
    with pytest.raises(StudyError, match=r"lists 5 rows.* 4 images"):
        pool.fetch([5])


def test_lazy_images_are_indexed_like_an_array(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (11, 4, 4, 3), dtype=np.uint8)
    lazy = shards.Lazy(images[:3], images[3:3], images[3:])
    keys = (2, -1, slice(1, 9, 2), np.array([10, 0, 3, 3]), [4, 2], np.arange(11) % 2 == 0)
    assert all(np.array_equal(lazy[k], images[k]) for k in keys) and len(lazy[5:5]) == 0
    assert np.array_equal(lazy.take([7, 1, 2]).take([1, 0]), images[[1, 7]]) and np.array_equal(
        np.asarray(lazy), images
    )
    split = tables.Split(lazy, np.arange(11))
    assert np.array_equal(split.take([9, 2]).plus(split).images[:4], images[[9, 2, 0, 1]])
    np.save(tmp_path / "whole.npy", images)
    with (tmp_path / "lazy.npy").open("wb") as file:
        lazy.save(file, chunk=4)
    assert (tmp_path / "lazy.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
