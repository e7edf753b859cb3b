"""Networks of minidl.keras in files: safetensors, and Keras's HDF5. Never a pickle.

`front` has what a file may name: layers as KINDS, and as HOMES the modules with the rest.
"""

import json
import os
from typing import Any

from . import h5, keras_network, npz, tensors

FORMATS = {".safetensors": tensors, ".npz": npz, ".h5": None, ".hdf5": None}  # None: Keras's own
fill = keras_network.fill
STATE = "optimizer/"  # what the names of an optimizer's tensors begin with


def _format(path: Any) -> Any:
    """The file that reads and writes files of that name; None for Keras's own."""
    suffix = os.path.splitext(os.fspath(path))[1]
    if suffix not in FORMATS:
        raise ValueError(f"{path}: minidl.keras reads and writes {', '.join(FORMATS)}")
    return FORMATS[suffix]


def save(model: Any, path: Any, front: Any) -> None:
    """Write architecture, weights, compile's arguments and the optimizer's state."""
    form, plan = _format(path), model._compiled
    config, training, held = keras_network.described(model, front.KINDS), None, {}
    if plan is not None:
        training = keras_network.training(plan.optimizer, plan.loss, plan.metrics, front.HOMES)
        held = keras_network.state(model)
    try:
        json.dumps([config, training])
    except TypeError as error:
        raise ValueError(f"{path}: {error}; {keras_network.NO_FUNCTIONS}") from error
    if form is None:
        weights = keras_network.by_layer(model)
        h5.write_keras(path, h5.KerasFile(weights, config, training, held))
    else:
        notes = {"config": config, "training": training, "state": list(held)}
        state = {STATE + name: array for name, array in held.items()}
        form.save_tensors(model.state_dict() | state, path, {"keras": notes})


def load_model(path: Any, compile: bool, front: Any) -> Any:
    """Read a network that save, or Keras, wrote, ready to be trained further.

    .safetensors or .h5. ValueError for damaged files, and for what minidl does not have.
    """
    form, state = _format(path), dict[str, Any]()
    if form is None:
        file = h5.read_keras(path)
    else:
        state, metadata = form.content(path)
        notes = (metadata or {}).get("keras", {})
        held = {name: state.pop(STATE + name).numpy() for name in notes.get("state", [])}
        file = h5.KerasFile({}, notes.get("config"), notes.get("training"), held)
    if file.config is None:
        raise ValueError(f"{path}: holds weights, but no network; model.load_weights reads them")
    try:
        model = keras_network.built(file.config, front.KINDS)
        if form is None:
            fill(model, keras_network.pairs(model, file.layers))
        else:
            model.load_state_dict(state)
        if compile and file.training:
            model.compile(*keras_network.trained(file.training, front.HOMES))
            keras_network.restore(model, file.optimizer)
    except (TypeError, LookupError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: cannot build the network it describes: {error}") from error
    return model


def save_weights(model: Any, path: Any) -> None:
    """Write the weights alone: as Keras does where the name ends in .h5 or .weights.h5."""
    if form := _format(path):
        form.save_tensors(model.state_dict(), path)
    elif os.fspath(path).endswith(".weights.h5"):
        found = {
            at: (name, [w.numpy_view().copy() for w in own])
            for at, name, own in keras_network.places(model)
        }
        if model._compiled and (held := keras_network.state(model)):
            found["optimizer"] = model.optimizer.name, [*held.values()]
        h5.write_weights(path, found)
    else:
        h5.write_keras(path, h5.KerasFile(keras_network.by_layer(model)))


def load_weights(model: Any, path: Any) -> None:
    """Read weights, of minidl or of Keras, into a network of the same layers."""
    try:
        if form := _format(path):
            state = form.content(path)[0]
            model.load_state_dict({k: v for k, v in state.items() if not k.startswith(STATE)})
        elif h5.is_numbered(path):
            given = h5.read_weights(path)
            places = keras_network.places(model)
            fill(model, [(name, own, given.get(at, [])) for at, name, own in places])
            if model._compiled and "optimizer" in given:
                keras_network.restore(model, dict(enumerate(given["optimizer"])))
        else:
            fill(model, keras_network.pairs(model, h5.read_keras(path).layers))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
