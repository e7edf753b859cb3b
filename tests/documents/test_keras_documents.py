"""What the documents type for Keras: their mistakes are named, and what the answer says works."""

import warnings

import numpy as np
import pytest

from minidl import keras, nn
from minidl.keras import Model, layers
from minidl.keras.layers import Conv2D, Dense, MaxPooling2D


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)
    keras.utils.clear_session()


def digits(n, size=28):
    """n real digits, from 0 to 1, of size x size pixels, and their labels."""
    (x, y), _ = keras.datasets.digits.load_data()
    edge = (size - 28) // 2
    x = np.pad(x[:n, ..., None] / np.float32(255), ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    return x, y[:n]


# --- 14: torch.nn's names and Keras's, Flatten before the convolutions, a size given twice


def test_row_14_names_of_the_other_family_are_answered():
    with pytest.raises(AttributeError, match=r"minidl.nn has no 'MaxPooling2d'.*nn.MaxPool2d"):
        _ = nn.MaxPooling2d
    with pytest.raises(AttributeError, match=r"has no 'Conv2d'; did you mean layers.Conv2D"):
        _ = layers.Conv2d
    with pytest.raises(AttributeError, match=r"has no 'Linear'; did you mean layers.Dense"):
        _ = layers.Linear


def test_row_14_a_size_given_twice_is_named():
    with pytest.raises(TypeError, match="Conv2D: multiple values for argument 'kernel_size'"):
        Conv2D(32, 3, padding="same", kernel_size=3, activation="relu")


def test_row_14_flatten_comes_after_the_convolutions():
    sizes = 32, 64, 128
    stack = [Conv2D(n, 3, padding="same", activation="relu") for n in sizes]
    with pytest.raises(ValueError, match="Flatten comes after the convolutions"):
        keras.Sequential([keras.Input((28, 28, 1)), layers.Flatten(), stack[0]])
    model = keras.Sequential([keras.Input((28, 28, 1))])
    for conv in stack:
        model.add(conv)
        model.add(MaxPooling2D(pool_size=2))
    model.add(layers.Flatten())
    assert model.output_shape == (None, 3 * 3 * 128)
    assert model.predict(digits(4)[0]).shape == (4, 1152)


# --- 19: model.input_shape, the size of what predict returns


def test_row_19_a_network_knows_its_shapes():
    model = keras.Sequential([layers.Dense(3, input_shape=(5,))])
    assert model.input_shape == (None, 5) and model.output_shape == (None, 3)
    assert model.predict(np.ones((7, 5))).shape[0] == 7


# --- 25: to_categorical on images


def test_row_25_to_categorical_is_for_labels():
    images = [np.random.default_rng(0).random((32, 28, 28, 1)) for _ in range(2)]
    for typed in (images, [(image * 255).astype(np.uint8) for image in images]):
        with pytest.raises(TypeError, match="it is for labels, not for images"):
            keras.utils.to_categorical(typed, num_classes=60)
    with pytest.raises(ValueError, match="labels from 0 to 60, but num_classes is 60"):
        keras.utils.to_categorical(np.arange(61), num_classes=60)
    labels = np.arange(60)[::-1]
    rows = keras.utils.to_categorical(labels, num_classes=60)
    assert rows.shape == (60, 60) and (rows.argmax(1) == labels).all() and (rows.sum(1) == 1).all()


# --- 27, 28: Dense on images without Flatten; softmax, logits and one-hot labels mixed up


def test_row_27_a_forgotten_flatten_is_found():
    x, y = digits(64)
    model = keras.models.Sequential()
    model.add(Dense(32, input_shape=(28, 28, 1)))
    model.add(Dense(60, activation="softmax"))
    assert model.output_shape == (None, 28, 28, 60)
    model.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match=r"is a Flatten\(\) missing before the Dense layers\?"):
        model.fit(x, y, verbose=0)
    mended = keras.Sequential(
        [layers.Flatten(input_shape=(28, 28, 1)), Dense(32), Dense(60, activation="softmax")]
    )
    mended.compile("adam", "sparse_categorical_crossentropy")
    losses = mended.fit(x, y, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_row_28_a_double_softmax_and_one_hot_labels_are_found():
    x, y = digits(64)
    parts = layers.Flatten(input_shape=(28, 28, 1)), Dense(60, activation="softmax")
    model = keras.Sequential(parts)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    with pytest.raises(ValueError, match=r"double softmax: .*=SparseCategoricalCrossentropy\(\)"):
        model.fit(x, y, verbose=0)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(), metrics=["accuracy"])
    with pytest.raises(ValueError, match="it is one-hot: use categorical_crossentropy"):
        model.fit(x, keras.utils.to_categorical(y, 60), verbose=0)
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    one_hot = model.evaluate(x, keras.utils.to_categorical(y, 60), verbose=0)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    assert model.evaluate(x, y, verbose=0) == pytest.approx(one_hot)


def test_row_28_the_loss_is_taken_of_the_logits():
    # exact where the probability itself would be 0 in float32
    model = keras.Sequential([Dense(2, activation="softmax", input_shape=(1,))])
    model.set_weights([np.float32([[0, 200]]), np.zeros(2)])
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert model.evaluate(np.ones((1, 1)), np.array([0]), verbose=0) == pytest.approx(200)


# --- 29, 30, 31: compile and fit; train_on_batch; evaluate


def small():
    model = keras.Sequential(
        [layers.Flatten(input_shape=(28, 28, 1)), Dense(32, "relu"), Dense(10, "softmax")]
    )
    loss = keras.losses.SparseCategoricalCrossentropy()
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    return model


def test_row_29_compile_and_fit():
    x, y = digits(500)
    history = small().fit(x, y, epochs=10, batch_size=32, verbose=0).history
    assert len(history["loss"]) == len(history["accuracy"]) == 10
    assert history["accuracy"][-1] > 0.9


def test_row_30_train_on_batch_has_no_epochs():
    (x, y), model = digits(320), small()
    with pytest.raises(TypeError, match=r"train_on_batch has no epochs: .* fit has epochs"):
        model.train_on_batch(x[:32], y[:32], epochs=1)
    costs = []
    for i in range(0, len(x), 32):
        costs.append(model.train_on_batch(x[i : i + 32], y[i : i + 32], return_dict=True))
    assert costs[0].keys() == {"loss", "accuracy"} and costs[-1]["loss"] < costs[0]["loss"]
    assert model.test_on_batch(x[:32], y[:32]) == model.evaluate(x[:32], y[:32], verbose=0)


@pytest.mark.parametrize("verbose", [0, 1, 2])
def test_row_31_evaluate_says_as_much_as_it_is_told_to(capsys, verbose):
    (x, y), model = digits(64), small()
    loss, accuracy = model.evaluate(x, y, verbose=verbose)
    said = f"loss {loss:.4f}  accuracy {accuracy:.2%}\n" * (verbose > 0)
    assert capsys.readouterr().out == said


# --- 40: datasets


def test_row_40_data_sets_are_loaded_by_load_data():
    with pytest.raises(AttributeError, match=r"'train'; write .* datasets.cifar10.load_data\(\)"):
        _ = keras.datasets.cifar10.train.images
    load = keras.datasets.digits.load_data
    (x_train, _), (_, _) = load(), load()  # as the document has it: called twice
    with pytest.raises(AttributeError, match=r"this is a pair \(x, y\).*both pairs in one"):
        x_train.reshape((60000, 28, 28, 1))
    (x_train, y_train), (x_test, y_test) = load()
    assert x_train.shape == (10000, 28, 28) and y_train.shape == (10000,)
    assert x_test.shape == (2000, 28, 28) and x_test.dtype == np.uint8 and len(y_test) == 2000


@pytest.mark.download
def test_row_40_mnist_and_cifar10_are_the_whole_sets():
    (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
    assert x_train.reshape((60000, 28, 28, 1)).dtype == np.uint8 and len(y_train) == 60000
    assert x_test.shape == (10000, 28, 28) and len(y_test) == 10000
    (x_train, y_train), (x_test, _) = keras.datasets.cifar10.load_data()
    assert x_train.shape == (50000, 32, 32, 3) and y_train.shape == (50000, 1)
    assert x_test.shape == (10000, 32, 32, 3)


# --- 41: the CNN for CIFAR-10


def cifar_cnn(flatten):
    model = keras.models.Sequential()
    model.add(keras.layers.Conv2D(32, (3, 3), activation="relu", input_shape=(32, 32, 3)))
    model.add(keras.layers.MaxPooling2D((2, 2)))
    model.add(keras.layers.Conv2D(64, (3, 3), activation="relu"))
    model.add(keras.layers.MaxPooling2D((2, 2)))
    if flatten:
        model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(64, activation="relu"))
    model.add(keras.layers.Dense(10, activation="softmax"))
    return model


def test_row_41_its_three_mistakes_are_named():
    x, y = digits(8, 32)
    x = x.repeat(3, 3)
    model = cifar_cnn(flatten=False)
    with pytest.raises(ValueError, match=r"unknown optimizer 'nvq'; .*known: adagrad, adam"):
        model.compile(optimizer="nvq", loss="sparse_categorical_crossentropy")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    with pytest.raises(ValueError, match=r"is a Flatten\(\) missing"):
        model.fit(x, y[:, None], verbose=0)
    model = cifar_cnn(flatten=True)
    assert model.count_params() == 167_562
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    with pytest.warns(UserWarning, match="bytes from 0 to 255: learn from x / 255"):
        model.fit((x * 255).astype(np.uint8), y[:, None], verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(x, y[:, None], verbose=0)


@pytest.mark.download
def test_row_41_the_mended_program_learns_photographs():
    (x, y), (x_test, y_test) = keras.datasets.cifar10.load_data()
    x, y, x_test, y_test = x[:4000] / 255, y[:4000], x_test[:1000] / 255, y_test[:1000]
    model = cifar_cnn(flatten=True)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=3, verbose=0)
    _, accuracy = model.evaluate(x_test, y_test, verbose=0)
    assert accuracy > 0.38
    assert model.predict(x_test).shape == (1000, 10)


# --- 48, 52: VGG16 on MNIST


def test_row_48_the_ends_of_a_network_are_tensors_and_not_layers():
    base = keras.applications.VGG16(include_top=False)
    assert base.count_params() == 14_714_688 and base.output_shape == (None, None, None, 512)
    with pytest.raises(AttributeError, match=r"has no 'flatten'; .* layers.Flatten\(\)\(x\)"):
        base.output.flatten()
    with pytest.raises(TypeError, match=r"is a tensor, not a layer: .*Model\(base.input, "):
        base.layers[-2].output(base.output)
    features = Model(base.input, base.layers[-5].output)
    assert features.output_shape == (None, None, None, 512)


@pytest.mark.numba  # minutes on NumPy alone
def test_row_52_mnist_for_vgg16():
    (x, y), (grey, _) = digits(32, 32), digits(32)
    base = keras.applications.VGG16(include_top=False, input_shape=(32, 32, 3))
    base.trainable = False
    frozen = base.get_weights()
    head = layers.Dense(10, activation="softmax")(layers.Flatten()(base.output))
    model = Model(inputs=base.input, outputs=head)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    with pytest.raises(ValueError, match=r"grey images take x.repeat\(3, axis=3\).* 32 x 32"):
        model.predict(grey)
    with pytest.raises(TypeError, match="the labels y are missing"):
        model.fit(grey, epochs=10)
    with pytest.raises(TypeError, match="evaluate has no epochs"):
        model.evaluate(grey, epochs=1)
    x = x.repeat(3, axis=3)
    losses = model.fit(x, y, epochs=2, verbose=0).history["loss"]
    assert losses[1] < losses[0]
    assert all(map(np.array_equal, base.get_weights(), frozen))
    loss, accuracy = model.evaluate(x, y, verbose=2)
    assert 0 <= accuracy <= 1 and loss > 0
