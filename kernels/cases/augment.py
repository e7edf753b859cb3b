"""Cases of image batches and what is done to them."""

import numpy as np

from .bounds import exact, magnitudes
from .case import case
from .draw import Blank, Draw, Values


@case("image_batch", bound=magnitudes)
def _image_batch(d: Draw) -> Values:
    m, height, width, c = d.size(1, 4), d.size(1, 5, 12), d.size(1, 5, 12), d.size(1, 3)
    shape = m, height, width, c
    kind = d.pick("images", "uint8", None)
    images = d.integers(shape, 0, 256, kind) if kind else d.array(shape)
    index = d.integers((d.batch(),), 0, m)
    scale, shift = d.array((c,)), d.array((c,))
    y = Blank((len(index), *shape[1:]))
    seed, epoch = d.source.integer(0, 2**64 - 1), d.pick("epoch", 0, 7)
    how = dict(seed=seed, epoch=epoch, pad=d.pick("pad", 0, 1, 2), flip=d.pick("flip", False, True))
    return dict(images=images, index=index, scale=scale, shift=shift, y=y) | how


@case("uniform_rows", bound=exact)  # 24 bits are exact in float32, too
def _uniform_rows(d: Draw) -> Values:
    index = d.integers((d.batch(),), 0, 2**40) * d.pick("", 1, 2**20 + 7)
    seed, stream = d.source.integer(0, 2**64 - 1), d.pick("stream", 2, 5)
    y = Blank((len(index), d.size(0, 9)))
    return dict(index=index, y=y, seed=seed, epoch=d.pick("epoch", 0, 7), stream=stream)


# Weights are exact but for their product: 4 terms of two products, scale and shift.
# A NaN in scale or shift would hide those in pixels.
@case(
    "affine_batch",
    bound=magnitudes,
    specials=lambda v: ["images"] if v["images"].dtype.kind == "f" else ["scale", "shift"],
)
def _affine_batch(d: Draw) -> Values:
    m, height, width, c = d.size(1, 4), d.size(1, 5, 12), d.size(1, 5, 12), d.size(1, 3)
    kind = d.pick("images", "uint8", None)
    shape = m, height, width, c
    images = d.integers(shape, 0, 256, kind) if kind else d.array(shape)
    index = d.integers((d.batch(),), 0, m)
    # whole pixels; halves, far out; and places that need every bit
    unit, reach = d.pick("", (2**32, 2), (2**31, 40), (2**25 + 4321, 128), (2**28 - 1, 25))
    matrix = d.integers((len(index), 2, 3), -reach, reach + 1) * unit
    if d.pick("", True, False):  # not far from where it was
        matrix[:, [0, 1], [0, 1]] += 2**32
    y = Blank((len(index), d.size(1, 5, 12), d.size(1, 5, 12), c))
    scale, shift = d.array((c,)), d.array((c,))
    return dict(
        images=images, index=index, matrix=matrix, scale=scale, shift=shift, y=y,
        edge=d.pick("edge", False, True),
    )  # fmt: skip


@case("cutout_", bound=exact)
def _cutout(d: Draw) -> Values:
    n, height, width, c = d.batch(), d.size(1, 5, 40), d.size(1, 5, 40), d.size(1, 3)
    corner = d.integers((n, 2), -4, max(height, width) + 2)
    size = d.pick("size", 2, 0, 1, 3, 50)
    return dict(x=d.array((n, height, width, c)), corner=corner, value=d.array((c,)), size=size)


@case("mixup", bound=magnitudes)
def _mixup(d: Draw) -> Values:
    shape = d.shape(1, 4)
    n = shape[0] if d.pick("", True, False) else d.size(0, shape[0]) if shape[0] else 0
    index = d.integers((min(n, shape[0]),), 0, shape[0])
    lam = np.minimum(d.array((len(index),), positive=True), 1)
    return dict(x=d.array(shape), index=index, lam=lam, y=Blank((len(index), *shape[1:])))
