"""ResNet-18 for photographs and ResNet-20 for images of 32 x 32: sums with what came before."""

from collections.abc import Sequence

from .. import nn
from ..nn import functional as F
from ..tensor import Tensor
from .images import he_filters, scaled, sides
from .registry import model


class BasicBlock(nn.Module):
    """relu(two normed convolutions of x, plus x): He et al. 2016, figure 2; torchvision's names.

    x (N, H, W, before) -> (N, H / stride, W / stride, after). downsample: what x is sent through
    where the sum needs another shape.
    """

    def __init__(
        self, before: int, after: int, stride: int = 1, downsample: nn.Module | None = None
    ):
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """x (N, H, W, before) -> (N, H / stride, W / stride, after)."""
        y = self.bn1(self.conv1(x), relu=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))

    def flops(self, x: Tensor, y: Tensor) -> int:
        """The sum and two relus: layers within have rows of their own."""
        return 3 * y.size


class ResNet(nn.Sequential):
    """`conv1`, `bn1`, `relu`, `layer1` and so on; then, with a top, `avgpool` and `fc`."""

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    fc: nn.Linear


class Subsample(nn.Module):
    """Every other pixel, and zeros for the new channels: a shortcut without parameters."""

    def __init__(self, channels: int):
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """x (N, H, W, C) -> (N, H / 2, W / 2, channels)."""
        new = self.channels - x.shape[3]
        return F.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (0, new)))

    def flops(self, x: Tensor, y: Tensor) -> int:
        """None: numbers are copied."""
        return 0


def _stages(channels: Sequence[int], number: int, projection: bool) -> dict[str, nn.Module]:
    """Stages of so many blocks; each but the first halves the image."""
    stages: dict[str, nn.Module] = {}
    before = channels[0]
    for stage, after in enumerate(channels, 1):
        blocks: list[nn.Module] = []
        for block in range(number):
            halves = stage > 1 and block == 0
            shortcut: nn.Module | None = None
            if halves and projection:
                pixel = nn.Conv2d(before, after, 1, stride=2, bias=False)
                shortcut = nn.Sequential(pixel, nn.BatchNorm2d(after))
            elif halves:
                shortcut = Subsample(after)
            blocks.append(BasicBlock(before, after, 1 + halves, shortcut))
            before = after
        stages[f"layer{stage}"] = nn.Sequential(*blocks)
    return stages


def _whole(parts: dict[str, nn.Module], features: int, classes: int, top: bool) -> ResNet:
    if top:
        parts |= {"avgpool": nn.GlobalAvgPool2d(), "fc": nn.Linear(features, classes)}
    network = ResNet(parts)
    he_filters(network)
    return network


@model
def ResNet18(
    *,
    include_top: bool = True,
    input_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    width: float = 1.0,
    small_images: bool = False,
) -> ResNet:
    """ResNet-18: x (N, H, W, C) -> logits (N, classes). He et al. 2016, table 1.

    11,689,512 parameters, under torchvision's names. width: the channels of every convolution.
    small_images: it begins with a convolution of 3 x 3 instead of one of 7 x 7 with stride 2 and a
    pool. include_top=False ends before the pooling: (N, H / 32, W / 32, 512).
    """
    before = sides("ResNet18", input_shape, 1)[2]
    channels = [scaled(n, width) for n in (64, 128, 256, 512)]
    size, stride = (3, 1) if small_images else (7, 2)
    parts: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(before, channels[0], size, stride, padding=size // 2, bias=False),
        "bn1": nn.BatchNorm2d(channels[0]),
        "relu": nn.ReLU(),
    }
    if not small_images:
        parts["maxpool"] = nn.MaxPool2d(3, 2, padding=1)
    parts |= _stages(channels, 2, projection=True)
    return _whole(parts, channels[-1], classes, include_top)


@model
def ResNet20(
    *,
    include_top: bool = True,
    input_shape: Sequence[int] = (32, 32, 3),
    classes: int = 10,
    width: float = 1.0,
    projection: bool = False,
) -> ResNet:
    """ResNet-20: x (N, H, W, C) -> logits (N, classes). He et al. 2016, section 4.2.

    269,722 parameters, the paper's 0.27 million: a shortcut to more channels fills them up with
    zeros (option A). projection: it is a convolution of one pixel instead (option B; 272,474).
    """
    before = sides("ResNet20", input_shape, 1)[2]
    channels = [scaled(n, width) for n in (16, 32, 64)]
    parts: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(before, channels[0], 3, padding=1, bias=False),
        "bn1": nn.BatchNorm2d(channels[0]),
        "relu": nn.ReLU(),
    }
    parts |= _stages(channels, 3, projection)
    return _whole(parts, channels[-1], classes, include_top)
