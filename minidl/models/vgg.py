"""VGG16: thirteen convolutions of 3 x 3 in five blocks, and three dense layers."""

from collections.abc import Sequence

from .. import nn
from .images import he_filters, scaled, sides
from .registry import model

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions; then a pool


class VGG(nn.Sequential):
    """`features`, convolutions and pools; then, where there is a top, `flatten`, `classifier`.

    Layers have torchvision's names.
    """

    features: nn.Sequential
    classifier: nn.Sequential

    @property
    def keras_names(self) -> dict[str, str]:
        """Keras's name of each layer that has weights, and the path here."""
        layers = dict(self.named_modules())
        convolutions = (path for path, m in layers.items() if isinstance(m, nn.Conv2d))
        dense = (path for path, m in layers.items() if isinstance(m, nn.Linear))
        blocks = enumerate(BLOCKS, 1)
        names = [f"block{b}_conv{i + 1}" for b, (_, number) in blocks for i in range(number)]
        found = dict(zip(names, convolutions))
        return found | dict(zip(("fc1", "fc2", "predictions"), dense))


@model
def VGG16(
    *,
    include_top: bool = True,
    input_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    width: float = 1.0,
    batch_norm: bool = False,
    hidden: int = 4096,
    dropout: float = 0.5,
) -> VGG:
    """VGG16: x (N, H, W, C) -> logits (N, classes). Simonyan and Zisserman 2015, column D.

    138,357,544 parameters; 14,714,688 of them in `features`, which is all that is left with
    include_top=False: (N, H / 32, W / 32, 512). width: the channels of every convolution, and
    hidden: the outputs of the first two dense layers. batch_norm: one behind each convolution,
    which then has no bias, for the norm would take it away again.
    """
    height, breadth, before = sides("VGG16", input_shape, 32)
    layers: list[nn.Module] = []
    for channels, number in BLOCKS:
        for _ in range(number):
            after = scaled(channels, width)
            layers.append(nn.Conv2d(before, after, 3, padding=1, bias=not batch_norm))
            layers += [nn.BatchNorm2d(after)] if batch_norm else []
            layers.append(nn.ReLU())
            before = after
        layers.append(nn.MaxPool2d(2))
    parts: dict[str, nn.Module] = {"features": nn.Sequential(*layers)}
    if include_top:
        flat = (height // 32) * (breadth // 32) * before
        parts["flatten"] = nn.Flatten()
        parts["classifier"] = nn.Sequential(
            nn.Linear(flat, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )
    network = VGG(parts)
    he_filters(network)
    return network
