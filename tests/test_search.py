"""The search: the algorithm, its controls, its guarantees."""

import json

import keras
import numpy as np
import pandas as pd
import pytest

import keras_lottery as kl
from keras_lottery import results as tables
from keras_lottery.engines.data import Data
from keras_lottery.engines.fit import FitEngine
from keras_lottery.rewind import FineTune, Rewind
from keras_lottery.search import LotteryTicketSearch
from keras_lottery.search.trainings import read_training
from keras_lottery.store import CorruptedFileError, Unit

rng = np.random.default_rng(0)
X = rng.normal(size=(200, 6)).astype("float32")
Y = (X[:, 0] * X[:, 1] > 0).astype("int32")
DATA = {
    "x": X[:100],
    "y": Y[:100],
    "validation_data": (X[100:150], Y[100:150]),
    "test_data": (X[150:], Y[150:]),
}
FIT = DATA | {"batch_size": 16, "epochs": 2, "eval_freq": 4, "verbose": 0}


def build(learning_rate=0.01, metrics=("accuracy",), seed=None):
    initializer = keras.initializers.GlorotNormal(seed)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(12, "relu", kernel_initializer=initializer),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(2, kernel_initializer=initializer, name="output"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=list(metrics),
    )
    return model


def make(directory=None, model=build, **arguments):
    defaults = {"schedule": [0.5, 0.75], "controls": {"reinit": 1}, "replicates": 1}
    return LotteryTicketSearch(model, directory=directory, **(defaults | arguments))


def stored(search, unit):
    return read_training(search.store.training(unit))


def numbers(search):
    return search.results().drop(columns="seconds")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    search = make(tmp_path_factory.mktemp("run"), replicates=2)
    search.search(**FIT)
    return search


def test_results_have_one_tidy_row_for_each_training(finished):
    table = finished.results()
    assert list(table.columns) == tables.COLUMNS
    counts = table.groupby(["level", "variant"]).size()
    assert counts.to_dict() == {
        (0, "ticket"): 2,
        (1, "reinit"): 2,
        (1, "ticket"): 2,
        (2, "reinit"): 2,
        (2, "ticket"): 2,
    }
    assert sorted(table["density"].unique()) == [0.25, 0.5, 1.0]
    assert table.notna().all(axis=None)
    assert (table["seconds"] > 0).all()
    stored = pd.read_csv(finished.store.results)
    pd.testing.assert_frame_equal(stored, table)


def test_the_same_seed_gives_the_same_search_and_another_one_does_not(finished):
    again = make(replicates=2)
    again.search(**FIT)
    pd.testing.assert_frame_equal(numbers(again), numbers(finished))
    for level in (1, 2):
        assert again.ticket(level, 1).masks == finished.ticket(level, 1).masks
    other = make(replicates=2, seed=1)
    other.search(**FIT)
    assert not numbers(other).equals(numbers(finished))


def test_what_is_not_trained_is_not_drawn_anew():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Normalization(),
            keras.layers.Dense(8, name="frozen", trainable=False),
            keras.layers.Dense(2, name="output"),
        ]
    )
    model.layers[0].adapt(5 * X + 3)
    masked = kl.mask_model(model)
    np.testing.assert_allclose(
        masked.predict(X[:5], verbose=0), model.predict(X[:5], verbose=0), rtol=1e-5
    )
    state, drawn = kl.layers.get_state(masked), kl.layers.redraw(masked, 1)
    same = {name for name in state if np.array_equal(state[name], drawn[name])}
    assert "normalization/mean" in same and "frozen/kernel" in same
    assert "output/kernel" not in same


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
    first = make(tmp_path, model=build_two, schedule=[0.5]).search(**data)
    again = make(tmp_path, model=build_two, schedule=[0.5]).search(**data)
    pd.testing.assert_frame_equal(first, again)


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


def test_replicates_start_from_other_weights(finished):
    first, second = finished.ticket(0, 0), finished.ticket(0, 1)
    name = "output/kernel"
    assert not np.array_equal(first.weights[name], second.weights[name])


def test_a_pruned_weight_stays_pruned(finished):
    for replicate in (0, 1):
        one, two = (finished.ticket(level, replicate).masks for level in (1, 2))
        assert all((two[name] <= one[name]).all() for name in one)


def test_tickets_restart_from_the_initial_weights_to_the_bit(finished):
    dense = finished.ticket(0)
    for level in (1, 2):
        ticket = finished.ticket(level)
        assert ticket.step == 0
        for name, initial in dense.weights.items():
            np.testing.assert_array_equal(ticket.weights[name], initial)
        # The trained weights are others: the initial ones are no alias of them.
        assert not np.array_equal(ticket.trained["dense/bias"], initial)


def test_every_replicate_trains_and_rewinds_to_its_own_initial_weights(finished):
    for replicate in (0, 1):
        initial = finished.ticket(0, replicate).weights
        dense = stored(finished, Unit(replicate, 0, "ticket"))[0]
        for name, value in initial.items():
            np.testing.assert_array_equal(dense.rewind_point[name], value)
            np.testing.assert_array_equal(
                finished.ticket(2, replicate).weights[name], value
            )


def test_no_mask_of_an_earlier_training_is_left_in_a_later_one(finished):
    data = Data((X[:100], Y[:100]), FIT["validation_data"], None, batch_size=16)
    engine = FitEngine(kl.mask_model(build()), data, 12, 0, 4)
    dense, sparse = finished.ticket(0), finished.ticket(2)
    fresh = engine.train(dense, seed=3)
    engine.train(sparse, seed=3)
    again = engine.train(dense, seed=3)
    for name, value in fresh.final.items():
        np.testing.assert_array_equal(again.final[name], value)
        np.testing.assert_array_equal(again.rewind_point[name], dense.weights[name])


def test_masks_are_those_of_the_largest_trained_weights(finished):
    for level, kept in ((1, 48), (2, 24)):
        before, ticket = finished.ticket(level - 1), finished.ticket(level)
        scores = np.concatenate(
            [np.abs(before.trained[n][before.masks[n]]) for n in ticket.masks]
        )
        chosen = np.concatenate(
            [ticket.masks[n][before.masks[n]] for n in ticket.masks]
        )
        assert chosen.sum() == kept
        assert scores[chosen].min() >= scores[~chosen].max()


def test_trained_model_scores_what_the_results_say(finished):
    row = finished.results().query("variant == 'ticket' and level == 2").iloc[0]
    model = finished.ticket(2).trained_model()
    accuracy = model.evaluate(*FIT["test_data"], verbose=0, return_dict=True)[
        "accuracy"
    ]
    assert accuracy == pytest.approx(row["final_test_accuracy"])
    initial = finished.ticket(2).initial_model()
    weights = kl.layers.get_state(initial)["dense/kernel"]
    assert (weights[~finished.ticket(2).masks["dense/kernel"]] == 0).all()


def test_early_stop_is_the_first_minimum_of_validation_loss(finished):
    curve = finished.curve(1)
    assert curve["step"] == [4, 8, 12]
    row = finished.results().query("variant == 'ticket' and level == 1").iloc[0]
    best = int(np.argmin(curve["val_loss"]))
    assert row["early_stop_step"] == curve["step"][best]
    assert row["early_stop_val_accuracy"] == curve["val_accuracy"][best]


# --- rewinding ---


@pytest.mark.parametrize(
    ("rewind", "rewind_to"),
    [
        ("weights", 0),
        ("weights", 5),
        ("weights", "1ep"),
        ("learning_rate", 5),
        ("fine_tune", 5),
        ("continue", 5),
    ],
)
def test_rewinding_goes_to_the_right_weights_and_step(rewind, rewind_to):
    search = make(rewind=rewind, rewind_to=rewind_to, controls={})
    search.search(**FIT)
    k = {0: 0, 5: 5, "1ep": 6}[rewind_to]
    point = stored(search, Unit(0, 0, "ticket"))[0].rewind_point
    for level in (1, 2):
        ticket = search.ticket(level)
        ends = search.ticket(level - 1).trained
        expected = ends if rewind in ("learning_rate", "fine_tune") else point
        for name, value in expected.items():
            np.testing.assert_array_equal(ticket.weights[name], value)
        assert (ticket.step, ticket.steps) == (
            (12, 12) if rewind == "fine_tune" else (k, 12 - k)
        )


def test_the_rewind_point_holds_statistics_and_random_state():
    search = make(rewind_to=5, controls={})
    search.search(**FIT)
    point = stored(search, Unit(0, 0, "ticket"))[0].rewind_point
    initial = search.ticket(0).weights
    for name in ("batch_normalization/moving_mean", "dropout/seed_generator_state"):
        assert not np.array_equal(point[name], initial[name])


class Rates(keras.callbacks.Callback):
    """Writes down the learning rate of each step."""

    seen: list

    def on_train_begin(self, logs=None):
        optimizer = self.model.optimizer
        Rates.seen.append((int(optimizer.iterations), float(optimizer.learning_rate)))

    def on_train_batch_end(self, batch, logs=None):
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        self.on_train_begin()


@pytest.mark.parametrize(
    ("rewind", "first", "last"),
    [
        ("weights", (0, 0.05), (7, 0.12)),
        ("learning_rate", (0, 0.05), (7, 0.12)),
        ("fine_tune", (0, 0.11), (12, 0.11)),
        (Rewind(FineTune(steps=3, learning_rate=0.5)), (0, 0.5), (3, 0.5)),
    ],
)
def test_the_schedule_is_offset_and_the_optimizer_is_not(rewind, first, last):
    class Line(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.01 * keras.ops.cast(step, "float32")

        def get_config(self):
            return {}

    Rates.seen = []
    search = make(
        model=lambda: build(Line()),
        rewind=rewind,
        rewind_to=5,
        controls={},
        schedule=[0.5],
    )
    search.search(**FIT, callbacks=[Rates()])
    dense = [step for step, _ in Rates.seen].index(12)
    ticket = Rates.seen[dense + 1 :]
    assert ticket[0] == pytest.approx(first)
    # After its last step an optimizer shows the rate of the next one.
    if not isinstance(rewind, str) or rewind == "fine_tune":
        assert ticket[-1] == pytest.approx(last)
    else:
        assert ticket[-1][0] == last[0]
        assert ticket[-2][1] == pytest.approx(last[1] - 0.01)


def test_a_fixed_rate_of_fine_tuning_replaces_a_plain_learning_rate():
    Rates.seen = []
    fine_tune = Rewind(FineTune(steps=4, learning_rate=0.25))
    make(rewind=fine_tune, controls={}, schedule=[0.5]).search(
        **FIT, callbacks=[Rates()]
    )
    assert {round(rate, 6) for _, rate in Rates.seen} == {0.01, 0.25}


def test_continue_finds_masks_by_one_run_that_goes_on():
    search = make(rewind="continue", controls={})
    search.search(**FIT)
    trunk = stored(search, Unit(0, 1, "trunk"))
    second = search.ticket(2).masks
    scores = {name: np.abs(trunk[0].final[name]) for name in second}
    expected = kl.allocation.Global()(scores, trunk[2], 0.75)
    assert second == expected
    assert set(search.results()["variant"]) == {"ticket"}


# --- controls ---


def test_controls_change_what_they_name_and_nothing_else():
    seen = {}

    def spy(control):
        def wrapped(ticket, snapshot):
            made = kl.controls.get(control)(ticket, snapshot)
            seen[control] = (ticket, made)
            return made

        return wrapped

    controls = {name: (spy(name), 1) for name in kl.controls.CONTROLS}
    make(controls=controls, schedule=[0.5]).search(**FIT)
    for name, (ticket, made) in seen.items():
        kept = {n: int(mask.sum()) for n, mask in ticket.masks.items()}
        assert {n: int(mask.sum()) for n, mask in made.masks.items()} == kept
        other_masks = name in ("shuffle", "random", "invert")
        assert (made.masks == ticket.masks) == (not other_masks)
        same = np.array_equal(
            made.weights["dense/kernel"], ticket.weights["dense/kernel"]
        )
        assert same == (name in ("shuffle", "invert"))
        assert (made.step, made.steps) == (ticket.step, ticket.steps)


def test_trials_of_a_control_differ(tmp_path):
    search = make(controls={"reinit": 2}, schedule=[0.5])
    search.search(**FIT)
    trials = search.results().query("variant == 'reinit'")
    assert trials["final_val_loss"].nunique() == 2


def test_seeded_initialisers_are_drawn_anew_for_replicates_and_controls():
    search = make(model=build(seed=3), replicates=2, schedule=[0.5])
    search.search(**FIT)
    first, second = search.ticket(0, 0).weights, search.ticket(0, 1).weights
    assert not np.array_equal(first["dense/kernel"], second["dense/kernel"])
    table = search.results().query("level == 1 and replicate == 0")
    assert table["final_val_loss"].nunique() == 2


@pytest.mark.parametrize("resume", [True, False])
def test_a_build_function_that_seeds_itself_is_refused_for_replicates(tmp_path, resume):
    """The directory stays as it was: the corrected function finds no settings there."""
    (tmp_path / "replicate_0").mkdir()
    kept = tmp_path / "replicate_0" / "kept.txt"
    kept.write_text("of a search before")
    search = make(tmp_path, lambda: build(seed=3), replicates=2, schedule=[0.5])
    with pytest.raises(ValueError, match="sets a seed"):
        search.search(**FIT, resume=resume)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [kept]


# --- one training ---


def test_training_twice_in_one_engine_gives_the_same_to_the_bit(finished):
    data = Data((X[:100], Y[:100]), FIT["validation_data"], None, batch_size=16)
    engine = FitEngine(kl.mask_model(build()), data, 12, 0, 4)
    ticket = finished.ticket(1)
    first, second = (engine.train(ticket, seed=3) for _ in range(2))
    for name, value in first.final.items():
        np.testing.assert_array_equal(second.final[name], value)
    assert first.curve == second.curve
    other = engine.train(ticket, seed=4)
    assert other.curve != first.curve
    for name, mask in ticket.masks.items():
        assert (first.final[name][~mask] == 0).all()
        assert (first.final[name][mask] != 0).all()


def test_a_rewind_point_in_the_middle_of_an_epoch_does_not_change_the_training(
    finished,
):
    data = Data((X[:100], Y[:100]), FIT["validation_data"], None, batch_size=16)
    ticket = finished.ticket(0)
    plain, cut = (
        FitEngine(kl.mask_model(build()), data, 12, k, 4).train(ticket, 3)
        for k in (0, 5)
    )
    for name, value in plain.final.items():
        np.testing.assert_array_equal(cut.final[name], value)
    assert plain.curve == cut.curve


@pytest.mark.parametrize("levels", [None, [2]])
def test_tickets_found_before_any_training(levels, tmp_path):
    """Each level by itself, from the initial weights, whatever is trained."""
    seen = []

    def snip(snapshot):
        seen.append(snapshot)
        return kl.criteria.get("snip")(snapshot)

    asked = {"criterion": snip, "replicates": 2, "report_levels": levels}
    search = make(tmp_path, **asked, controls={}, prune_at_init=True)
    table = search.search(**FIT | {"epochs": 1})
    assert set(table["level"]) == {0, *(levels or [1, 2])}
    masks = []
    for replicate in (0, 1):
        ticket = search.ticket(2, replicate)
        initial = search.ticket(0, replicate).weights
        assert_same(ticket.weights, initial)
        dense = kl.mask_model(build())
        kl.layers.set_state(dense, initial)
        kl.prune_at_init(dense, 0.75, "snip", data=(X[:100], Y[:100]))
        masks.append(kl.get_masks(dense))
        assert ticket.masks == masks[-1]
    assert masks[0] != masks[1]
    # The rehearsal, and the levels.
    assert len(seen) == 1 + 2 * 2
    for snapshot in seen:
        assert snapshot.masks.sparsity == 0
        assert_same(snapshot.final, snapshot.initial)
    assert LotteryTicketSearch.load(tmp_path, criterion=snip).prune_at_init
    with pytest.raises(ValueError, match="prune_at_init: True there, None here"):
        make(tmp_path, **asked, controls={}).search(**FIT | {"epochs": 1})


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])


@pytest.mark.parametrize(
    ("arguments", "fit"),
    [
        ({"rewind": "learning_rate"}, {}),
        ({"rewind": "continue"}, {}),
        ({"rewind_to": 3}, {}),
        ({}, {"mask_epochs": 1}),
    ],
)
def test_tickets_found_before_training_start_from_the_initial_weights(arguments, fit):
    search = make(prune_at_init=True, **arguments)
    with pytest.raises(ValueError, match="prune_at_init=True finds tickets before"):
        search.search(**FIT | fit)


def test_criteria_of_what_training_did():
    """The rehearsal before training is not taken for one that moved nothing."""
    search = make(criterion="distance", schedule=[0.5], controls={})
    search.search(**FIT | {"epochs": 1})
    initial, trained = search.ticket(0).weights, search.ticket(0).trained
    masks = search.ticket(1).masks
    far = {name: abs(trained[name] - initial[name]) for name in masks}
    least = min(far[name][mask].min() for name, mask in masks.items())
    assert least >= max(far[name][~mask].max() for name, mask in masks.items())
    early = make(criterion="distance", prune_at_init=True)
    with pytest.raises(ValueError, match="before and after training"):
        early.search(**FIT)


def test_a_search_prunes_in_the_rounds_of_its_criterion():
    """SynFlow from the trained weights: as `prune` does it."""
    search = make(criterion="synflow", schedule=[0.9], controls={"invert": 1})
    search.search(**FIT | {"epochs": 1})
    model = search.ticket(0).trained_model()
    kl.prune(model, 0.9, "synflow")
    assert search.ticket(1).masks == kl.get_masks(model)


def test_the_given_model_is_left_untouched():
    model = build()
    before = model.get_weights()
    make(model=model, schedule=[0.5]).search(**FIT)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not kl.layers.is_masked(model)


def test_replicate_0_keeps_the_weights_of_the_given_model():
    model = build()
    search = make(model=model, schedule=[0.5], controls={})
    search.search(**FIT)
    np.testing.assert_array_equal(
        search.ticket(0).weights["output/kernel"],
        model.get_layer("output").get_weights()[0],
    )


def test_steps_and_weights_of_examples_and_classes_and_callbacks_reach_fit():
    class Count(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            counts.append(batch)

    counts = []
    arguments = {k: v for k, v in FIT.items() if k != "epochs"} | {"steps": 8}
    search = make(schedule=[0.5], controls={})
    search.search(**arguments, callbacks=[Count()])
    assert len(counts) == 2 * 8
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
    table = make(model=model, controls={}).search(**FIT | data | {"test_data": None})
    assert len(table) == 3
    assert table["final_test_accuracy"].isna().all()


def test_a_loss_of_ones_own():
    def loss(y, predictions):
        return keras.losses.sparse_categorical_crossentropy(y, predictions, True)

    model = build()
    model.compile("adam", loss, metrics=["accuracy"])
    search = make(model=model, controls=["reinit"], schedule=[0.5])
    search.search(**FIT)
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
    search = make(rewind_to=5)
    table = search.search(**FIT | data)
    assert len(table) == 5
    assert search.curve(0)["step"] == [4, 8, 12]
    with pytest.raises(ValueError, match="known length"):
        make().search(**FIT | data | {"x": data["x"].repeat()})


# --- errors, before any training ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"criterion": "magic"}, "criterion='magic'"),
        ({"allocation": "magic"}, "allocation='magic'"),
        ({"granularity": "magic"}, "granularity='magic'"),
        ({"rewind": "magic"}, "rewind='magic'"),
        ({"controls": {"magic": 1}}, "control='magic'"),
        ({"controls": {"reinit": 0}}, "at least one trial"),
        ({"controls": {"a/b": (kl.controls.shuffle, 1)}}, "a/b"),
        ({"controls": "magic"}, "control='magic'"),
        ({"schedule": [0.5, 0.4]}, "increase"),
        ({"replicates": 0}, "replicates=0"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


@pytest.mark.parametrize(
    ("search", "fit", "message"),
    [
        ({}, {"epochs": None}, "either `epochs` or `steps`"),
        ({}, {"steps": 3}, "either `epochs` or `steps`"),
        ({}, {"epochs": 0}, "at least"),
        ({}, {"validation_data": None}, "validation_data"),
        ({}, {"y": Y[:99]}, "one length"),
        ({}, {"batch_size": 0}, "batch size"),
        ({}, {"eval_freq": 0}, "eval_freq"),
        ({"rewind_to": 12}, {}, "rewind_to=12"),
        ({"rewind_to": "soon"}, {}, "rewind_to='soon'"),
        ({"model": lambda: build(metrics=())}, {}, "metrics=\\['accuracy'\\]"),
        ({"model": keras.Sequential}, {}, "compiled"),
        ({"prunable": "nothing"}, {}, "nothing"),
        (
            {"allocation": kl.allocation.Layerwise({"nothing": 0.1})},
            {},
            "nothing",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_trained(
    tmp_path, search, fit, message
):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, **search).search(**FIT | fit)
    assert not list(tmp_path.rglob("level_*"))


def test_a_training_that_diverges_says_where():
    search = make(model=lambda: build(learning_rate=1e30), controls={})
    with pytest.raises(FloatingPointError, match=r"level=0.*learning rate"):
        search.search(**FIT)


# --- verdict and best ticket ---


def table(*rows):
    columns = ["level", "variant", "replicate", "val", "test", "step"]
    frame = pd.DataFrame(rows, columns=columns)
    return pd.DataFrame(
        {
            "level": frame["level"],
            "sparsity": 1 - 0.5 ** frame["level"],
            "variant": frame["variant"],
            "replicate": frame["replicate"],
            "early_stop_val_accuracy": frame["val"],
            "early_stop_test_accuracy": frame["test"],
            "start_step": 0,
            "early_stop_step": frame["step"],
        }
    )


def test_verdict_counts_the_steps_that_a_ticket_trained_itself():
    results = table(
        (0, "ticket", 0, 0.90, 0.90, 100), (1, "ticket", 0, 0.92, 0.92, 190)
    )
    assert not tables.verdict(results)["winning"].item()
    results.loc[results["level"] == 1, "start_step"] = 120
    assert tables.verdict(results)["winning"].item()


def test_verdict_goes_by_validation_without_test_data():
    results = table((0, "ticket", 0, 0.9, 0.9, 100), (1, "ticket", 0, 0.95, 0.9, 90))
    results["early_stop_test_accuracy"] = np.nan
    assert tables.verdict(results)["winning"].item()


def test_verdict_pairs_replicates_and_keeps_to_the_definition():
    results = table(
        (0, "ticket", 0, 0.90, 0.90, 100),
        (0, "ticket", 1, 0.80, 0.80, 100),
        (1, "ticket", 0, 0.92, 0.92, 90),
        (1, "ticket", 1, 0.81, 0.81, 100),
        (1, "reinit", 0, 0.95, 0.95, 90),
        (1, "reinit", 1, 0.95, 0.95, 90),
        (2, "ticket", 0, 0.92, 0.92, 101),
        (2, "ticket", 1, 0.82, 0.82, 101),
        (3, "ticket", 0, 0.89, 0.89, 10),
        (3, "ticket", 1, 0.80, 0.80, 10),
    )
    verdict = tables.verdict(results).set_index("level")
    assert verdict["winning"].to_dict() == {1: True, 2: False, 3: False}
    assert verdict.loc[1, "accuracy_difference"] == pytest.approx(0.015)
    # Two differences, 0.02 and 0.01: t(0.975, 1) = 12.706, standard error 0.005.
    assert verdict.loc[1, "accuracy_low"] == pytest.approx(0.015 - 12.7062 * 0.005)
    assert not verdict.loc[1, "certain"]
    assert not verdict.loc[1, "beats_reinit"]
    assert verdict.loc[3, "accuracy_difference"] == pytest.approx(-0.005)
    lenient = tables.verdict(results, tolerance=0.006).set_index("level")
    assert lenient.loc[3, "winning"]
    with pytest.raises(ValueError, match="on='train'"):
        tables.verdict(results, on="train")


def test_the_best_ticket_is_chosen_by_validation_alone(monkeypatch, finished):
    results = table(
        (0, "ticket", 0, 0.90, 0.90, 100),
        (0, "ticket", 1, 0.90, 0.90, 100),
        (1, "ticket", 0, 0.91, 0.10, 90),
        (1, "ticket", 1, 0.95, 0.10, 90),
        (2, "ticket", 0, 0.10, 0.99, 90),
        (2, "ticket", 1, 0.10, 0.99, 90),
    )
    monkeypatch.setattr(finished, "results", lambda: results)
    card = finished.best_ticket().card
    assert (card["level"], card["replicate"]) == (1, 1)


def test_the_best_ticket_says_when_none_wins(monkeypatch, finished):
    results = table(
        (0, "ticket", 0, 0.90, 0.90, 100),
        (1, "ticket", 0, 0.80, 0.95, 90),
        (2, "ticket", 0, 0.85, 0.80, 90),
    )
    monkeypatch.setattr(finished, "results", lambda: results)
    with pytest.warns(UserWarning, match="No level wins"):
        assert finished.best_ticket().card["level"] == 2


def test_no_ticket_yet():
    with pytest.raises(ValueError, match="call `search` first"):
        make().best_ticket()


# --- the paper's densities ---


@pytest.mark.parametrize(
    ("model", "grid"),
    [
        (
            "lenet_300_100",
            {3: 51.28, 7: 21.07, 9: 13.52, 12: 6.95, 15: 3.58, 16: 2.87, 18: 1.85},
        ),
        ("conv_2", {11: 8.8, 14: 4.6}),
        ("conv_4", {11: 11.1, 12: 9.2}),
    ],
)
def test_layerwise_levels_are_the_papers_grid(model, grid):
    recipe = kl.models.recipe(model)
    shape = (28, 28, 1) if model.startswith("lenet") else (32, 32, 3)
    masks = kl.get_masks(kl.mask_model(kl.models.get(model)(shape)))
    rate = max(recipe.rates.values())
    allocation = kl.allocation.Layerwise(recipe.rates, rate)
    for level, density in grid.items():
        sparsity = allocation.total_sparsity(1 - (1 - rate) ** level, masks)
        digits = 2 if model == "lenet_300_100" else 1
        assert round(100 * (1 - sparsity), digits) == density


# --- storing and resuming ---


def test_load_opens_a_stored_search(finished):
    loaded = LotteryTicketSearch.load(finished.store.directory)
    pd.testing.assert_frame_equal(loaded.results(), finished.results())
    assert loaded.ticket(2).masks == finished.ticket(2).masks
    pd.testing.assert_frame_equal(loaded.search(**FIT), finished.results())
    with pytest.raises(FileNotFoundError):
        LotteryTicketSearch.load(finished.store.directory / "nothing")


def test_a_search_of_fewer_settings_is_loaded_and_goes_on(tmp_path):
    """Of an earlier version, which pruned weights and trained by `fit`, here."""
    before = make(tmp_path, schedule=[0.5, 0.7], controls={})
    table = before.search(**FIT | {"epochs": 1})
    settings = json.loads(before.store.settings.read_text())
    for name in ("granularity", "report_levels", "engine", "in_workers", "mask_steps"):
        del settings[name]
    before.store.settings.write_text(json.dumps(settings))
    loaded = LotteryTicketSearch.load(tmp_path)
    assert loaded.granularity == "weight"
    assert loaded.report_levels == [1, 2]
    pd.testing.assert_frame_equal(loaded.search(**FIT | {"epochs": 1}), table)


def test_load_restores_allocation_and_rewind(tmp_path):
    allocation = kl.allocation.Layerwise({"output": 0.1}, rate=0.3)
    search = make(
        tmp_path, allocation=allocation, rewind=Rewind(FineTune(5)), schedule=[0.5]
    )
    search.search(**FIT)
    loaded = LotteryTicketSearch.load(tmp_path)
    assert loaded.allocation == allocation
    assert loaded.rewind == Rewind(FineTune(5))
    pd.testing.assert_frame_equal(loaded.search(**FIT), search.results())


@pytest.mark.parametrize("granularity", [(4, 1), "2:4"])
def test_groups_at_every_level(tmp_path, granularity):
    arguments = {"granularity": granularity, "schedule": [0.3, 0.5]}
    search = make(tmp_path, **arguments, rewind="continue", controls={})
    search.search(**FIT)
    loaded = LotteryTicketSearch.load(tmp_path)
    assert loaded.granularity == granularity
    pd.testing.assert_frame_equal(loaded.search(**FIT), search.results())
    before = search.ticket(0).masks
    for level, sparsity in ((1, 0.3), (2, 0.5)):
        masks = search.ticket(level).masks
        assert masks.sparsity == pytest.approx(sparsity, abs=2 / masks.size)
        for name, mask in masks.items():
            assert not (mask & ~before[name]).any()
            # Both layers have inputs that 4 does not divide.
            for start in range(0, len(mask), 4):
                kept = mask[start : start + 4].sum(axis=0)
                size = len(mask[start : start + 4])
                least = 0 if granularity == (4, 1) else size // 2
                assert set(kept) <= {least, size}
        before = masks
    with pytest.raises(ValueError, match=r"granularity: .* there, 'weight' here"):
        make(tmp_path, **arguments | {"granularity": "weight"}).search(**FIT)


def test_more_replicates_and_controls_may_be_asked_for_later(tmp_path, finished):
    make(tmp_path, controls={}).search(**FIT)
    grown = make(tmp_path, replicates=2)
    grown.search(**FIT)
    pd.testing.assert_frame_equal(numbers(grown), numbers(finished))


@pytest.mark.parametrize(
    ("search", "fit", "message"),
    [
        ({"seed": 1}, {}, r"seed: 0 there, 1 here"),
        ({"rewind_to": 2}, {}, "rewind_to"),
        ({}, {"batch_size": 8}, "batch_size: 16 there, 8 here"),
        ({}, {"y": 1 - Y[:100]}, "train"),
        ({"model": lambda: build(learning_rate=0.02)}, {}, "learning_rate"),
    ],
)
def test_other_settings_in_the_same_directory_are_refused(
    finished, search, fit, message
):
    before = finished.results()
    with pytest.raises(ValueError, match=message):
        make(finished.store.directory, replicates=2, **search).search(**FIT | fit)
    pd.testing.assert_frame_equal(finished.results(), before)


class Killed(BaseException):
    """Ends the process, as far as the search can tell."""


@pytest.mark.parametrize("step", [15, 47])
def test_a_search_killed_while_training_resumes_to_the_same(tmp_path, finished, step):
    class Kill(keras.callbacks.Callback):
        """Kills at a step of the whole search; copies share the count."""

        def on_train_batch_end(self, batch, logs=None):
            Kill.steps += 1
            if Kill.steps == step:
                raise Killed

    Kill.steps = 0
    with pytest.raises(Killed):
        make(tmp_path, replicates=2).search(**FIT, callbacks=[Kill()])
    resumed = make(tmp_path, replicates=2)
    resumed.search(**FIT, callbacks=[Kill()])
    pd.testing.assert_frame_equal(numbers(resumed), numbers(finished))


@pytest.mark.parametrize("write", [2, 5])
def test_a_full_disk_loses_nothing_that_was_finished(
    tmp_path, finished, monkeypatch, write
):
    real, calls = kl.store.write_atomically, []

    def fill(file):
        file.write(b"half a file")
        raise OSError(28, "No space left on device")

    def limited(path, content):
        is_record = path.suffix == ".npz"
        calls.extend([path] * is_record)
        real(path, fill if is_record and len(calls) == write else content)

    monkeypatch.setattr(kl.store, "write_atomically", limited)
    with pytest.raises(OSError, match="No space left"):
        make(tmp_path, replicates=2).search(**FIT)
    kept = [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*.npz"))]
    assert len(kept) == write - 1
    assert not list(tmp_path.rglob(".writing*"))
    resumed = make(tmp_path, replicates=2)
    resumed.search(**FIT)
    assert set(kept) <= {path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    pd.testing.assert_frame_equal(numbers(resumed), numbers(finished))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("level_01/ticket_0.npz", "truncate"),
        ("level_01/reinit_0.npz", "flip"),
        ("initial.npz", "empty"),
    ],
)
def test_a_damaged_file_is_named_and_done_again(tmp_path, finished, name, damage):
    first = make(tmp_path, schedule=[0.5])
    first.search(**FIT)
    path = tmp_path / "replicate_0" / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 3] ^= 0xFF
    path.write_bytes(content[: len(content) // 2] if damage == "truncate" else content)
    if damage == "empty":
        path.write_bytes(b"")
    others = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.npz") if p != path}
    again = make(tmp_path, schedule=[0.5])
    with pytest.warns(UserWarning, match=name.split("/")[-1]):
        again.search(**FIT)
    pd.testing.assert_frame_equal(numbers(again), numbers(first))
    assert others == {p: p.stat().st_mtime_ns for p in others}


def test_lost_initial_weights_of_a_given_model_are_not_replaced_by_others(tmp_path):
    make(tmp_path, model=build(), schedule=[0.5]).search(**FIT)
    (tmp_path / "replicate_0" / "initial.npz").write_bytes(b"")
    with pytest.raises(CorruptedFileError, match=r"initial\.npz"):
        make(tmp_path, model=build(), schedule=[0.5]).search(**FIT)


def test_damaged_settings_are_written_again(tmp_path):
    first = make(tmp_path, schedule=[0.5])
    first.search(**FIT)
    first.store.settings.write_text("{")
    with pytest.warns(UserWarning, match=r"settings\.json"):
        again = make(tmp_path, schedule=[0.5]).search(**FIT)
    pd.testing.assert_frame_equal(again, first.results())


def test_clear_removes_the_search_and_nothing_else(tmp_path):
    search = make(tmp_path, schedule=[0.5], controls={})
    search.search(**FIT)
    (tmp_path / "notes.txt").write_text("mine")
    search.store.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.tensorflow
def test_tensorboard(tmp_path, finished):
    kl.tensorboard.write_curves(finished, tmp_path)
    assert len(list(tmp_path.rglob("events*"))) == len(finished.results())


def test_verbose_0_is_silent(capsys):
    make(schedule=[0.5], controls={}).search(**FIT)
    assert capsys.readouterr() == ("", "")
