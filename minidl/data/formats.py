"""Bytes of the formats that data sets come in -> arrays: idx, CIFAR .bin, PNG.

Plain parsing of documented layouts, every length checked before it is believed; nothing is ever
unpickled.
"""

import zlib
from collections.abc import Callable, Iterator

import numpy as np


def idx(data: bytes) -> np.ndarray:
    """Read an idx file of unsigned bytes.

    Two zeros, type 8, number of axes; big-endian 32-bit lengths; the elements in C order.
    """
    ndim = data[3] if data[:3] == b"\0\0\x08" and len(data) >= 4 else 0
    shape = tuple(np.frombuffer(data[4 : 4 + 4 * ndim], ">u4").tolist())
    if not ndim or len(shape) != ndim:
        raise ValueError(f"not an idx file of unsigned bytes: it starts with {data[:4]!r}")
    body = np.frombuffer(data, np.uint8)[4 + 4 * ndim :]
    if body.size != np.prod(shape, dtype=object):
        raise ValueError(f"idx: header says {shape}, but {body.size} elements follow")
    return body.reshape(shape).copy()  # of our own: a view of bytes could not be written to


def cifar(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Read rows of 1 label and 3 x 32 x 32 pixels -> images (N, 32, 32, 3), labels (N,)."""
    if len(data) % 3073:
        raise ValueError(f"not a CIFAR-10 .bin: {len(data)} bytes are no multiple of 3073")
    rows = np.frombuffer(data, np.uint8).reshape(-1, 3073)
    images = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), rows[:, 0].astype(np.int64)


def cifar_bytes(images: np.ndarray, labels: np.ndarray) -> bytes:
    """Write images (N, 32, 32, 3) and labels (N,) as the official rows: what cifar() reads."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.concatenate([labels.astype(np.uint8)[:, None], planes], axis=1).tobytes()


def png(data: bytes) -> np.ndarray:
    """Decode an 8-bit RGB PNG, not interlaced -> uint8 (H, W, 3). PNG specification, 3rd ed."""
    header, packed = b"", []
    for kind, body in _chunks(data):
        if kind == b"IHDR":
            header = body
        elif kind == b"IDAT":
            packed.append(body)
    if header[8:] != bytes([8, 2, 0, 0, 0]):
        raise ValueError(f"PNG: only 8-bit RGB without interlacing is read, header {header!r}")
    width, height = np.frombuffer(header[:8], ">u4").tolist()
    size = height * (1 + 3 * width)
    pixels = zlib.decompressobj().decompress(b"".join(packed), size + 1)
    if len(pixels) != size:
        raise ValueError(f"PNG: {width} x {height} needs {size} bytes, got {len(pixels)}")
    rows = np.frombuffer(pixels, np.uint8).reshape(height, 1 + 3 * width)
    return _unfilter(rows[:, 0], rows[:, 1:].reshape(height, width, 3).copy())


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, body) of each chunk of a PNG, its CRC checked."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError(f"not a PNG: it starts with {data[:8]!r}")
    start, kind = 8, b""
    while kind != b"IEND":
        size = int.from_bytes(data[start : start + 4], "big")
        chunk, crc = data[start + 4 : start + 8 + size], data[start + 8 + size : start + 12 + size]
        if len(crc) != 4 or zlib.crc32(chunk) != int.from_bytes(crc, "big"):
            raise ValueError(f"PNG: the chunk at byte {start} is truncated or damaged")
        kind = chunk[:4]
        yield kind, chunk[4:]
        start += 12 + size


def _unfilter(filters: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Undo each row's filter (None, Sub, Up, Average, Paeth) in place: sums modulo 256."""
    above = np.zeros_like(x[0])
    for kind, row in zip(filters.tolist(), x, strict=True):
        if kind == 1:
            np.cumsum(row, axis=0, dtype=np.uint8, out=row)
        elif kind == 2:
            row += above
        elif kind in (3, 4):
            predict = _average if kind == 3 else _paeth
            for values, over in zip(row.T, above.T, strict=True):  # one channel at a time
                values[:] = _predicted(values.tolist(), over.tolist(), predict)
        elif kind:
            raise ValueError(f"PNG: unknown filter {kind}")
        above = row
    return x


def _predicted(
    values: list[int], above: list[int], predict: Callable[[int, int, int], int]
) -> list[int]:
    left = corner = 0
    for i, up in enumerate(above):
        left = values[i] = (values[i] + predict(left, up, corner)) & 255
        corner = up
    return values


def _average(left: int, up: int, corner: int) -> int:
    return (left + up) >> 1


def _paeth(left: int, up: int, corner: int) -> int:
    # of the three, the one nearest to left + up - corner; ties in this order
    return min((abs(up - corner), 0, left), (abs(left - corner), 1, up), (
        abs(left + up - 2 * corner), 2, corner
    ))[2]  # fmt: skip
