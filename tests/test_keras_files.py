"""Networks of minidl.keras in files: of minidl, and in the layouts that Keras 3.15.1 writes."""

import json

import keras_networks
import numpy as np
import pytest
from test_keras import KERAS, classifier, points

import minidl
from minidl import keras, nn
from minidl.keras import layers

h5py = pytest.importorskip("h5py")


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)
    keras.utils.clear_session()


def network():
    """A net of nets, a shared layer, a frozen one, and things with options."""
    inputs = keras.Input((4,), name="points")
    first = keras.Sequential([layers.Dense(6, "relu"), layers.BatchNormalization()], name="inner")
    steps = layers.Reshape((2, 3))(first(inputs))
    out = layers.TimeDistributed(layers.Dense(3))(steps)
    state = layers.GRU(6)(out)
    total = layers.Add()([layers.Flatten()(out), first(inputs), state])
    model = keras.Model(inputs, layers.Dense(3)(total))
    first.layers[0].trainable = False
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    top = keras.metrics.SparseTopKCategoricalAccuracy(k=2)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy", top])
    return model


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".h5"])
def test_row_49_a_network_comes_back_from_its_file_and_learns_on(tmp_path, suffix):
    (x, y), model = points(), network()
    model.fit(x, y, epochs=2, verbose=0)
    model.save(tmp_path / f"your_model{suffix}")
    again = keras.models.load_model(tmp_path / f"your_model{suffix}")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    assert [w.requires_grad for w in again.weights] == [w.requires_grad for w in model.weights]
    for _ in range(3):  # the optimizer goes on as well
        assert again.train_on_batch(x, y) == pytest.approx(model.train_on_batch(x, y), rel=1e-6)
    model.save_weights(tmp_path / f"w.weights{suffix}")
    again.load_weights(tmp_path / f"w.weights{suffix}")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    with pytest.raises(ValueError, match=r"holds weights, but no network|neither of minidl nor"):
        keras.models.load_model(tmp_path / f"w.weights{suffix}")


@pytest.mark.parametrize("name", ["sgd", "adamw", "rmsprop", "adagrad"])
def test_every_optimizer_goes_on_from_a_file_of_keras(tmp_path, name):
    (x, y), model = points(), classifier()
    options = {"momentum": 0.9} if name in ("sgd", "rmsprop") else {}
    options |= {"centered": True} if name == "rmsprop" else {}
    optimizer = keras.optimizers.KINDS[name](0.02, **options)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=2, verbose=0)
    model.save(tmp_path / "m.h5")
    again = keras.models.load_model(tmp_path / "m.h5")
    for _ in range(3):
        assert again.train_on_batch(x, y) == pytest.approx(model.train_on_batch(x, y), rel=1e-5)


# --- as Keras writes them

POLICY = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}}
GLOROT = {"module": "keras.initializers", "class_name": "GlorotUniform", "config": {"seed": None}}


def written(kind, name, **config):
    """A layer as Keras's own files describe it."""
    config = {"name": name, "trainable": True, "dtype": POLICY, **config}
    if "use_bias" in config:
        config |= {"kernel_initializer": GLOROT, "kernel_regularizer": None}
    return {"class_name": kind, "config": config}


def conv(name, filters, **config):
    return written(
        "Conv2D", name, filters=filters, kernel_size=[3, 3], strides=[1, 1], groups=1,
        data_format="channels_last", activation="relu", use_bias=True, **config,
    )  # fmt: skip


CONVNET = [
    {
        "class_name": "InputLayer",
        "config": {"batch_shape": [None, 10, 10, 2], "dtype": "float32", "sparse": False,
                   "ragged": False, "name": "input_layer", "optional": False},
    },
    conv("conv2d", 4, padding="same", dilation_rate=[1, 1]),
    written("MaxPooling2D", "max_pooling2d", pool_size=[2, 2], padding="valid", strides=[2, 2]),
    conv("conv2d_1", 6, padding="valid"),
    written("MaxPooling2D", "max_pooling2d_1", pool_size=[2, 2], padding="same", strides=[2, 2]),
    written("Flatten", "flatten", data_format="channels_last"),
    written("Dropout", "dropout", rate=0.0, seed=None, noise_shape=None),
    written("Dense", "dense", units=5, activation="softmax", use_bias=True,
            quantization_config=None),
]  # fmt: skip
SHAPES = {
    "conv2d": [(3, 3, 2, 4), (4,)], "conv2d_1": [(3, 3, 4, 6), (6,)], "dense": [(24, 5), (5,)]
}  # fmt: skip


def weights():
    """Those with which Keras said what is in KERAS["convnet"]."""
    start = iter(range(6))
    return {
        name: [0.5 * keras_networks.wave(*shape, start=next(start)) for shape in held]
        for name, held in SHAPES.items()
    }


def put_names(group, name, names):
    group.attrs[name] = np.array([n.encode() for n in names]) if names else np.array([])


def write_h5(path, config=None):
    """What Keras's model.save(path) leaves, for the first network of keras_networks.py."""
    config = config or {"class_name": "Sequential", "config": {"name": "net", "layers": CONVNET}}
    with h5py.File(path, "w") as file:
        file.attrs["backend"], file.attrs["keras_version"] = "jax", "3.15.1"
        file.attrs["model_config"] = json.dumps(config).encode()
        file.attrs["training_config"] = json.dumps(
            {
                "loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"],
                "optimizer_config": {
                    "class_name": "Adam",
                    "config": {"name": "adam", "learning_rate": 0.0010000000474974513,
                               "weight_decay": None, "use_ema": False, "ema_momentum": 0.99,
                               "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-07,
                               "amsgrad": False},
                },
            }
        )  # fmt: skip
        top, held = file.create_group("model_weights"), weights()
        names = [one["config"]["name"] for one in CONVNET[1:]]
        put_names(top, "layer_names", names)
        for name in sorted([*names, "top_level_model_weights"]):
            group = top.create_group(name)
            parts = [f"net/{name}/{part}" for part in ("kernel", "bias")] if name in held else []
            put_names(group, "weight_names", parts)
            for part, array in zip(parts, held.get(name, [])):
                group[part] = array


def write_weights_h5(path):
    """What Keras's model.save_weights(path) leaves, for the same network."""
    places = {"conv2d": "conv2d", "conv2d_1": "conv2d_1", "dense": "dense"}
    with h5py.File(path, "w") as file:
        file.create_group("vars").attrs["name"] = "net"
        file.create_group("layers/flatten/vars").attrs["name"] = "flatten"
        for place, name in places.items():
            group = file.create_group(f"layers/{place}/vars")
            group.attrs["name"] = f"my_{name}"
            for i, array in enumerate(weights()[name]):
                group[str(i)] = array


def test_a_file_of_keras_gives_its_numbers(tmp_path):
    write_h5(tmp_path / "net.h5")
    model = keras.models.load_model(tmp_path / "net.h5")
    x, y = keras_networks.wave(12, 10, 10, 2), np.arange(12) % 5
    wanted = KERAS["convnet"]
    np.testing.assert_allclose(model.predict(x).ravel()[:4], wanted["before"], atol=1e-5)
    losses = [model.train_on_batch(x, y)[0] for _ in range(3)]  # with Keras's optimizer
    np.testing.assert_allclose(losses, wanted["losses"], atol=1e-5)


@pytest.mark.parametrize("write", [write_h5, write_weights_h5])
def test_weights_of_keras_fill_a_network_of_the_same_layers(tmp_path, write):
    name = "w.weights.h5" if write is write_weights_h5 else "w.h5"
    write(tmp_path / name)
    model, x, _, _ = keras_networks.convnet(keras)
    model.load_weights(tmp_path / name)
    wanted = KERAS["convnet"]["before"]
    np.testing.assert_allclose(model.predict(x).ravel()[:4], wanted, atol=1e-5)


def test_a_network_of_nn_takes_weights_of_keras(tmp_path):
    write_h5(tmp_path / "net.h5")
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3),
        nn.ReLU(), nn.MaxPool2d(2, padding="same"), nn.Flatten(), nn.Linear(24, 5),
    )  # fmt: skip
    minidl.load(tmp_path / "net.h5", model)
    x = minidl.tensor(keras_networks.wave(12, 10, 10, 2))
    wanted = KERAS["convnet"]["before"]
    np.testing.assert_allclose(model(x).softmax().detach().numpy()[0, :4], wanted, atol=1e-5)
    minidl.save(model, tmp_path / "mine.h5")
    again = nn.Sequential(*(layer for layer in model))
    for p in again.parameters():
        p.requires_grad = False
        p.copy_(0.0)
    minidl.load(tmp_path / "mine.h5", again)
    np.testing.assert_allclose(again(x).softmax().numpy()[0, :4], wanted, atol=1e-5)
    with h5py.File(tmp_path / "mine.h5", "r+") as file:
        file["7.bias"][0] += 1
    with pytest.raises(ValueError, match="damaged, its content does not have the SHA-256"):
        minidl.load(tmp_path / "mine.h5", again)


def node(*sources):
    """A call in the words of Keras 2."""
    return [[[name, 0, 0, {}] for name in sources]]


def test_networks_of_keras_2_are_read(tmp_path):
    def layer(kind, name, inbound, **config):
        whole = {"class_name": kind, "name": name, "config": {"name": name, **config}}
        return whole | {"inbound_nodes": inbound}

    config = {
        "class_name": "Functional",
        "config": {
            "name": "model",
            "layers": [
                layer("InputLayer", "a", [], batch_input_shape=[None, 3], dtype="float32"),
                layer("InputLayer", "b", [], batch_input_shape=[None, 3], dtype="float32"),
                layer("Add", "add", node("a", "b")),
                layer("Dense", "d", node("add"), units=2, activation="linear", use_bias=True),
            ],
            "input_layers": [["a", 0, 0], ["b", 0, 0]],
            "output_layers": [["d", 0, 0]],
        },
    }
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        group = file.create_group("model_weights")
        put_names(group, "layer_names", ["a", "b", "add", "d"])
        for name in ("a", "b", "add"):
            put_names(group.create_group(name), "weight_names", [])
        put_names(group.create_group("d"), "weight_names", ["d/kernel:0", "d/bias:0"])
        group["d/d/kernel:0"] = np.arange(6.0, dtype="f4").reshape(3, 2)
        group["d/d/bias:0"] = np.float32([1, -1])
    model = keras.models.load_model(tmp_path / "old.h5")
    x = np.float32([[1, 2, 3]])
    # (1 + 1, 2 + 0, 3 + 1) = (2, 2, 4) times the kernel: (20, 28), plus the bias
    np.testing.assert_array_equal(model.predict([x, np.float32([[1, 0, 1]])]), [[21, 27]])


def test_what_is_written_is_what_keras_reads(tmp_path):
    (x, y), model = points(), classifier("accuracy")
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "m.h5")
    model.save_weights(tmp_path / "m.weights.h5")
    with h5py.File(tmp_path / "m.h5") as file:
        group = file["model_weights"]
        assert list(group.attrs["layer_names"]) == ["dense", "dense_1"]
        assert list(group["dense"].attrs["weight_names"]) == ["dense/kernel", "dense/bias"]
        assert group["dense_1/dense_1/kernel"].shape == (8, 3)
        plan = json.loads(file.attrs["training_config"])
        assert plan["loss"] == "sparse_categorical_crossentropy" and plan["metrics"] == ["accuracy"]
        assert plan["optimizer_config"]["class_name"] == "Adam"
        config = json.loads(file.attrs["model_config"])
        assert config["class_name"] == "Sequential"
        kinds = [one["class_name"] for one in config["config"]["layers"]]
        assert kinds == ["InputLayer", "Dense", "Dense"]
        assert config["config"]["layers"][0]["config"]["batch_shape"] == [None, 4]
        names = list(file["optimizer_weights"].attrs["weight_names"])
        assert names[:4] == [
            "adam/iteration", "adam/learning_rate", "adam/dense_kernel_momentum",
            "adam/dense_kernel_velocity",
        ]  # fmt: skip
        assert file["optimizer_weights/adam/iteration"][()] == 2  # batches of 32 of 60
    with h5py.File(tmp_path / "m.weights.h5") as file:
        assert file["layers/dense_1/vars/0"].shape == (8, 3)
        assert file["layers/dense_1/vars"].attrs["name"] == "dense_1"
        assert file["optimizer/vars/2"].shape == (4, 8)


def test_layers_stand_in_the_order_of_keras():
    # by depth, and of one depth as a walk back from the output meets them: Keras's files rely on it
    x = keras.Input((6, 6, 3), name="im")
    a = layers.Conv2D(4, 3, padding="same", name="a")(x)
    b = layers.Conv2D(4, 1, name="b1")(x)
    b = layers.Conv2D(4, 3, padding="same", name="b2")(b)
    c = layers.MaxPooling2D(3, strides=1, padding="same", name="c")(x)
    model = keras.Model(x, layers.Concatenate(name="all")([c, a, b]))
    assert [layer.name for layer in model.layers] == ["im", "b1", "c", "a", "b2", "all"]


# --- nothing is believed


def spoil(change):
    def write(path):
        write_h5(path)
        with h5py.File(path, "r+") as file:
            change(file)

    return write


def external_link(file):
    del file["model_weights/dense/net/dense/bias"]
    file["model_weights/dense/net/dense/bias"] = h5py.ExternalLink("/etc/passwd", "/")


def external_data(file):
    group = file["model_weights/dense/net/dense"]
    del group["bias"]
    group.create_dataset("bias", (5,), "f4", external=[("/etc/passwd", 0, 20)])


def huge(file):
    group = file["model_weights/dense/net/dense"]
    del group["kernel"]
    group.create_dataset("kernel", (1 << 20, 1 << 20), "f4", chunks=(1, 1024))


def text(file):
    group = file["model_weights/dense/net/dense"]
    del group["bias"]
    group["bias"] = "no numbers"


def configured(layer):
    def change(file):
        whole = [*CONVNET[:-1], layer]
        config = {"class_name": "Sequential", "config": {"name": "net", "layers": whole}}
        file.attrs["model_config"] = json.dumps(config)

    return change


DENSE = CONVNET[-1]["config"]


@pytest.mark.parametrize(
    "change, message",
    [
        (external_link, "leads out of the file"),
        (external_data, "holds numbers of another file"),
        (huge, "is more than the file can hold"),
        (text, "holds object, not numbers"),
        (lambda file: file.attrs.__setitem__("model_config", "{"), "model_config is no JSON"),
        (configured({"class_name": "Lambda", "config": {}}), "unknown layer 'Lambda'"),
        (configured({"class_name": "__getattr__", "config": {}}), "unknown layer '__getattr__'"),
        (configured({"class_name": "Dense", "config": DENSE | {"units": 6}}), "mismatch: layers"),
        (configured({"class_name": "Dense", "config": DENSE | {"kernel_constraint": {"a": 1}}}),
         "Dense has kernel_constraint=.* which minidl does not know"),
        (lambda file: file["model_weights"].__delitem__("dense"), "leads out of the file, or now"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_what_it_should_be_is_refused(tmp_path, change, message):
    spoil(change)(tmp_path / "net.h5")
    with pytest.raises(ValueError, match=message):
        keras.models.load_model(tmp_path / "net.h5")


def test_a_damaged_file_is_refused(tmp_path):
    write_h5(tmp_path / "net.h5")
    whole = (tmp_path / "net.h5").read_bytes()
    for name, content in (("cut.h5", whole[: len(whole) // 2]), ("other.h5", b"no HDF5 " * 99)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="not a whole HDF5 file"):
            keras.models.load_model(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no such file"):
        keras.models.load_model(tmp_path / "nothing.h5")
    with pytest.raises(ValueError, match=r"reads and writes .safetensors, .npz, .h5, .hdf5"):
        keras.models.load_model(tmp_path / "net.keras")


def test_weights_that_do_not_fit_change_nothing(tmp_path):
    write_h5(tmp_path / "net.h5")
    model = classifier()
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"has 2 layers with weights, .* the file has 3"):
        model.load_weights(tmp_path / "net.h5")
    assert all(map(np.array_equal, before, model.get_weights()))


def test_what_a_file_cannot_hold_is_refused(tmp_path):
    x, _ = points()
    for model in (
        classifier(lambda y_true, y_pred: 1.0),
        keras.Sequential([layers.Dense(3, activation=lambda x: x, input_shape=(4,))]),
    ):
        with pytest.raises(ValueError, match="a file holds names and numbers, no functions"):
            model.save(tmp_path / "x.h5")
        assert not (tmp_path / "x.h5").exists()
        model.save_weights(tmp_path / "w.weights.h5")
        model.load_weights(tmp_path / "w.weights.h5")
        assert model.predict(x).shape == (60, 3)
