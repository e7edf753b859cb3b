"""LeNet-5, the network that read the digits of bank cheques."""

from collections.abc import Sequence

from .. import nn
from .images import sides
from .registry import model


@model
def LeNet(input_shape: Sequence[int] = (28, 28, 1), classes: int = 10) -> nn.Sequential:
    """LeNet-5 as it is built today, for grey images of 28 x 28; 61,706 parameters.

    Images get a border of 2, so that the first convolution sees the paper's 32 x 32. The paper
    (LeCun et al. 1998, section II.B) has 60,000: each map of C3 sees a part of those before it
    (900 fewer), pools have coefficients (44 more), and the outputs are fixed bitmaps (850 fewer).
    """
    height, width, channels = sides("LeNet", input_shape, 12)
    rows, columns = ((n // 2 - 4) // 2 for n in (height, width))
    return nn.Sequential(
        {
            "features": nn.Sequential(
                nn.Conv2d(channels, 6, 5, padding=2),
                nn.Tanh(),
                nn.AvgPool2d(2),
                nn.Conv2d(6, 16, 5),
                nn.Tanh(),
                nn.AvgPool2d(2),
            ),
            "flatten": nn.Flatten(),
            "classifier": nn.Sequential(
                nn.Linear(rows * columns * 16, 120),
                nn.Tanh(),
                nn.Linear(120, 84),
                nn.Tanh(),
                nn.Linear(84, classes),
            ),
        }
    )
