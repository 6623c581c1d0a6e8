"""IDX files (the format of MNIST and Fashion-MNIST), plain or gzipped.

Layout: two zero bytes, element type (0x08 = uint8), number of dimensions, one
big-endian uint32 per dimension, then the elements in row-major order.
"""

import gzip
import hashlib
import io
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from .errors import DatasetError

UINT8 = 0x08
MAX_BYTES = 2**31
"""Size of the largest file that is unpacked (bytes)."""
TYPES = {0x08: "uint8", 0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
KINDS = {1: "labels", 3: "images"}
FETCH_REMEDY = "Fetch the file again, or load with download=true into an empty folder."
FILE_REMEDY = "Put the right file under this name, or load with download=true into an empty folder."


def read_images(path: str | Path) -> Tensor:
    """Read an image file into uint8 [N, H, W].

    Raises:
        DatasetError: the file is missing, damaged, or not an IDX file of uint8 images.
    """
    return parse_idx(Path(path), read_raw(Path(path)), rank=3)


def read_labels(path: str | Path) -> Tensor:
    """Read a label file into uint8 [N].

    Raises:
        DatasetError: the file is missing, damaged, or not an IDX file of uint8 labels.
    """
    return parse_idx(Path(path), read_raw(Path(path)), rank=1)


def read_raw(path: Path) -> bytes:
    """Read the IDX bytes of a file; gzip is recognised by content, not by name.

    Raises:
        DatasetError: the file is missing or its gzip stream is damaged.
    """
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise _refusal(path, "an IDX file", "no such file", FILE_REMEDY) from error
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        with gzip.open(io.BytesIO(data)) as stream:
            head = stream.read(16)
            return head + stream.read(max(_declared_length(head) + 1 - len(head), 0))
    except (OSError, EOFError, zlib.error) as error:
        raise _refusal(path, "a complete gzip stream", f"a damaged one ({error})", FETCH_REMEDY) from error


def _declared_length(head: bytes) -> int:
    """Return the length of a file (bytes) that its first 16 bytes declare; 0 if they declare none."""
    rank = head[3] if len(head) > 3 else 0
    start = 4 + 4 * rank
    if rank not in KINDS or len(head) < start:
        return 0
    length = start + math.prod(struct.unpack(f">{rank}I", head[4:start]))
    return length if length <= MAX_BYTES else 0


def parse_idx(path: Path, data: bytes, rank: int) -> Tensor:
    """Turn IDX bytes into a uint8 tensor of `rank` dimensions (1: labels [N], 3: images [N, H, W]).

    `path` is used only in errors.

    Raises:
        DatasetError: wrong magic number, element type, rank or length.
    """
    _check_magic(path, data, rank)
    start = 4 + 4 * rank
    if len(data) < start:
        raise _refusal(path, f"a header of {start} bytes", f"{len(data)} bytes in all (truncated)", FETCH_REMEDY)
    shape = struct.unpack(f">{rank}I", data[4:start])
    if 0 in shape:
        raise _refusal(path, f"at least one of {KINDS[rank]}", f"the empty shape {list(shape)}", FILE_REMEDY)
    expected = start + math.prod(shape)
    if len(data) != expected:
        state = "truncated" if len(data) < expected else "too long"
        raise _refusal(path, f"{expected} bytes for shape {list(shape)}", f"{len(data)} bytes ({state})", FETCH_REMEDY)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=start).reshape(shape)


def write_idx(path: str | Path, values: Tensor) -> None:
    """Write a uint8 tensor of 1 to 255 dimensions as an IDX file, gzipped if the name ends in .gz.

    The gzip header carries no time, so equal tensors give equal bytes.
    """
    path = Path(path)
    if values.dtype != torch.uint8:
        raise DatasetError(f"{path}: only uint8 can be written, got {values.dtype}")
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, UINT8, values.ndim, *values.shape)
    data = header + values.contiguous().numpy().tobytes()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def raw_md5(data: bytes) -> str:
    """Return the MD5 (hex) of an uncompressed file, which identifies published releases."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _check_magic(path: Path, data: bytes, rank: int) -> None:
    expected = f"an IDX file of uint8 {KINDS[rank]} (first bytes 00 00 08 {rank:02x})"
    if len(data) < 4:
        raise _refusal(path, expected, f"only {len(data)} bytes (truncated)", FETCH_REMEDY)
    if data[:2] != b"\0\0":
        raise _refusal(path, expected, f"a foreign file starting with {data[:4].hex(' ')}", FILE_REMEDY)
    if data[2] != UINT8:
        name = TYPES.get(data[2], "unknown")
        raise _refusal(path, expected, f"element type 0x{data[2]:02x} ({name})", FILE_REMEDY)
    if data[3] != rank:
        name = KINDS.get(data[3], "neither images nor labels")
        raise _refusal(path, expected, f"{data[3]} dimension(s) ({name})", FILE_REMEDY)


def _refusal(path: Path, expected: str, content: str, remedy: str) -> DatasetError:
    return DatasetError(f"{path}: expected {expected}, found {content}. {remedy}")
