"""Cases of image batches."""

from .bounds import magnitudes
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
