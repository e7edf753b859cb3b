"""Networks: graphs of layers, and layers one after the other."""

from collections import Counter
from typing import Any

from .. import nn
from ..io.keras_config import unique
from ..nn.summary import _bytes
from ..tensor import Tensor
from .layer import NAMES, Input, InputLayer, Layer
from .symbols import KerasTensor, flat, graph, mapped
from .training import Trained


class Model(Trained, Layer):
    """The layers between symbolic inputs and outputs, as one layer that can be trained."""

    save: Any  # these three are hung on in files.py
    save_weights: Any
    load_weights: Any

    def __init__(
        self, inputs: Any = None, outputs: Any = None, name: str | None = None, **options: Any
    ):
        super().__init__(name=name or unique("functional", NAMES), **options)
        for what, nest in (("inputs", inputs), ("outputs", outputs)):
            wrong = [part for part in flat(nest) if not isinstance(part, KerasTensor)]
            if wrong or not list(flat(nest)):
                given = type(wrong[0]).__name__ if wrong else "nothing"
                raise TypeError(
                    f"Model: {what} are what Input(...) and calls of layers return, not {given}; a "
                    "network of your own kind is a minidl.nn.Module"
                )
        self.layers: Any = nn.Sequential()
        self.connect(inputs, outputs)

    def connect(self, inputs: Any, outputs: Any) -> None:
        """Take over the layers that lead from inputs to outputs."""
        self.inputs, self.outputs, self.form = list(flat(inputs)), list(flat(outputs)), outputs
        nodes = graph(self.inputs, self.outputs)
        for layer in dict.fromkeys(node.layer for node in nodes):
            self.hold(layer)
        ends = {id(x) for x in self.inputs}
        self.calls = [node for node in nodes if id(node.output) not in ends]
        self.uses = Counter(id(x) for node in self.calls for x in node.parents())
        self.uses += Counter(id(x) for x in self.outputs)
        self.built = True

    def hold(self, layer: Layer) -> None:
        """Keep a layer by its name."""
        if getattr(self.layers, layer.name, layer) is not layer:
            raise ValueError(f"{self.name}: two layers are called {layer.name!r}")
        setattr(self.layers, layer.name, layer)

    def call(self, x: Any, logits: bool = False) -> Any:
        """What the layers make of x. logits: without the softmax or sigmoid at the end."""
        values, left = self._given(list(flat(x))), self.uses.copy()
        for node in self.calls:
            end = logits and node.output is self.outputs[0]
            options = {**node.options, "logits": True} if end else node.options
            inputs = mapped(node.inputs, lambda t: values[id(t)])
            values[id(node.output)] = node.layer(inputs, **options)
            left.subtract(id(t) for t in node.parents())
            for done in (p for p in list(values) if not left[p]):
                del values[done]  # what nobody needs any more must not fill the memory
        return mapped(self.form, lambda t: values[id(t)])

    def _given(self, x: list[Tensor]) -> dict[int, Tensor]:
        """The data by their Inputs. ValueError where they have another shape."""
        wanted, values = [place.shape for place in self.inputs], {}
        if len(x) != len(wanted):
            raise ValueError(f"{self.name}: takes {len(wanted)} inputs {wanted}, got {len(x)}")
        for place, value, shape in zip(self.inputs, x, wanted, strict=True):
            same = (n in (None, m) for n, m in zip(shape[1:], value.shape[1:]))
            if len(value.shape) != len(shape) or not all(same):
                grey = len(shape) == 4 and shape[3] == 1 and value.shape[1:] == shape[1:3]
                hint = "; grey images need a channel: x[..., None]" * grey
                if shape[3:] == (3,) and value.shape[3:] == (1,):
                    hint = "; grey images take x.repeat(3, axis=3), VGG16 at least 32 x 32: np.pad"
                raise ValueError(f"{self.name}: takes {shape}, but x is {value.shape}{hint}")
            whole = value.dtype.kind in "iu" and place.dtype.startswith("float")
            values[id(place)] = value.astype("float32") if whole else value
        return values

    @property
    def ends_in(self) -> str:  # type: ignore[override]
        """What its last layer ends in."""
        return self.outputs[0].node.layer.ends_in if len(self.outputs) == 1 else ""

    def last_layer(self) -> Layer:
        """The layer that makes the output, inside networks inside it."""
        layer = self.outputs[0].node.layer
        return layer.last_layer() if isinstance(layer, Model) else layer

    output: Any = property(lambda self: self.form, doc="Its symbolic output, or the nest of them.")
    input: Any = property(
        lambda self: self.inputs[0] if len(self.inputs) == 1 else self.inputs,
        doc="Its symbolic input, or the list of them.",
    )

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """A layer by name, or by its place."""
        if index is not None:
            return self.layers[index]
        names = [layer.name for layer in self.layers]
        if name not in names:
            raise ValueError(f"{self.name} has no layer {name!r}; it has {', '.join(names)}")
        return getattr(self.layers, str(name))

    def summary(self, print_fn: Any = print) -> None:  # type: ignore[override]
        """Print a table of the layers: their names, kinds, output shapes and numbers of weights."""
        rows = [("Layer (type)", "Output Shape", "Param #")]
        for layer in self.layers:
            shape = str(layer.output_shape) if layer._nodes else "?"
            count = f"{layer.count_params():,}" if layer.built else "?"
            rows.append((f"{layer.name} ({type(layer).__name__})", shape, count))
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in rows]
        rule = "-" * (sum(widths) + 4)
        lines = [f'Model: "{self.name}"', lines[0], rule, *lines[1:], rule]
        for what in ("weights", "trainable_weights", "non_trainable_weights"):
            title = what[:-8].strip("_").replace("_", "-").capitalize() or "Total"
            n = sum(w.size for w in getattr(self, what))
            lines.append(f"{title} params: {n:,} ({_bytes(4 * n)})")
        print_fn("\n".join(lines))


class Sequential(Model):
    """Layers one after the other. Their weights are made when the shape of the data is known.

    It is known from an Input, from input_shape of the first layer, or from the first batch.
    """

    def __init__(self, layers: Any = None, name: str | None = None, **options: Any):
        Layer.__init__(self, name=name, **options)
        self.layers, self.inputs, self.outputs = nn.Sequential(), [], []
        for layer in layers or []:
            self.add(layer)

    def add(self, layer: Any) -> None:
        """Put a layer, or first an Input, at the end."""
        if isinstance(layer, KerasTensor | InputLayer):
            if self.inputs or len(self.layers):
                raise ValueError(f"{self.name}: an Input comes first, and once")
            self._begin(layer if isinstance(layer, KerasTensor) else layer.output)
            return
        if not isinstance(layer, Layer):
            what = getattr(layer, "__name__", type(layer).__name__)
            hint = f"; write {what}()" * isinstance(layer, type)
            raise TypeError(f"{self.name}: {what} is not a layer of minidl.keras{hint}")
        if not len(self.layers) and not self.inputs:
            if isinstance(layer, Model) and layer.inputs:
                self._begin(Input(layer.inputs[0].shape[1:], layer.inputs[0].dtype))
            elif layer.given_shape is not None:
                self._begin(Input(layer.given_shape))
        self.hold(layer)
        if self.inputs:
            self.connect(self.inputs[0], layer(self.outputs[0]))

    def _begin(self, start: KerasTensor) -> None:
        self.inputs, self.outputs, self.form = [start], [start], start

    def connect(self, inputs: Any, outputs: Any) -> None:
        """As of any network, but the Input is none of its layers."""
        super().connect(inputs, outputs)
        vars(self.layers).pop(self.inputs[0].node.layer.name, None)

    def build(self, shape: Any) -> None:
        """Make all weights, for data of this shape (None, ...)."""
        if not len(self.layers):
            raise ValueError(f"{self.name}: there are no layers: add some")
        x = start = self.inputs[0] if self.inputs else Input(shape[1:])
        for layer in self.layers:
            x = layer(x)
        self.connect(start, x)
