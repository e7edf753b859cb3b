"""minidl.keras: Keras's programs after a changed import, and Keras's own numbers."""

import inspect
import subprocess
import sys
from pathlib import Path

import keras_networks
import numpy as np
import pytest

import minidl
from minidl import keras
from minidl.callbacks import JSONLLogger
from minidl.data import DataLoader, Flip, PadCrop
from minidl.keras import layers

ROOT = Path(__file__).parent.parent
# What Keras 3.15.1 says of keras_networks.py, which tells how to make it again.
KERAS = {
    "convnet": {
        "before": [0.071361958, 0.412500947, 0.338069200, 0.061562571],
        "losses": [1.944344639, 1.883986592, 1.826848864],
        "measured": {"accuracy": 0.25, "loss": 1.775061130},
        "after": [0.110478892, 0.375512629, 0.266779780, 0.084535732],
    },
    "separable": {
        "before": [0.603764832, 0.599737465, 0.597724854, 0.601746439],
        "losses": [0.773775875, 0.741068005, 0.708263516],
        "measured": {"accuracy": 0.625, "loss": 0.680295109, "mse": 0.243580669},
        "after": [0.475585162, 0.471807271, 0.473048835, 0.474431425],
    },
    "residual": {
        "before": [0.251046508, 0.591658174, -0.403510272, 0.227115005],
        "losses": [1.170237779, 1.156551599, 1.143549561],
        "measured": {"accuracy": 0.300000011, "loss": 1.134575128},
        "after": [0.322697907, 0.466531693, -0.344074755, 0.306293308],
    },
    "sequences": {
        "before": [-0.232425644, 0.627753555, -0.239867970, 0.652432739],
        "losses": [0.825587749, 0.759526848, 0.726009726],
        "measured": {"loss": 0.705818176, "mae": 0.659679710},
        "after": [-0.077699899, 0.403581470, -0.089772455, 0.428737848],
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)
    keras.utils.clear_session()


@pytest.mark.parametrize("name", KERAS)
def test_the_same_weights_give_keras_numbers(name):
    found, wanted = keras_networks.values(keras, name), KERAS[name]
    for key in ("before", "losses", "after"):
        np.testing.assert_allclose(found[key], wanted[key], atol=1e-5, rtol=0)
    assert found["measured"] == pytest.approx(wanted["measured"], abs=1e-5)


# --- programs with the structure of Keras's own examples


def digits(n=1000):
    (x, y), (x_test, y_test) = keras.datasets.digits.load_data()
    scaled = (a[..., None].astype("float32") / 255 for a in (x[:n], x_test[:500]))
    x, x_test = scaled
    return x, y[:n], x_test, y_test[:500]


@pytest.mark.numba  # minutes on NumPy alone
def test_mnist_convnet(capsys):
    # https://keras.io/examples/vision/mnist_convnet/
    num_classes, input_shape = 10, (28, 28, 1)
    x_train, y_train, x_test, y_test = digits(3000)
    y_train = keras.utils.to_categorical(y_train, num_classes)
    y_test = keras.utils.to_categorical(y_test, num_classes)
    model = keras.Sequential(
        [
            keras.Input(shape=input_shape),
            layers.Conv2D(32, kernel_size=(3, 3), activation="relu"),
            layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Conv2D(64, kernel_size=(3, 3), activation="relu"),
            layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(num_classes, activation="softmax"),
        ]
    )
    model.summary()
    model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    history = model.fit(x_train, y_train, batch_size=32, epochs=3, validation_split=0.1)
    score = model.evaluate(x_test, y_test, verbose=0)
    out = capsys.readouterr().out
    assert "conv2d_1 (Conv2D)" in out and "Total params: 34,826 (136.0 KiB)" in out
    assert "epoch 3/3  loss " in out and "val accuracy" in out
    assert list(history.history) == ["accuracy", "loss", "val_accuracy", "val_loss"]
    assert score[1] > 0.85 and history.epoch == [0, 1, 2]
    assert model.predict(x_test, verbose=0).sum(1) == pytest.approx(1, abs=1e-5)
    assert history.plot().axes[0].get_ylabel() == "loss"


@pytest.mark.numba  # minutes on NumPy alone
def test_cifar10_cnn_with_augmentation():
    # the documents' network of 167,562 parameters; on grey digits made 32 x 32 x 3
    x, y, x_test, y_test = digits(320)
    x, x_test = (np.pad(a.repeat(3, 3), ((0, 0), (2, 2), (2, 2), (0, 0))) for a in (x, x_test))
    model = keras.models.Sequential()
    model.add(layers.Conv2D(32, (3, 3), activation="relu", input_shape=(32, 32, 3)))
    model.add(layers.MaxPooling2D((2, 2)))
    model.add(layers.Conv2D(64, (3, 3), activation="relu"))
    model.add(layers.MaxPooling2D((2, 2)))
    model.add(layers.Flatten())
    model.add(layers.Dense(64, activation="relu"))
    model.add(layers.Dense(10, activation="softmax"))
    assert model.count_params() == 167_562 and model.output_shape == (None, 10)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    loader = DataLoader((x, y), 32, shuffle=True, transform=[PadCrop(2), Flip()])
    history = model.fit(loader, epochs=3, validation_data=(x_test, y_test), verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert history.history["val_accuracy"][-1] > 0.3


def test_transfer_by_freezing():
    # https://keras.io/guides/transfer_learning/
    x, y, _, _ = digits(200)
    base = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(4, 3, strides=2),
            layers.BatchNormalization(),
            layers.Activation("relu"),
        ],
        name="base",
    )
    base.trainable = False
    before = base.get_weights()
    inputs = keras.Input(shape=(28, 28, 1))
    features = layers.GlobalAveragePooling2D()(base(inputs, training=False))
    model = keras.Model(inputs, layers.Dense(10, activation="softmax")(features))
    assert len(model.trainable_weights) == 2 and len(model.non_trainable_weights) == 6
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    first = model.fit(x, y, epochs=2, verbose=0).history["loss"][0]
    assert all(map(np.array_equal, base.get_weights(), before))
    base.trainable = True
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    last = model.fit(x, y, epochs=2, verbose=0).history["loss"][-1]
    changed = [not np.array_equal(a, b) for a, b in zip(base.get_weights(), before, strict=True)]
    assert changed == [True, True, True, True, False, False]  # the statistics stay: training=False
    assert last < first


def test_a_part_of_a_network_gives_features():
    base = keras.Sequential(
        [layers.Conv2D(3, 3, input_shape=(6, 6, 1)), layers.ReLU(), layers.Flatten()]
    )
    both = keras.Model(base.input, [base.layers[0].output, base.layers[-1].output])
    x = np.ones((2, 6, 6, 1), np.float32)
    maps, flat = both.predict(x)
    assert maps.shape == (2, 4, 4, 3) and flat.shape == (2, 48)
    np.testing.assert_array_equal(np.maximum(maps, 0).reshape(2, -1), flat)
    assert base.get_layer("conv2d") is base.layers[0]
    with pytest.raises(ValueError, match="no layer 'conv'; it has conv2d, re_lu, flatten"):
        base.get_layer("conv")


def test_several_inputs_and_lazy_shapes():
    a, b = keras.Input((3,)), keras.Input((2,))
    model = keras.Model([a, b], layers.Dense(1)(layers.Concatenate()([a, b])))
    model.compile("sgd", "mse", metrics=["mae"])
    x, y = [np.ones((8, 3)), np.zeros((8, 2))], np.arange(8.0)
    assert set(model.fit(x, y, epochs=2, verbose=0).history) == {"loss", "mae"}
    assert model.predict(x).shape == (8, 1)
    lazy = keras.Sequential([layers.Dense(4, activation="relu"), layers.Dense(1)])
    assert not lazy.built
    lazy.compile("rmsprop", "mse")
    lazy.fit(np.ones((8, 5)), y, verbose=0)
    assert lazy.count_params() == 29 and lazy.output_shape == (None, 1)


# --- what fit does


def points(n=60):
    rng = np.random.default_rng(0)
    y = np.arange(n) % 3
    return (rng.normal(size=(n, 4)) + 3 * np.eye(3, 4)[y]).astype("float32"), y


def classifier(*metrics, **options):
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(8, activation="relu"), layers.Dense(3, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=metrics, **options)
    return model


@pytest.mark.parametrize("x", [[1], [[1.0, 2.0]], [[1, 2]] * 4, 3, None, iter([])])
def test_what_is_no_array_is_refused_in_words(x):
    model, y = classifier(), points()[1]
    name = type(x).__name__
    for call in (model.predict, lambda x: model.fit(x, y), lambda x: model.evaluate(x, y)):
        with pytest.raises(TypeError, match=f"arrays x and y are needed, or .*; x is a {name}"):
            call(x)
    with pytest.raises(ValueError, match="predict: the data set is empty"):
        model.predict([])


def test_weights_of_classes_and_samples_count_in_the_loss():
    x, y = points()
    model, w = classifier(), np.linspace(0, 2, 60)
    p = model.predict(x)[np.arange(60), y]
    each = -np.log(p)
    assert model.evaluate(x, y, verbose=0) == pytest.approx(each.mean(), rel=1e-5)
    assert model.evaluate(x, y, sample_weight=w, verbose=0) == pytest.approx(
        (each * w).mean(), rel=1e-5
    )
    of_class = np.array([1.0, 3.0, 1.0])[y]
    told = model.train_on_batch(x, y, sample_weight=w, class_weight={1: 3.0})
    assert told == pytest.approx((each * w * of_class).mean(), rel=1e-5)


def test_fit_captures_its_steps_and_is_the_same_eagerly():
    x, y = points()
    losses = []
    for eager in (False, True):
        keras.utils.set_random_seed(1)
        model = classifier(run_eagerly=eager)
        losses.append(model.fit(x, y, 16, 5, verbose=0).history["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    model = classifier()
    for _ in range(4):
        model.train_on_batch(x, y)
    assert inspect.getclosurevars(model._compiled._step[1]).nonlocals["run"].replayed


def test_callbacks(tmp_path):
    x, y = points()
    model = classifier("accuracy")

    class Seen(keras.callbacks.Callback):
        def __init__(self):
            self.epochs = []

        def on_epoch_end(self, epoch, logs=None):
            self.epochs.append((epoch, sorted(logs)))
            self.model.stop_training = epoch == 5

    seen = Seen()
    told = [
        seen,
        keras.callbacks.ReduceLROnPlateau("loss", patience=2, min_delta=9, factor=0.5),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch:02d}.safetensors", save_best_only=True),
        JSONLLogger(tmp_path / "log.jsonl"),
    ]
    history = model.fit(x, y, epochs=9, verbose=0, callbacks=told, validation_data=(x, y))
    assert [epoch for epoch, _ in seen.epochs] == [0, 1, 2, 3, 4, 5]
    assert seen.epochs[0][1] == ["accuracy", "loss", "val_accuracy", "val_loss"]
    rates = history.history["learning_rate"]
    # Keras: the first epoch is the best, the second and third wait, the third reduces; and so on
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4])
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines[0] == "epoch,accuracy,loss,val_accuracy,val_loss,learning_rate"
    assert len(lines) == 7 and len((tmp_path / "log.jsonl").read_text().splitlines()) == 6
    best = keras.models.load_model(tmp_path / "06.safetensors")
    assert best.evaluate(x, y, verbose=0)[0] == pytest.approx(history.history["val_loss"][-1])


def test_early_stopping_brings_back_the_best_weights():
    x, y = points()
    model = classifier()
    model.optimizer.learning_rate = 3.0  # far too large
    stop = keras.callbacks.EarlyStopping("loss", patience=2, restore_best_weights=True)
    history = model.fit(x, y, epochs=50, verbose=0, callbacks=[stop])
    losses = history.history["loss"]
    assert len(losses) < 50 and np.argmin(losses) == len(losses) - 3


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "adagrad"])
def test_every_optimizer_has_a_name_and_learns(name):
    x, y = points()
    model = classifier()
    model.compile(name, "sparse_categorical_crossentropy")
    model.optimizer.learning_rate = 0.05
    history = model.fit(x, y, epochs=5, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]


# --- mistakes


def test_the_documents_mistakes_are_named():
    x, y = points()
    model = classifier()
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with pytest.raises(ValueError, match=r"unknown optimizer 'nvq'; .*known: adagrad, adam"):
        model.compile("nvq", "mse")
    with pytest.raises(ValueError, match="unknown loss 'sparse_crossentropy'; did you mean"):
        model.compile("adam", "sparse_crossentropy")
    with pytest.raises(TypeError, match="labels y are missing"):
        model.fit(x)
    with pytest.raises(TypeError, match="evaluate has no epochs"):
        model.evaluate(x, y, epochs=1)
    with pytest.raises(ValueError, match="one-hot: use categorical_crossentropy"):
        model.fit(x, keras.utils.to_categorical(y), verbose=0)
    with pytest.raises(ValueError, match="class numbers go with sparse_categorical_crossentropy"):
        model.compile("adam", "categorical_crossentropy")
        model.fit(x, y, verbose=0)
    with pytest.raises(ValueError, match="double softmax"):
        model.compile("adam", crossentropy)
        model.fit(x, y)
    with pytest.raises(TypeError, match="for labels, not for images"):
        keras.utils.to_categorical(np.random.rand(2, 28, 28, 1), 60)
    with pytest.raises(ValueError, match="labels from 0 to 9, but num_classes is 5"):
        keras.utils.to_categorical(np.arange(10), 5)
    with pytest.raises(TypeError, match="takes a layer"):
        layers.TimeDistributed(x)
    with pytest.raises(TypeError, match="to train on data, use fit"):
        model.train(x)
    with pytest.raises(RuntimeError, match="not compiled"):
        keras.Sequential([layers.Dense(1)]).fit(x, y)


def test_layers_in_the_wrong_order_are_named():
    with pytest.raises(ValueError, match="Flatten comes after the convolutions"):
        keras.Sequential([keras.Input((28, 28, 1)), layers.Flatten(), layers.Conv2D(32, 3)])
    with pytest.raises(TypeError, match="kernel_size"):
        layers.Conv2D(32, 3, padding="same", kernel_size=3)
    forgotten = keras.Sequential([keras.Input((8, 8, 1)), layers.Dense(10, "softmax")])
    forgotten.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match=r"is a Flatten\(\) missing"):
        forgotten.fit(np.zeros((4, 8, 8, 1)), np.zeros(4, int), verbose=0)
    logits = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    logits.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="give it activation='softmax', or the loss from_logits"):
        logits.fit(*points())
    with pytest.raises(ValueError, match=r"grey images need a channel: x\[..., None\]"):
        keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten()]).predict(np.ones((2, 8, 8)))


@pytest.mark.parametrize(
    "name, hint",
    [
        ("MaxPooling2d", "did you mean layers.MaxPooling2D"),
        ("Conv2d", "did you mean layers.Conv2D"),
        ("Linear", "did you mean layers.Dense"),
        ("MaxPool2d", "did you mean layers.MaxPooling2D"),
    ],
)
def test_names_of_others_are_answered(name, hint):
    with pytest.raises(AttributeError, match=hint):
        getattr(layers, name)


def test_importing_minidl_does_not_load_it():
    code = "import sys, minidl, minidl.train; print('minidl.keras' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "False" and minidl.keras is keras
