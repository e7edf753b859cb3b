"""Networks by name: `mnist_cnn()`, `VGG16(include_top=False)`, `build("resnet18", classes=10)`.

All end in logits: the loss does the softmax, or the sigmoid. Each file is read when its first
network is asked for.
"""

from ..later import later
from .registry import model

__getattr__, _later = later(
    __name__,
    catalog="build names",
    mnist="mnist_cnn mnist_mlp",
    cifar="cifar10_cnn",
    lenet="LeNet",
    vgg="VGG VGG16",
    mobilenet="MobileNet",
    resnet="BasicBlock ResNet ResNet18 ResNet20",
    features="Features",
    factorize="low_rank",
)
__all__ = ["model", *_later]
