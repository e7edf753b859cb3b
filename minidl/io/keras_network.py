"""Networks of minidl.keras in files: in Keras's words what they are, weights, and training.

Layers are told apart by what they have: networks `layers`, one around another `given["layer"]`.
"""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .. import check
from ..tensor import Tensor
from . import keras_config, keras_optimizer
from .keras_config import snake, unique

Arrays = dict[str, np.ndarray]
Homes = tuple[Any, Any, Any]  # the modules that have optimizers, losses and metrics as KINDS
NO_FUNCTIONS = (
    "a file holds names and numbers, no functions: give losses, metrics and activations by name, "
    "or use save_weights"
)
Pairs = list[tuple[str, list[Tensor], Any]]  # a layer's name, its weights, arrays for them


def described(layer: Any, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """A layer, or a network of layers with the calls between them, as Keras writes it to JSON.

    kinds: the classes that a file may name. ValueError for a layer of another one.
    """
    name = next((name for name, kind in kinds.items() if kind is type(layer)), None)
    if name is None:
        raise ValueError(f"{layer.name}: a file holds layers of minidl.keras.layers alone")
    if name == "Functional":
        return _functional(layer, kinds)
    if name == "Sequential":
        parts = [*(x.node.layer for x in layer.inputs), *layer.layers]
        config = {"name": layer.name, "trainable": layer.trainable}
        config["layers"] = [described(part, kinds) for part in parts]
    else:
        config = layer.get_config()
    if "layer" in config:
        extra = {"module": "keras.layers", "registered_name": None}
        config["layer"] = described(config["layer"], kinds) | extra
    return {"class_name": name, "config": config}


def _functional(model: Any, kinds: Mapping[str, Any]) -> dict[str, Any]:
    nodes = [*(x.node for x in model.inputs), *model.calls]
    place = {id(node.output): i for i, node in enumerate(nodes)}

    def numbers(nest: Any) -> Any:
        several = isinstance(nest, list | tuple)
        return [numbers(part) for part in nest] if several else place[id(nest)]

    calls = [(n.layer.name, numbers(n.inputs) if n.parents() else None, n.options) for n in nodes]
    parts = {one.name: tuple(described(one, kinds).values()) for one in model.layers}
    program = keras_config.Program(parts, calls, numbers(model.input), numbers(model.form))
    shapes = [(node.output.shape, node.output.dtype) for node in nodes]
    return keras_config.functional(model.name, model.trainable, program, shapes)


def built(config: dict[str, Any], kinds: Mapping[str, Any]) -> Any:
    """The layer or network that was described."""
    kind, given = config["class_name"], config["config"]
    kind = "Functional" if kind == "Model" else kind
    check.known("layer", kind, kinds)  # a file names no other class or function
    if kind == "Functional":
        model = kinds[kind](*_called(keras_config.program(config), kinds), name=given["name"])
    elif kind == "Sequential":
        parts = [built(part, kinds) for part in keras_config.sequence(config)]
        given = given if isinstance(given, dict) else {"name": None}
        model = kinds[kind](parts, name=given["name"])
    else:
        known = {**inspect.signature(kinds[kind]).parameters, "name": None, "trainable": True}
        arguments = keras_config.arguments(kind, given, known)
        if "layer" in arguments:
            arguments["layer"] = built(arguments["layer"], kinds)
        return kinds[kind](**arguments)
    vars(model)["_trainable"] = given.get("trainable", True)  # its layers have their own
    return model


def _called(program: keras_config.Program, kinds: Mapping[str, Any]) -> list[Any]:
    """Inputs and outputs of a network, after all the calls."""
    made: list[Any] = []

    def results(nest: Any) -> Any:
        return [results(part) for part in nest] if isinstance(nest, list) else made[nest]

    held = {
        name: built({"class_name": kind, "config": config}, kinds)
        for name, (kind, config) in program.layers.items()
    }
    for name, inputs, options in program.calls:
        layer = held[name]
        made.append(layer.output if inputs is None else layer(results(inputs), **options))
    return [results(program.inputs), results(program.outputs)]


# --- weights


def by_layer(model: Any) -> dict[str, Arrays]:
    """The weights of each layer as a .h5 file holds them."""
    return {
        one.name: {name: w.numpy_view().copy() for name, w in _in_order(one)}
        for one in model.layers
    }


def pairs(model: Any, given: Mapping[str, Arrays]) -> Pairs:
    """Weights, and those that a .h5 file has for them: layer by layer in order, as Keras does."""
    own = [layer for layer in model.layers if layer.weights]
    full = [(name, list(held.values())) for name, held in given.items() if held]
    if len(own) != len(full):
        raise ValueError(
            f"{model.name} has {len(own)} layers with weights, {[one.name for one in own]}, but "
            f"the file has {len(full)}, {[name for name, _ in full]}"
        )
    found = zip(own, full, strict=True)
    return [(one.name, [w for _, w in _in_order(one)], held) for one, (_, held) in found]


def fill(model: Any, pairs: Pairs) -> None:
    """Overwrite weights by arrays. ValueError, and nothing is changed, where one does not fit."""
    names = {id(weight): name for name, weight in model._tensors(True, "all")}
    state: dict[str, Any] = {}
    for layer, own, arrays in pairs:
        if len(own) != len(arrays):
            raise ValueError(f"{layer} has {len(own)} weights, but the file {len(arrays)}")
        state |= {names[id(w)]: np.asarray(a, np.float32) for w, a in zip(own, arrays)}
    model.load_state_dict(state, strict=False)


def places(layer: Any, path: str = "") -> Iterator[tuple[str, str, list[Tensor]]]:
    """Where a .weights.h5 file has the weights of each layer, its name, and the weights."""
    if hasattr(layer, "layers"):
        taken: dict[str, int] = {}
        for one in layer.layers:
            kind = snake(type(one).__name__.replace("Model", "Functional"))
            yield from places(one, f"{path}layers/{unique(kind, taken)}/")
    elif (inside := _inside(layer)) is not None:
        yield from places(inside, f"{path}layer/")
    else:
        cell = "cell/" * (type(layer).__name__ == "GRU")
        yield f"{path}{cell}".rstrip("/"), layer.name, layer.weights


def _inside(layer: Any) -> Any:
    return vars(layer).get("given", {}).get("layer")


def _named(layer: Any, prefix: str = "") -> list[tuple[str, Tensor]]:
    """The weights of a layer by Keras's names, as in base/conv2d/kernel."""
    path, inside = f"{prefix}{layer.name}/", _inside(layer)
    if hasattr(layer, "layers") or inside is not None:
        parts = layer.layers if inside is None else [inside]
        return [pair for part in parts for pair in _named(part, path)]
    kind, named = type(layer).__name__, layer._tensors(True, "all")
    return [(path + keras_config.weight_name(kind, name), weight) for name, weight in named]


def _in_order(layer: Any) -> list[tuple[str, Tensor]]:
    """The same in the order of .h5 files: what is trained comes first."""
    return sorted(_named(layer), key=lambda pair: not pair[1].requires_grad)


# --- how it is trained


def training(optimizer: Any, loss: Any, metrics: list[Any], homes: Homes) -> dict[str, Any]:
    """What compile was told, in Keras's words. ValueError for functions, and classes of a user."""
    known, notes = {kind for home in homes for kind in home.KINDS.values()}, list[Any]()
    for home, one in zip((*homes[:2], *[homes[2]] * len(metrics)), (optimizer, loss, *metrics)):
        if type(one) not in known:
            raise ValueError(f"{one.name} is no name that a file can hold; {NO_FUNCTIONS}")
        plain = notes and one.options == one.defaults and home.KINDS.get(one.name) is type(one)
        whole = {"class_name": type(one).__name__, "config": one.get_config()}
        notes.append(one.name if plain else whole)
    rest = {"loss_weights": None, "weighted_metrics": None}
    return {"optimizer_config": notes[0], "loss": notes[1], "metrics": notes[2:], **rest}


def trained(notes: dict[str, Any], homes: Homes) -> tuple[Any, Any, list[Any]]:
    """Optimizer, loss and metrics of what Keras noted, of the modules that have these."""

    def made(home: Any, one: Any) -> Any:
        if isinstance(one, str):
            return home.get(one)
        name, classes = one["class_name"], {kind.__name__: kind for kind in home.KINDS.values()}
        check.known("class", name, classes)  # a file names no other
        known = classes[name]().get_config()
        return classes[name](**keras_config.arguments(name, one["config"], known))

    measured = [made(homes[2], one) for one in notes.get("metrics") or []]
    return made(homes[0], notes["optimizer_config"]), made(homes[1], notes["loss"]), measured


def _numbers(model: Any) -> list[tuple[int, str]]:
    """Number, among the optimizer's parameters, and name of each weight that is trained."""
    number = {id(p): i for i, p in enumerate(model.parameters())}
    held = (pair for layer in model.layers for pair in _named(layer))
    return [(number[id(w)], name) for name, w in held if w.requires_grad]


def state(model: Any) -> Arrays:
    """What the optimizer keeps, as Keras does."""
    optimizer = model.optimizer
    held = {} if optimizer.inner is None else optimizer.inner.state_dict()["state"]
    rows = [(name, held[i]) for i, name in _numbers(model) if held.get(i)]
    kind, options = type(optimizer).__name__, optimizer.get_config()
    return keras_optimizer.arrays(kind, options, rows) if rows else {}


def restore(model: Any, held: Mapping[Any, np.ndarray]) -> None:
    """Bring the optimizer to where it was."""
    optimizer, numbers = model.optimizer, _numbers(model)
    if held and numbers:
        kind, options = type(optimizer).__name__, optimizer.get_config()
        states = keras_optimizer.states(kind, options, held, len(numbers))
        inner = optimizer.of(model.parameters())
        own = {number: one for (number, _), one in zip(numbers, states, strict=True) if one}
        inner.load_state_dict({**inner.state_dict(), "state": own})
