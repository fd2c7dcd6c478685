"""Data as `fit` takes them."""

import keras
import numpy as np
import pandas as pd
import pytest

from keras_lottery.engines import make
from keras_lottery.engines.as_in_fit import gather
from keras_lottery.engines.data import Stretch
from tests.engines.small_training import examples, model, ticket

X, Y = examples(64, 1)
VALIDATION = examples(50, 2)


class Batches(keras.utils.PyDataset):
    """16 examples at a time; endless ones begin again."""

    def __init__(self, endless=False, **kwargs):
        super().__init__(**kwargs)
        self.endless = endless
        self.told = []

    @property
    def num_batches(self):
        return None if self.endless else 4

    def __getitem__(self, index):
        first = 16 * (index % 4)
        return X[first : first + 16], Y[first : first + 16]

    def on_epoch_begin(self):
        self.told.append("begin")

    def on_epoch_end(self):
        self.told.append("end")


def generated(sizes=(16, 16, 16, 16)):
    ends = np.cumsum(sizes)
    for size, end in zip(sizes, ends, strict=True):
        yield X[end - size : end], Y[end - size : end]


def endless():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(16).repeat()


def gathered(*train, **options):
    options = {"batch_size": 16, "shuffle": False} | options
    return gather(*train, validation_data=VALIDATION, **options)


def trained(data, steps=10):
    """The final weights of a training that is cut within an epoch."""
    engine = make("auto", model("adam"), data, steps, rewind_step=6, eval_freq=3)
    training = engine.train(ticket(engine.model, steps), 1)
    assert training.curve["step"] == [3, 6, 9, 10]
    assert 0 < training.metrics["final_train_accuracy"] <= 1
    return training.final


@pytest.fixture(scope="module")
def expected():
    return trained(gathered(X, Y))


@pytest.mark.parametrize(
    "given",
    [
        lambda: gathered(keras.ops.convert_to_tensor(X), pd.Series(Y, Y[::-1])),
        lambda: gathered(generated(), steps_per_epoch=4),
        lambda: gathered(Batches()),
        lambda: gathered(Batches(endless=True), steps_per_epoch=4),
        lambda: gathered(Batches(endless=True), steps_per_epoch=3),
        lambda: gathered(Batches(workers=2)),
        pytest.param(
            lambda: gathered(endless(), steps_per_epoch=3), marks=pytest.mark.tensorflow
        ),
    ],
    ids=["tensors", "generator", "py", "endless", "short", "threads", "tf"],
)
def test_however_data_are_given_the_training_is_the_same(given, expected):
    for name, array in trained(given()).items():
        np.testing.assert_array_equal(array, expected[name])


def test_batches_of_a_dataset_are_shuffled_by_seed_and_epoch():
    data = gather(Batches(), validation_data=VALIDATION)
    orders = set()
    for seed, epoch in [(1, 0), (1, 1), (1, 2), (2, 0)]:
        batches = data.batches(0, 0, 4, seed)
        batches.set_epoch(epoch)
        assert sorted(batches.order) == [0, 1, 2, 3]
        orders.add(tuple(batches.order))
    assert len(orders) > 1
    again = data.batches(0, 2, 4, 1)
    again.set_epoch(2)
    np.testing.assert_array_equal(again[1][0], batches.data[int(again.order[3])][0])


def test_a_dataset_is_told_where_its_epochs_begin_and_end():
    data = Batches()
    for start, stop in [(0, 2), (2, 4), (0, 4)]:
        part = Stretch(data, 4, None, start, stop)
        part.on_epoch_begin()
        part.on_epoch_end()
    assert data.told == ["begin", "end", "begin", "end"]


@pytest.mark.once
def test_the_last_examples_are_split_off():
    weights = np.arange(64.0)
    data = gather({"a": X}, [Y, Y], weights, validation_split=0.25)
    np.testing.assert_array_equal(data.train[0]["a"], X[:48])
    np.testing.assert_array_equal(data.validation[1][1], Y[48:])
    np.testing.assert_array_equal(data.validation[2], weights[48:])


@pytest.mark.once
def test_validation_and_test_data_of_other_kinds():
    data = gather(
        X, Y, validation_data=generated(), validation_steps=3, test_data=Batches()
    )
    np.testing.assert_array_equal(data.validation[0], X[:48])
    assert data.parts["test"].num_batches == 4
    table = pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5]}, index=[7, 3])
    data = gather(table, table["a"], validation_data=(table, table["b"]))
    assert data.train[0].shape == (2, 2)
    assert data.train[1].tolist() == [1, 2]


@pytest.mark.once
@pytest.mark.parametrize(
    ("train", "options", "message"),
    [
        ((generated(),), {}, "Expected `steps_per_epoch`.*kept in memory"),
        ((generated(),), {"steps_per_epoch": 9}, "ended after 4"),
        ((generated((16, 8)),), {"steps_per_epoch": 2}, r"batches of \[8, 16\]"),
        ((generated(), Y), {"steps_per_epoch": 4}, "neither `y` nor"),
        ((iter([X, X]),), {"steps_per_epoch": 2}, r"generator of \(x, y\)"),
        ((Batches(), Y), {}, "neither `y` nor"),
        ((Batches(endless=True),), {}, "known length.*`steps_per_epoch`"),
        ((Batches(),), {"steps_per_epoch": 2}, "have one. Leave it out"),
        ((X, Y), {"steps_per_epoch": 2}, "have one. Leave it out"),
        ((X, Y), {"validation_steps": 2}, "with other validation data"),
        ((X, Y), {"validation_split": 0.2}, "Received: both"),
        ((X, Y), {"test_data": generated()}, "Give arrays"),
        ((X,), {}, "Received: y=None"),
        ((X, Y[:9]), {}, "arrays of one length"),
        ((X.tolist(), Y), {}, "np.array"),
        ((pd.DataFrame({"a": ["b", 1]}), Y[:2]), {}, "astype"),
        ((object(),), {"validation_data": None}, "y=None"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(train, options, message):
    with pytest.raises(ValueError, match=message):
        gather(*train, **{"validation_data": VALIDATION} | options)


@pytest.mark.once
def test_data_without_anything_to_validate_on_are_refused():
    with pytest.raises(ValueError, match="`validation_split`"):
        gather(X, Y)
    with pytest.raises(ValueError, match="on both sides"):
        gather(X, Y, validation_split=0.999)
    with pytest.raises(ValueError, match="with arrays"):
        gather(Batches(), validation_split=0.5)


def not_dense():
    import tensorflow as tf
    from scipy.sparse import csr_matrix

    yield "RaggedTensor", tf.ragged.constant([[1.0, 2.0], [3.0]]), "pad_sequences"
    yield "SparseTensor", tf.sparse.from_dense(np.eye(2)), "to_dense"
    yield "csr_matrix", csr_matrix(np.eye(2)), "toarray"
    rows = np.array([[1.0, 2.0], [3.0]], dtype=object)
    yield "an array of objects", rows, "pad_sequences"


@pytest.mark.tensorflow
def test_what_has_no_shape_for_every_example_is_refused():
    """Keras's conversion pads ragged tensors, without a word."""
    y = np.array([0, 1])
    for what, x, remedy in not_dense():
        for data in ((x, y), ({"a": x, "b": y}, y), (y, x)):
            with pytest.raises(ValueError, match=rf"dense arrays.*{what}.*{remedy}"):
                gathered(*data)
        with pytest.raises(ValueError, match=rf"{what} in `validation_data`"):
            gather(np.eye(2), y, validation_data=(x, y))
    texts = np.array(["a", "b"], dtype=object)
    assert gathered(texts, y).train[0] is texts


@pytest.mark.tensorflow
@pytest.mark.parametrize("kind", [0, 1])
def test_data_sets_are_read_whole_only_if_they_are_dense(kind):
    import tensorflow as tf

    what, x, _ = list(not_dense())[kind]
    batches = tf.data.Dataset.from_tensor_slices((x, [0, 1])).batch(2)
    with pytest.raises(ValueError, match=rf"dense tensors.*{what}.*Map it"):
        gathered(batches).examples()
