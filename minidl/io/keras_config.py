"""Keras's description of a network, JSON, as a list of calls of layers, and back.

Read are the forms of Keras 2 and 3, written is that of Keras 3.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# What arguments of Keras's layers say that changes nothing here.
_UNUSED = {
    "dtype", "seed", "batch_input_shape", "build_input_shape", "build_config", "renorm_momentum",
    "implementation", "ragged", "sparse", "optional",
}  # fmt: skip
_NEUTRAL: tuple[Any, ...] = None, False, 0, "channels_last", (), {}
_DEFAULTS = {
    "axis": -1, "reduction": "sum_over_batch_size", "ema_momentum": 0.99,
    "activation": "tanh", "recurrent_activation": "sigmoid", "reset_after": True,  # of a GRU
}  # fmt: skip


@dataclass
class Program:
    """A network as calls: layers by name, then which layer is called on the results of which calls.

    A call is (name, inputs, options); inputs, like `inputs` and `outputs` of the whole, are numbers
    of calls, or lists of them. The call of an input layer has the inputs None.
    """

    layers: dict[str, tuple[str, dict[str, Any]]]
    calls: list[tuple[str, Any, dict[str, Any]]]
    inputs: Any
    outputs: Any


def is_network(config: Any) -> bool:
    """Whether it describes several layers, and not one."""
    return config["class_name"] in ("Sequential", "Functional", "Model")


def arguments(kind: str, config: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a layer, loss, optimizer ... that minidl knows, of a description by Keras.

    known: what it takes, with the defaults. ValueError for what would change its result.
    """
    given = dict(config)
    if kind == "InputLayer":
        given["shape"] = (given.pop("batch_shape", None) or given["batch_input_shape"])[1:]
    found = {}
    for name, value in given.items():
        if name.endswith("_initializer"):
            continue  # the weights are in the file
        value = tuple(value) if isinstance(value, list) else value
        if name in known:
            found[name] = value[0] if name == "axis" and isinstance(value, tuple) else value
        elif name not in _UNUSED and value not in (*_NEUTRAL, _DEFAULTS.get(name)):
            raise ValueError(f"{kind} has {name}={value!r}, which minidl does not know")
    return found


def sequence(config: Any) -> list[dict[str, Any]]:
    """The layers of a Sequential, an InputLayer first where the shape of the data is known."""
    layers = config["config"]
    layers = list(layers["layers"] if isinstance(layers, dict) else layers)
    shape = layers[0]["config"].get("batch_input_shape") if layers else None
    if shape and layers[0]["class_name"] != "InputLayer":
        layers.insert(0, {"class_name": "InputLayer", "config": {"batch_input_shape": shape}})
    return layers


def program(config: Any) -> Program:
    """The calls of a network of Keras's functional kind, each behind those that it needs."""
    whole = config["config"]
    layers = {one["config"]["name"]: (one["class_name"], one["config"]) for one in whole["layers"]}
    waiting = [
        (one["config"]["name"], i, *_node(node))
        for one in whole["layers"]
        for i, node in enumerate(one["inbound_nodes"] or [None])
    ]
    place: dict[tuple[str, int], int] = {}
    calls: list[tuple[str, Any, dict[str, Any]]] = []
    while waiting:
        ready = [w for w in waiting if all(source in place for source in _leaves(w[2]))]
        if not ready:
            raise ValueError(f"the layers {', '.join(w[0] for w in waiting)} wait for each other")
        for name, i, sources, options in ready:
            place[name, i] = len(calls)
            inputs = None if sources is None else _swapped(sources, place.__getitem__)
            calls.append((name, inputs, options))
        waiting = [w for w in waiting if (w[0], w[1]) not in place]
    ends = (
        _swapped(_ends(whole[key]), place.__getitem__) for key in ("input_layers", "output_layers")
    )
    return Program(layers, calls, *ends)


def functional(name: str, trainable: bool, program: Program, shapes: list[Any]) -> dict[str, Any]:
    """Keras's description of a network. shapes: (shape, dtype) of what each call returns."""
    count: dict[str, int] = {}
    source = []
    for layer, _, _ in program.calls:
        source.append([layer, count.get(layer, 0), 0])
        count[layer] = count.get(layer, 0) + 1

    def tensor(number: int) -> dict[str, Any]:
        shape, dtype = shapes[number]
        history = {"shape": list(shape), "dtype": dtype, "keras_history": source[number]}
        return {"class_name": "__keras_tensor__", "config": history}

    layers = []
    for layer, (kind, config) in program.layers.items():
        nodes = [
            {"args": [_swapped(inputs, tensor)], "kwargs": options}
            for own, inputs, options in program.calls
            if own == layer and inputs is not None
        ]
        layers.append({"class_name": kind, "config": config, "name": layer, "inbound_nodes": nodes})
    ends = (_swapped(nest, source.__getitem__) for nest in (program.inputs, program.outputs))
    config = dict(zip(("input_layers", "output_layers"), ends))
    return {
        "class_name": "Functional",
        "config": {"name": name, "trainable": trainable, "layers": layers, **config},
    }


def _node(node: Any) -> tuple[Any, dict[str, Any]]:
    """Of one call its inputs, as (layer, number of its call), and its options."""
    if node is None:
        return None, {}
    if isinstance(node, dict):  # Keras 3
        args = [_swapped(arg, _history) for arg in node["args"]]
        inputs, options = args[0] if len(args) == 1 else args, node["kwargs"]
    else:  # Keras 2: a list of [layer, call, output, options]
        inputs = [(name, call) for name, call, *_ in node]
        inputs = inputs[0] if len(inputs) == 1 else inputs
        options = node[0][3] if len(node[0]) > 3 else {}
    options = {name: value for name, value in options.items() if value is not None}
    if set(options) - {"training"}:
        raise ValueError(f"a layer is called with {options}, of which minidl knows training alone")
    return inputs, options


def _history(tensor: Any) -> tuple[str, int]:
    name, call, output = tensor["config"]["keras_history"]
    if output:
        raise ValueError(f"{name} has several outputs")
    return name, call


def _ends(nest: Any) -> Any:
    """The ends of a network: [layer, call, output], or a list of such."""
    if isinstance(nest[0], str):
        return (nest[0], nest[1])
    return [_ends(part) for part in nest]


def _swapped(nest: Any, function: Callable[[Any], Any]) -> Any:
    """The same lists with other leaves."""
    if isinstance(nest, list):
        return [_swapped(part, function) for part in nest]
    return function(nest)


def _leaves(nest: Any) -> list[Any]:
    if isinstance(nest, list):
        return [leaf for part in nest for leaf in _leaves(part)]
    return [] if nest is None else [nest]


_WEIGHTS: dict[str, dict[str, str]] = {
    "BatchNormalization": {"weight": "gamma", "bias": "beta"},
    "Embedding": {"weight": "embeddings"},
}
_NAMES = {
    "weight": "kernel", "running_mean": "moving_mean", "running_var": "moving_variance",
    "depthwise.weight": "depthwise_kernel", "pointwise.weight": "pointwise_kernel",
    "pointwise.bias": "bias", "recurrent": "recurrent_kernel",
}  # fmt: skip


def weight_name(kind: str, path: str) -> str:
    """Keras's name of a weight of a layer, by its path in minidl."""
    path = path.removeprefix("inner.")
    return _WEIGHTS.get(kind, {}).get(path) or _NAMES.get(path, path)


def snake(name: str) -> str:
    """Conv2D as conv2d, GlobalAveragePooling2D as global_average_pooling2d ..."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def unique(name: str, taken: dict[str, int]) -> str:
    """A name that is not taken yet, as Keras makes it: conv2d, conv2d_1, conv2d_2 ..."""
    number = taken.get(name, 0)
    taken[name] = number + 1
    return f"{name}_{number}" if number else name
