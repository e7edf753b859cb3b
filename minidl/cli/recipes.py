"""How the command line trains each network."""

from dataclasses import dataclass, field
from typing import Any

from .. import data
from ..data import Dataset, Normalize, PadCrop

MNIST = Normalize(0.1307, 0.3081)  # mean and standard deviation of the training pixels
BYTES = Normalize(0.0, 1.0)  # bytes count from 0 to 1, no more


@dataclass(frozen=True)
class Recipe:
    """A network, its data and how it is trained."""

    data: str  # of minidl.data: mnist, cifar10
    epochs: int
    batch_size: int
    optimizer: str
    lr: float  # at its highest, with one_cycle
    one_cycle: bool = False
    normalize: Normalize = MNIST
    augment: tuple[Any, ...] = ()
    network: dict[str, Any] = field(default_factory=dict)  # arguments of its factory


# One for the digits that come with minidl, one for the full set.
RECIPES: dict[str, dict[str, Recipe]] = {
    "mnist-cnn": {
        "digits": Recipe(
            "mnist", 12, 32, "adam", 4e-3, True,
            augment=(PadCrop(2),),
            network={"channels": (16, 32, 64), "dropout": 0.2, "batch_norm": True},
        ),
        "full": Recipe("mnist", 5, 64, "adam", 1e-3),
    },
    "mnist-mlp": {
        "digits": Recipe("mnist", 10, 64, "sgd", 0.01),
        "full": Recipe("mnist", 10, 64, "sgd", 0.01),
    },
    "cifar10-cnn": {
        "full": Recipe("cifar10", 10, 64, "adam", 1e-3, normalize=BYTES),
    },
}  # fmt: skip


def find(model: str, where: str | None) -> tuple[Recipe, Dataset, Dataset]:
    """The recipe of a model, and its training and test data.

    where: "digits", "full" (downloaded before), a folder, or None for the first of the recipes.
    """
    recipes = RECIPES[model]
    where = where or next(iter(recipes))
    if where == "digits" and "digits" not in recipes:
        raise ValueError(f"{model} learns photographs, not digits: leave out --data, or give full")
    if where == "digits":
        return recipes["digits"], data.digits("train"), data.digits("test")
    recipe = recipes["full"]
    read, root = getattr(data, recipe.data), None if where == "full" else where
    return recipe, read("train", root=root), read("test", root=root)
