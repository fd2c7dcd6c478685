"""What a search takes of `fit`: data of every kind, weights, callbacks, losses."""

import keras
import numpy as np
import pandas as pd
import pytest

import keras_lottery as kl
from tests.search.small_search import FIT, X, Y, build, make


@pytest.mark.once
def test_list_inputs_and_unnamed_inputs_resume(tmp_path):
    def build_two():
        inputs = [keras.Input((3,)), keras.Input((3,))]
        outputs = keras.layers.Dense(2)(keras.layers.Concatenate()(inputs))
        model = keras.Model(inputs, outputs)
        model.compile(
            "sgd",
            keras.losses.SparseCategoricalCrossentropy(True),
            metrics=["accuracy"],
        )
        return model

    halves = [X[:, :3], X[:, 3:]]
    data = FIT | {
        "x": [half[:100] for half in halves],
        "validation_data": ([half[100:150] for half in halves], Y[100:150]),
        "test_data": None,
    }
    first = make(tmp_path, model=build_two, schedule=[0.5], controls={}).search(**data)
    again = make(tmp_path, model=build_two, schedule=[0.5], controls={}).search(**data)
    pd.testing.assert_frame_equal(first, again)


@pytest.mark.once
def test_callbacks_see_the_validation_and_may_not_stop_before_the_rewind_point():
    stop = keras.callbacks.EarlyStopping("val_loss", patience=0)
    search = make(model=lambda: build(1e-9), schedule=[0.5], controls={})
    search.search(**FIT | {"epochs": 9}, callbacks=[stop])
    assert search.curve(0)["step"][-1] < 54
    late = make(schedule=[0.5], controls={}, rewind_to=50)

    class Quit(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    with pytest.raises(ValueError, match="before the rewind point at step 50"):
        late.search(**FIT | {"epochs": 9}, callbacks=[Quit()])


# What `fit` makes of them, on all backends: tests/engines/test_fused.py.
@pytest.mark.once
def test_steps_and_weights_of_examples_and_classes_and_callbacks_reach_fit():
    class Count(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            counts.append(batch)

    counts = []
    arguments = {k: v for k, v in FIT.items() if k != "epochs"} | {"steps": 4}
    search = make(schedule=[0.5], controls={})
    search.search(**arguments, callbacks=[Count()])
    assert len(counts) == 2 * 4
    plain = search.ticket(0).trained["output/bias"]
    for extra in (
        {"sample_weight": np.linspace(0, 1, 100)},
        {"class_weight": {0: 1.0, 1: 5.0}},
        {"shuffle": False},
    ):
        other = make(schedule=[0.5], controls={})
        other.search(**arguments, **extra)
        assert not np.array_equal(other.ticket(0).trained["output/bias"], plain)


def test_several_inputs():
    inputs = {"a": keras.Input((3,), name="a"), "b": keras.Input((3,), name="b")}
    joined = keras.layers.Concatenate()(list(inputs.values()))
    model = keras.Model(inputs, keras.layers.Dense(2)(joined))
    model.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(True), metrics=["accuracy"]
    )

    def split(x):
        return {"a": x[:, :3], "b": x[:, 3:]}

    data = {
        "x": split(X[:100]),
        "y": Y[:100],
        "validation_data": (split(X[100:150]), Y[100:150]),
    }
    search = make(model=model, schedule=[0.5], controls={})
    table = search.search(**FIT | data | {"test_data": None})
    assert len(table) == 2
    assert table["final_test_accuracy"].isna().all()


@pytest.mark.once
def test_a_loss_of_ones_own():
    def loss(y, predictions):
        return keras.losses.sparse_categorical_crossentropy(y, predictions, True)

    model = build()
    model.compile("adam", loss, metrics=["accuracy"])
    search = make(model=model, controls={}, schedule=[0.5])
    search.search(**FIT | {"epochs": 1})
    with pytest.warns(UserWarning, match="not compiled"):
        assert not search.ticket(1).trained_model().compiled
    with keras.saving.custom_object_scope({"loss": loss}):
        assert search.ticket(1).trained_model().compiled


@pytest.mark.tensorflow
def test_tf_data():
    import tensorflow as tf

    def dataset(x, y):
        return tf.data.Dataset.from_tensor_slices((x, y)).batch(16, drop_remainder=True)

    data = {
        "x": dataset(X[:100], Y[:100]),
        "y": None,
        "validation_data": dataset(*FIT["validation_data"]),
        "test_data": dataset(*FIT["test_data"]),
    }
    search = make(rewind_to=5, schedule=[0.5], controls={})
    table = search.search(**FIT | data)
    assert len(table) == 2
    assert search.curve(0)["step"] == [4, 8, 12]
    with pytest.raises(ValueError, match="known length"):
        make().search(**FIT | data | {"x": data["x"].repeat()})


@pytest.mark.tensorflow
def test_tensorboard(tmp_path, finished):
    kl.tensorboard.write_curves(finished, tmp_path)
    assert len(list(tmp_path.rglob("events*"))) == len(finished.results())


@pytest.mark.once
def test_verbose_0_is_silent(capsys):
    make(schedule=[0.5], controls={}).search(**FIT | {"epochs": 1})
    assert capsys.readouterr() == ("", "")
