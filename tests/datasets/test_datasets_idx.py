"""Reading and refusing IDX files."""

import gzip
import struct
import tempfile
import tracemalloc
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hxtrain.datasets import DatasetError, read_images, read_labels, write_idx

IMAGES = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 1, 3) + bytes([0, 1, 2, 253, 254, 255])
LABELS = bytes([0, 0, 8, 1]) + struct.pack(">I", 3) + bytes([4, 0, 9])
PACKED = gzip.compress(IMAGES, mtime=0)
FOREIGN = b"<!DOCTYPE html><html>404"


def test_images_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(IMAGES)
    images = read_images(path)
    assert images.dtype == torch.uint8
    assert images.tolist() == [[[0, 1, 2]], [[253, 254, 255]]]


@pytest.mark.parametrize("name", ["labels", "labels.gz"])
def test_gzip_is_recognised_by_content(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for data in (LABELS, gzip.compress(LABELS)):
        path.write_bytes(data)
        assert read_labels(path).tolist() == [4, 0, 9]


def test_written_bytes(tmp_path: Path) -> None:
    write_idx(tmp_path / "plain", torch.tensor([4, 0, 9], dtype=torch.uint8))
    assert (tmp_path / "plain").read_bytes() == LABELS
    write_idx(tmp_path / "packed.gz", torch.tensor([4, 0, 9], dtype=torch.uint8))
    assert gzip.decompress((tmp_path / "packed.gz").read_bytes()) == LABELS


def test_only_uint8_is_written(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"only uint8 can be written, got torch\.int64"):
        write_idx(tmp_path / "x", torch.tensor([1]))
    assert not (tmp_path / "x").exists()


REFUSED = {
    "truncated": (IMAGES[:-2], "expected 22 bytes for shape [2, 1, 3], found 20 bytes (truncated)"),
    "too long": (IMAGES + b"\0", "expected 22 bytes for shape [2, 1, 3], found 23 bytes (too long)"),
    "labels": (LABELS, "uint8 images (first bytes 00 00 08 03), found 1 dimension(s) (labels)"),
    "rank 2": (bytes([0, 0, 8, 2]) + bytes(20), "found 2 dimension(s) (neither images nor labels)"),
    "float": (bytes([0, 0, 13, 3]) + IMAGES[4:], "found element type 0x0d (float32)"),
    "odd type": (bytes([0, 0, 7, 3]) + IMAGES[4:], "found element type 0x07 (unknown)"),
    "foreign": (FOREIGN, "found a foreign file starting with 3c 21 44 4f"),
    "byte order": (bytes([3, 8, 0, 0]) + IMAGES[4:], "found a foreign file starting with 03 08 00 00"),
    "empty": (b"", "found only 0 bytes (truncated)"),
    "header cut": (IMAGES[:10], "expected a header of 16 bytes, found 10 bytes in all (truncated)"),
    "no images": (IMAGES[:4] + bytes(12), "found the empty shape [0, 0, 0]"),
    "huge": (IMAGES[:4] + b"\xff" * 12, "found 16 bytes (truncated)"),
    "gzip cut": (PACKED[:-9], "expected a complete gzip stream, found a damaged one"),
    "gzip bit flipped": (PACKED[:-8] + b"\x55" + PACKED[-7:], "expected a complete gzip stream"),
    "gzip with a tail": (PACKED + b"tail", "expected a complete gzip stream"),
    "gzip of foreign": (gzip.compress(FOREIGN), "found a foreign file starting with 3c 21 44 4f"),
}


@pytest.mark.parametrize(("data", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_images(tmp_path: Path, data: bytes, text: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(data)
    with pytest.raises(DatasetError) as refusal:
        read_images(path)
    message = str(refusal.value)
    assert message.startswith(f"{path}: expected ")
    assert text in message
    assert message.endswith("or load with download=true into an empty folder.")


def test_images_are_no_labels(tmp_path: Path) -> None:
    path = tmp_path / "train-labels-idx1-ubyte"
    path.write_bytes(IMAGES)
    with pytest.raises(DatasetError, match=r"uint8 labels .*, found 3 dimension\(s\) \(images\)"):
        read_labels(path)


def test_no_more_is_unpacked_than_the_header_declares(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(IMAGES + bytes(50 * 2**20), compresslevel=1))
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match=r"found 23 bytes \(too long\)"):
            read_images(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**22


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(DatasetError, match="found no such file"):
            read_images(path)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 2**31),
    ending=st.sampled_from(["", ".gz"]),
)
def test_round_trip(shape: tuple[int, int, int], seed: int, ending: str) -> None:
    images = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"images{ending}"
        write_idx(path, images)
        assert torch.equal(read_images(path), images)
