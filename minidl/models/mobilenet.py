"""MobileNet v1: each convolution of 3 x 3 looks at one channel, one of 1 x 1 then mixes them."""

from collections.abc import Sequence
from typing import Any

from .. import check, nn
from .images import he_filters, scaled, sides
from .registry import model

ACTIVATIONS = {"relu6": "ReLU6", "relu": "ReLU"}


@model
def MobileNet(
    *,
    include_top: bool = True,
    input_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    alpha: float = 1.0,
    blocks: Sequence[int] = (1, 2, 2, 6, 2),
    dropout: float = 1e-3,
    stride: int = 2,
    activation: str = "relu6",
    padding: Any = "same",
) -> nn.Sequential:
    """MobileNet: x (N, H, W, C) -> logits (N, classes). Howard et al. 2017, table 1.

    4,231,976 parameters and 21,888 running statistics, together the 4.25 million of Keras, whose
    names the layers have. alpha: the channels of every layer. blocks: so many in each stage; a
    stage halves the image, but for the first, and has 64, 128, 256 ... channels. stride: of the
    first convolution, 1 for images of 32 x 32. padding: "same" as Keras does it, which is behind
    images that are halved, or 1 on all sides. classes=1 gives one logit, for
    binary_cross_entropy_with_logits. include_top=False ends before the pooling: (N, H / 32,
    W / 32, 1024).
    """
    check.known("activation of MobileNet", activation, ACTIVATIONS)
    if isinstance(blocks, int) or min(blocks, default=0) < 1:
        hint = "(3, 3, 3) is three stages of three"
        check.fail("MobileNet", f"blocks is {blocks}, but says how many each stage has", hint)
    before, after = sides("MobileNet", input_shape, 1)[2], scaled(32, alpha)
    layers: dict[str, nn.Module] = {}

    def add(name: str, convolution: nn.Module, channels: int) -> None:
        layers[name] = convolution
        layers[f"{name}_bn"] = nn.BatchNorm2d(channels, eps=1e-3)
        layers[f"{name}_relu"] = getattr(nn, ACTIVATIONS[activation])()

    add("conv1", nn.Conv2d(before, after, 3, stride, padding, bias=False), after)
    steps = [(s, s > 0 and b == 0) for s, number in enumerate(blocks) for b in range(number)]
    for i, (stage, halves) in enumerate(steps, 1):
        before, after = after, scaled(64 << stage, alpha)
        behind = ((0, 1), (0, 1)) if halves and padding == "same" else padding
        depthwise = nn.DepthwiseConv2d(before, 3, 1 + halves, behind, bias=False)
        add(f"conv_dw_{i}", depthwise, before)
        add(f"conv_pw_{i}", nn.Conv2d(before, after, 1, bias=False), after)
    if include_top:
        layers["global_average_pooling2d"] = nn.GlobalAvgPool2d()
        layers["dropout"] = nn.Dropout(dropout)
        layers["conv_preds"] = nn.Linear(after, classes)  # Keras: a convolution of one pixel
    network = nn.Sequential(layers)
    he_filters(network)
    return network
