"""Tickets in other networks and other trainings."""

import dataclasses
import json
from functools import partial

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers

import keras_lottery as kl
from keras_lottery import engines
from keras_lottery.engines import Done, Engine, Facts, Training
from keras_lottery.engines.objective import ACCURACY
from keras_lottery.engines.record import Reached, TrainingRecord
from keras_lottery.files import read_json
from keras_lottery.keras_bridge import architecture
from keras_lottery.keras_bridge.layers import get_masks, get_state, mask_model
from keras_lottery.study.transfer import compare_transfer
from keras_lottery.tickets import Ticket, load_ticket
from tests.models_zoo import ZOO, assert_equal, mlp, outputs, pruned, scramble

pytestmark = pytest.mark.once


def ticket_of(model, **fields):
    return Ticket(
        get_masks(model),
        get_state(model),
        architecture=architecture.to_text(model),
        **fields,
    )


def network(classes=3, hidden=6, features=4, extra=(), head="head"):
    return keras.Sequential(
        [
            keras.Input((features,)),
            layers.Dense(hidden, "relu", name="hidden"),
            layers.BatchNormalization(name="norm"),
            *extra,
            layers.Dense(classes, name=head),
        ]
    )


@pytest.fixture(scope="module")
def ticket():
    model = pruned(scramble(network()))
    return dataclasses.replace(ticket_of(model), step=5, steps=7, card={"level": 3})


@pytest.mark.parametrize("build", ZOO.values(), ids=list(ZOO))
def test_to_the_same_network_all_is_carried(build):
    model = pruned(scramble(build()))
    target = scramble(build(), seed=1)
    before = get_state(target)
    there = ticket_of(model).transfer(target)
    assert there.masks == get_masks(model)
    assert_equal(get_state(target).values(), before.values())
    own = get_state(there.initial_model())
    for name, array in get_state(model).items():
        if "float" in array.dtype.name:
            np.testing.assert_array_equal(own[name], array)
    assert there.card["transfer"]["own"] == {}
    np.testing.assert_array_equal(outputs(there.initial_model()), outputs(model))


def test_a_head_for_other_classes_is_the_models_own(ticket):
    target = scramble(network(classes=8), seed=1)
    there = ticket.transfer(target)
    assert there.masks["hidden/kernel"].tolist() == (
        ticket.masks["hidden/kernel"].tolist()
    )
    assert there.masks["head/kernel"].all()
    expected = get_state(mask_model(target))
    expected |= {n: a for n, a in ticket.weights.items() if not n.startswith("head/")}
    assert there.weights.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(there.weights[name], array)
    assert (there.step, there.steps, there.trained) == (0, 0, None)
    assert there.card == {
        "sparsity": there.masks.sparsity,
        "transfer": {
            "carried": ["hidden", "norm"],
            "own": {
                "head": "kernel (6, 3), bias (3,) there, kernel (6, 8), bias (8,) here"
            },
            "left": [],
        },
        "source": {"level": 3},
    }
    json.dumps(there.card)


def test_layers_that_are_asked_for_are_the_models_own(ticket):
    target = scramble(network(), seed=1)
    there = ticket.transfer(target, replace="he*")
    assert there.masks["head/kernel"].all()
    state = get_state(target)
    np.testing.assert_array_equal(there.weights["head/kernel"], state["head/kernel"])
    assert there.card["transfer"]["own"] == {"head": "replaced, as asked"}
    with pytest.raises(ValueError, match=r"'output'.*matches no layer.*hidden"):
        ticket.transfer(target, replace=["head", "output"])


def test_layers_of_one_network_alone_are_named(ticket):
    target = network(extra=[layers.Dense(6, name="more")], head="new_head")
    report = ticket.transfer(target).card["transfer"]
    assert report == {
        "carried": ["hidden", "norm"],
        "own": {"more": "not in the ticket", "new_head": "not in the ticket"},
        "left": ["head"],
    }


def test_layers_inside_a_replaced_model():
    def build():
        x = keras.Input((4,))
        part = keras.Sequential([layers.Dense(4, name="inner")], name="part")
        return keras.Model(x, layers.Dense(2, name="outer")(part(x)))

    ticket = ticket_of(pruned(build()))
    assert ticket.transfer(build(), replace="part").card["transfer"]["own"] == {
        "part/inner": "replaced, as asked"
    }


def test_what_was_adapted_to_the_data_stays():
    def build(mean):
        adapted = layers.Normalization(name="scale")
        adapted.adapt(np.array([[mean - 1.0], [mean + 1.0]], "float32"))
        return keras.Sequential(
            [keras.Input((1,)), adapted, layers.Dense(4, name="hidden")]
        )

    there = ticket_of(pruned(build(3.0))).transfer(build(7.0))
    assert there.weights["scale/mean"] == pytest.approx(7)
    assert there.card["transfer"]["own"] == {"scale": "adapted to the data here"}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            network(features=9),
            r"'hidden'.*kernel \(4, 6\).*kernel \(9, 6\).*inputs.*\(4,\).*\(9,\)"
            r".*replace=\['hidden'\]",
        ),
        (network(hidden=9), r"'norm'|'head'.*kernel \(6, 3\).*kernel \(9, 3\)"),
        (mlp(), r"layers of the ticket, \['head', 'hidden'\].*'dense"),
    ],
)
def test_networks_that_do_not_fit_are_refused(ticket, target, message):
    with pytest.raises(ValueError, match=message):
        ticket.transfer(target)


def test_a_network_that_shares_only_its_names_is_refused(ticket):
    with pytest.raises(ValueError, match="all differ"):
        ticket.transfer(network(), replace=["hidden", "head"])


def test_a_layer_without_a_masked_form_is_refused(ticket):
    class Mine(layers.Dense):
        pass

    target = keras.Sequential(
        [
            keras.Input((4,)),
            Mine(6, name="hidden"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(3, name="head"),
        ]
    )
    with pytest.raises(ValueError, match=r"no masked form.*hidden/kernel.*replace"):
        ticket.transfer(target)


def test_a_ticket_that_was_read_travels(ticket, tmp_path):
    """Its pruned weights are unknown, and used by nothing."""
    ticket.save(tmp_path / "my.ticket")
    there = load_ticket(tmp_path / "my.ticket").transfer(network(classes=8))
    assert np.isnan(there.weights["hidden/kernel"]).any()
    assert np.isfinite(outputs(there.initial_model())).all()


RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype("float32")
Y = (X.sum(1) > 0).astype("int32")
DATA = {"validation_data": (X[:20], Y[:20]), "test_data": (X[20:40], Y[20:40])}


def trainable(optimizer="adam", **kwargs):
    keras.utils.set_random_seed(1)
    model = network(**kwargs)
    loss = keras.losses.SparseCategoricalCrossentropy(True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def compare(ticket, model=None, **arguments):
    defaults = {"batch_size": 10, "epochs": 1, "verbose": 0, "workers": 0}
    arguments = defaults | DATA | arguments
    return compare_transfer(ticket, model or trainable(), X, Y, **arguments)


def test_the_table(ticket):
    model = trainable(classes=2)
    before = get_state(model)
    table = compare(ticket, model, replicates=2)
    assert list(table.columns) == kl.results.columns(ACCURACY)
    rows = table[["level", "variant", "replicate", "trial"]].to_numpy().tolist()
    assert rows == [
        [0, "ticket", 0, 0],
        [0, "ticket", 1, 0],
        *([1, name, r, 0] for name in ("random", "reinit", "ticket") for r in (0, 1)),
    ]
    dense, others = table[table["level"] == 0], table[table["level"] == 1]
    assert set(dense["density"]) == {1.0}
    # The head of two units is the model's own, dense.
    sparsity = ticket.transfer(model).masks.sparsity
    assert 0 < sparsity < ticket.masks.sparsity
    assert set(others["sparsity"]) == {sparsity}
    assert table["final_test_accuracy"].between(0, 1).all()
    assert set(table["early_stop_step"]) == {6}
    assert len(set(table["final_val_loss"])) == len(table)
    verdict = kl.results.verdict(table)
    assert list(verdict["level"]) == [1]
    assert {"difference", "beats_reinit"} <= set(verdict.columns)
    assert_equal(get_state(model).values(), before.values())


@pytest.fixture(scope="module")
def whole(ticket):
    """A comparison without `seconds`, which no seed determines."""
    table = compare(ticket, replicates=2, controls=["random"])
    return table.drop(columns="seconds")


def test_another_seed_gives_another_table(ticket, whole):
    other = compare(ticket, controls=["random"], seed=1)
    first = whole.query("replicate == 0")
    assert set(other["final_val_loss"]).isdisjoint(first["final_val_loss"])


class Killed(BaseException):
    """Ends the process, as far as the comparison can tell."""


def test_killed_and_run_again_it_goes_on_to_the_same(
    ticket, whole, tmp_path, monkeypatch
):
    trained, train = [], Engine.train

    def counting(self, *args, **kwargs):
        trained.append(args)
        if len(trained) == 4:
            raise Killed
        return train(self, *args, **kwargs)

    monkeypatch.setattr(Engine, "train", counting)
    with pytest.raises(Killed):
        compare(ticket, replicates=2, controls=["random"], directory=tmp_path)
    table = compare(ticket, replicates=2, controls=["random"], directory=tmp_path)
    assert len(trained) == len(table) + 1 == 7
    pd.testing.assert_frame_equal(table.drop(columns="seconds"), whole)
    # All of it was kept, and more of it may be asked for.
    again = compare(ticket, replicates=2, controls=["random"], directory=tmp_path)
    assert len(trained) == 7
    pd.testing.assert_frame_equal(again, table)
    grown = compare(ticket, controls=["random", "shuffle"], directory=tmp_path)
    assert len(trained) == 8 and len(grown) == 4


def test_a_training_that_was_interrupted_goes_on(ticket, whole, tmp_path, monkeypatch):
    real, steps = TrainingRecord.reached, []

    def reached(self, step):
        real(self, step)
        steps.append(step)
        if len(steps) == 3:
            raise Killed

    monkeypatch.setattr(TrainingRecord, "reached", reached)
    how = {"replicates": 2, "controls": ["random"], "directory": tmp_path}
    with pytest.raises(Killed):
        compare(ticket, **how, checkpoint=2)
    assert len(list(tmp_path.rglob("*.unfinished"))) == 1
    table = compare(ticket, **how, checkpoint=2)
    pd.testing.assert_frame_equal(table.drop(columns="seconds"), whole)
    # Of six trainings of six steps, one step was done twice.
    assert len(steps) == 37
    assert not list(tmp_path.rglob("*.unfinished"))


def test_other_trainings_in_the_directory_are_refused(ticket, asked, tmp_path):
    asked(ticket, directory=tmp_path)
    before = read_json(tmp_path / "settings.json")
    other = ticket_of(pruned(scramble(network(), seed=2)))
    for arguments, message in [
        ({"ticket": other}, r"tickets\[0\]\.weights"),
        ({"seed": 1}, "seed: 0 there, 1 here"),
        ({"optimizer": "sgd"}, "model.optimizer"),
        ({"epochs": 2}, "steps: 6 there, 12 here"),
    ]:
        with pytest.raises(ValueError, match=message):
            asked(**{"ticket": ticket, "directory": tmp_path} | arguments)
    search = kl.LotteryTicketSearch(trainable(), [0.5], directory=tmp_path)
    with pytest.raises(ValueError, match="study: 'compare_transfer' there, None here"):
        search.search(X, Y, validation_data=DATA["validation_data"], epochs=1)
    assert read_json(tmp_path / "settings.json") == before
    asked(other, directory=tmp_path, overwrite=True)
    assert read_json(tmp_path / "settings.json") != before


@pytest.mark.slow
def test_it_trains_in_workers(ticket):
    alone, together = (compare(ticket, workers=workers) for workers in (1, 2))
    pd.testing.assert_frame_equal(
        alone.drop(columns="seconds"), together.drop(columns="seconds")
    )


class Listing:
    """An engine that trains nothing, and keeps what it was asked for."""

    name, objective, compact, most = "fit", ACCURACY, False, 1

    def __init__(self, name, model, data, **options):
        self.model, self.data = model, data
        type(self).last = self

    def train_all(self, waiting, progress):
        self.asked = []
        while waiting:
            task = waiting.pop(0)
            ticket = task.make(self.model, self.data.examples)
            self.asked.append((ticket, task.seed))
            progress(task, Reached())
            metrics = {"seconds": 0.0, "early_stop_val_accuracy": 0.5}
            training = Training({}, {}, {}, metrics)
            yield Done(task, Facts.of(ticket), training)


@pytest.fixture
def asked(monkeypatch):
    """Compares, and returns the engine with what it was asked for."""
    monkeypatch.setattr(engines, "make", Listing)

    def ask(*args, **kwargs):
        table = compare(*args, **kwargs)
        return Listing.last, table

    return ask


def test_what_is_trained(ticket, asked):
    model = trainable(classes=2)
    engine, _ = asked(ticket, model, replicates=2, epochs=3)
    works = engine.asked
    (dense, order), (found, _), (reinit, _), (random, _), *rest = works
    (dense_1, order_1), (found_1, _), *_ = rest
    own = get_state(model)
    kernel, head = "hidden/kernel", "head/kernel"
    for name, array in own.items():
        np.testing.assert_array_equal(dense.weights[name], array)
    np.testing.assert_array_equal(found.weights[kernel], ticket.weights[kernel])
    np.testing.assert_array_equal(found_1.weights[kernel], ticket.weights[kernel])
    np.testing.assert_array_equal(found.weights[head], own[head])
    # Each replicate has a dense network of its own, and the ticket its head.
    assert (dense_1.weights[kernel] != own[kernel]).all()
    np.testing.assert_array_equal(found_1.weights[head], dense_1.weights[head])
    assert {seed for _, seed in works} == {order, order_1} and order != order_1
    assert reinit.masks == found.masks and dense.masks.sparsity == 0
    assert (reinit.weights[kernel] != found.weights[kernel]).all()
    assert random.masks != found.masks
    assert {(made.step, made.steps) for made, _ in works} == {(0, 18)}


@pytest.mark.parametrize("granularity", ["block_1x4", (2, 3), "2:4", "filter"])
@pytest.mark.parametrize("head", ["head", "new_head"])
def test_masks_of_controls_keep_the_form_of_the_tickets(asked, granularity, head):
    network = partial(trainable, features=8, hidden=12)
    model = mask_model(network())
    kl.prune(model, 0.5, granularity=granularity)
    # As JSON has it.
    given = granularity if isinstance(granularity, str) else list(granularity)
    ticket = ticket_of(model, card={"settings": {"granularity": given}})
    if head == "head":
        ticket = ticket.transfer(network())  # And on from there.
    assert ticket.granularity == granularity
    target = network(head=head)
    works = asked(ticket, target, controls=["random", "shuffle"])[0].asked
    found, random, shuffled = (made.masks for made, _ in works[1:])
    assert random != found != shuffled
    for masks in (random, shuffled):
        for name, mask in masks.items():
            assert form(mask, granularity) == form(found[name], granularity), name
            if head == "new_head" and granularity != "filter":
                assert not name.startswith("new_head")


def form(mask, granularity):
    """How many weights each group of a layer has left, in order."""
    if granularity == "filter":
        return sorted(mask.any(0)), sorted(mask.any(1))
    high, wide = (4, 1) if isinstance(granularity, str) else granularity
    return sorted(
        int(mask[i : i + high, j : j + wide].sum())
        for i in range(0, len(mask), high)
        for j in range(0, mask.shape[1], wide)
    )


def test_the_optimizer_is_replaced(ticket, asked):
    model = trainable("adam")
    given = keras.optimizers.SGD(0.25, momentum=0.5)
    optimizer = asked(ticket, model, optimizer=given)[0].model.optimizer
    assert (type(optimizer).__name__, optimizer.momentum) == ("SGD", 0.5)
    assert float(optimizer.learning_rate) == 0.25
    assert type(model.optimizer).__name__ == "Adam" and not given.built


def test_a_ticket_for_each_replicate(ticket, asked):
    other = ticket_of(pruned(scramble(network(), seed=2)))
    works = asked([ticket, other], controls=[])[0].asked
    assert works[1][0].masks == ticket.masks
    assert works[3][0].masks == other.masks
    with pytest.raises(ValueError, match=r"replicates=3 and 2 tickets"):
        compare([ticket, other], replicates=3)


def test_controls_that_need_what_a_file_left_out(ticket, tmp_path, asked):
    ticket.save(tmp_path / "kept.ticket")
    ticket.save(tmp_path / "all.ticket", weights="all")
    lost = load_ticket(tmp_path / "kept.ticket")
    with pytest.raises(ValueError, match=r"'shuffle'.*hidden/kernel.*weights='all'"):
        asked(lost, controls=["shuffle"])
    assert len(asked(lost, controls=["reinit"])[1]) == 3
    whole = load_ticket(tmp_path / "all.ticket")
    assert len(asked(whole, controls={"shuffle": 2})[1]) == 4


def test_what_a_control_cannot_do_is_known_before_any_training(ticket, monkeypatch):
    monkeypatch.setattr(engines, "make", None)
    with pytest.raises(ValueError, match="'invert' needs the scores"):
        compare(ticket, controls=["invert"])


def test_a_control_of_ones_own(ticket, asked):
    own = ticket_of(pruned(scramble(network(), seed=2), 0.2))
    table = asked(ticket, controls={"own": (lambda ticket, snapshot: own, 1)})[1]
    sparsity = table.set_index("variant")["sparsity"]
    assert sparsity["own"] == own.masks.sparsity


def test_arguments_are_checked_before_training(ticket):
    uncompiled = network()
    for arguments, message in [
        ({"model": uncompiled}, "compiled Keras model"),
        ({"replicates": 0}, "replicates=0"),
        ({"controls": ["mine"]}, "mine"),
        ({"epochs": None}, "`epochs` or `steps`"),
        ({"validation_data": None}, "validation_data"),
        ({"optimizer": "sdg"}, "sdg"),
        ({"engine": "fast"}, "fast"),
    ]:
        with pytest.raises(ValueError, match=message):
            compare(ticket, **arguments)


def test_a_loss_that_is_not_a_number_is_named(ticket):
    with pytest.raises(FloatingPointError, match=r"level 0: ticket"):
        compare(ticket, optimizer=keras.optimizers.SGD(1e30))
