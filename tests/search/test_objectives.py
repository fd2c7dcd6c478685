"""Searches by other objectives than an accuracy, on data of other kinds than arrays."""

import keras
import numpy as np
import pandas as pd
import pytest

import keras_lottery as kl
from keras_lottery.engines.evaluation import evaluate
from keras_lottery.engines.objective import resolve
from tests.search.small_search import X, Y, build

LINEAR = X @ np.arange(6.0)
HOW = {"epochs": 2, "verbose": 0}


def mlp(loss, metrics, outputs=1):
    x = keras.Input((6,), name="x")
    hidden = keras.layers.Dense(8, "relu", name="hidden")(x)
    ends = [keras.layers.Dense(1, name=f"head_{i}")(hidden) for i in range(outputs)]
    model = keras.Model(x, ends[0] if outputs == 1 else ends)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=metrics)
    return model


def search(model, objective, **arguments):
    return kl.LotteryTicketSearch(
        model, [0.5], objective=objective, workers=0, **arguments
    )


@pytest.mark.once
def test_a_regression_by_its_error(tmp_path):
    found = search(mlp("mse", ["mae"]), "val_mae", directory=tmp_path)
    order = np.random.default_rng(0).permutation(200)
    frame = pd.DataFrame(X, index=order)
    table = found.search(
        frame, pd.Series(LINEAR, index=order), validation_split=0.25, **HOW
    )
    assert list(table.columns) == kl.results.columns(kl.Objective("val_mae"))
    assert list(found.curve(1)) == ["step", "val_loss", "val_mae"]
    verdict = found.verdict()
    difference = table["early_stop_val_mae"][1:] - table["early_stop_val_mae"][0]
    ticket = table["variant"][1:] == "ticket"
    assert verdict["difference"].item() == pytest.approx(difference[ticket].item())
    is_less = bool(difference[ticket].item() <= 0)
    stops = table["early_stop_step"]
    is_sooner = bool(stops[1:][ticket].item() <= stops[0])
    assert verdict["winning"].item() is (is_less and is_sooner)
    again = kl.LotteryTicketSearch.load(tmp_path)
    assert again.objective == kl.Objective("val_mae", "min")
    pd.testing.assert_frame_equal(again.verdict(), verdict)
    assert again.best(margin=100.0).level == 1
    figure = kl.plots.plot_search(table)
    assert figure.axes[0].get_ylabel() == "validation mae at early stop"
    page = kl.report.write_report(tmp_path).read_text()
    assert f"{table['early_stop_val_mae'][0]:.4g}" in page
    assert "validation mae" in page
    assert "accuracy" not in page.partition("Settings")[0]


@pytest.mark.once
def test_a_sigmoid_classifier_by_its_auc():
    model = mlp(
        "binary_crossentropy",
        [keras.metrics.AUC(from_logits=True, name="auc"), "accuracy"],
    )
    found = search(model, "val_auc")
    table = found.search(
        X[:150], Y[:150], validation_data=(X[150:], Y[150:]), test_data=(X, Y), **HOW
    )
    assert table["early_stop_test_auc"].between(0, 1).all()
    assert found.objective.direction == "max"
    assert "beats_reinit" in found.verdict()


FUSED = [pytest.param(e, marks=pytest.mark.fused) for e in ("fused", "vectorized")]


@pytest.mark.parametrize("engine", ["fit", *FUSED])
def test_two_outputs_by_the_error_of_one(engine):
    if engine == "vectorized" and keras.backend.backend() != "jax":
        pytest.skip("JAX alone stacks tickets")
    model = mlp({"head_0": "mse", "head_1": "mse"}, {"head_1": ["mae"]}, outputs=2)
    found = search(model, "val_head_1_mae", engine=engine)
    targets = {"head_0": LINEAR, "head_1": -LINEAR}
    split = {name: values[150:] for name, values in targets.items()}
    table = found.search(
        X,
        targets,
        validation_data=(X[150:], split),
        test_data=(X, targets),
        **HOW,
    )
    assert table["early_stop_test_head_1_mae"].notna().all()
    assert found.verdict()["difference"].notna().all()
    assert found.settings["engine"] == engine


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x) // 10

    def __getitem__(self, index):
        part = slice(10 * index, 10 * index + 10)
        return self.x[part], self.y[part]


def test_a_dataset_by_its_loss(tmp_path):
    data = {
        "x": Batches(X[:100], Y[:100]),
        "validation_data": Batches(X[100:150], Y[100:150]),
        "test_data": Batches(X[150:], Y[150:]),
    }
    found = search(build(metrics=()), "val_loss", directory=tmp_path, rewind_to="1ep")
    table = found.search(**data, **HOW)
    assert (table["early_stop_val_loss"] <= table["final_val_loss"]).all()
    assert found.verdict("validation")["difference"].notna().all()
    assert list(found.curve(0)) == ["step", "val_loss"]
    again = search(build(metrics=()), "val_loss", directory=tmp_path, rewind_to="1ep")
    with pytest.raises(ValueError, match="batches"):
        again.search(**data | {"x": Batches(X[:90], Y[:90])}, **HOW)


@pytest.fixture(scope="module")
def reported():
    """A model of many metrics, and what it reported."""

    def mine(y, predictions):
        return keras.ops.mean(keras.ops.abs(y - predictions), -1)

    def mine_accuracy(y, predictions):
        return mine(y, predictions)

    metrics = [
        keras.metrics.MeanSquaredError("other"),
        mine,
        mine_accuracy,
        keras.metrics.F1Score(),
        keras.metrics.R2Score(),
        keras.metrics.TopKCategoricalAccuracy(1, "top"),
    ]
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse", metrics=metrics)
    return model, evaluate(model, (X, np.eye(2, dtype="float32")[Y]))


@pytest.mark.parametrize(
    ("objective", "direction"),
    [
        ("val_loss", "min"),
        ("val_top", "max"),
        ("val_r2_score", "max"),
        ("val_mine_accuracy", "max"),
        (kl.Objective("val_mine", "min"), "min"),
        ("val_mine", r"objective=Objective\('val_mine', 'max'\)"),
        ("val_f1_score", r"shape \(2,\).*average='macro'"),
        ("val_nope", r"one of the model's metrics, \['val_.*'val_nope'"),
        ("mae", "such as 'val_accuracy'"),
        (kl.Objective, "or an `Objective`"),
        (None, r"reports no accuracy.*'val_loss', 'val_mine'"),
    ],
)
def test_directions_are_known_or_asked_for(reported, objective, direction):
    model, logs = reported
    if objective is None:
        logs = {name: value for name, value in logs.items() if "acc" not in name}
    if direction in ("min", "max"):
        assert resolve(objective, model, logs).direction == direction
    else:
        with pytest.raises(ValueError, match=direction):
            resolve(objective, model, logs)


@pytest.mark.once
def test_class_weights_are_for_one_output():
    with pytest.raises(ValueError, match="with one output"):
        search(mlp("mse", [], 2), "val_loss").search(
            X, [Y, Y], validation_split=0.2, class_weight={0: 1.0}, **HOW
        )
