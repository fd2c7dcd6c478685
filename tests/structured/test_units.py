"""`granularity="filter"` and `"channel"`: whole filters, for everything that prunes."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import keras_lottery as kl
from keras_lottery import controls
from keras_lottery.keras_bridge.layers import get_masks, get_state, mask_model
from keras_lottery.structured import compact, find_units, of_filters
from keras_lottery.tickets.allocation import Global, Layerwise, Uniform
from keras_lottery.tickets.grouping import Grouped
from tests.models_zoo import arrays, assert_equal, inputs, outputs
from tests.structured.architectures import draw_weights, random_model


def net():
    """A residual block of six channels, and a dense head."""
    x = inputs = keras.Input((5, 5, 2))
    x = layers.Conv2D(6, 3, padding="same", name="stem")(x)
    y = layers.Conv2D(4, 1, activation="relu", name="down")(x)
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(y)
    y = layers.Conv2D(6, 3, padding="same", name="up")(y)
    x = layers.BatchNormalization(name="norm")(layers.Add()([x, y]))
    x = layers.Flatten()(layers.MaxPooling2D(2)(x))
    x = layers.Dense(8, "relu", name="hidden")(x)
    return keras.Model(inputs, layers.Dense(3, name="output")(x))


def masked(model=None):
    model = mask_model(model or net())
    draw_weights(model, np.random.default_rng(0))
    return model


def widths(model):
    return {layer.name: layer.output.shape[-1] for layer in compact(model).layers}


def smallest(snapshot):
    return {name: -abs(snapshot.final[name]) for name in snapshot.masks}


@pytest.mark.once
@pytest.mark.parametrize("granularity", ["filter", "channel"])
@pytest.mark.parametrize("criterion", ["magnitude", smallest])
def test_criteria_of_weights_fold_into_filters(criterion, granularity):
    model = masked()
    state = get_state(model)
    kl.prune(model, 0.5, criterion, granularity=granularity)
    sign = 1 if criterion == "magnitude" else -1
    sizes = {n: sign * abs(a) for n, a in state.items() if n.endswith("kernel")}
    makes = {
        "down": sizes["down/kernel"].mean((0, 1, 2)),
        "hidden": sizes["hidden/kernel"].mean(0),
    }
    # Tied filters: by all the weights that make them.
    makes["stem"] = sizes["stem/kernel"].sum((0, 1, 2))
    makes["stem"] = makes["stem"] + sizes["up/kernel"].sum((0, 1, 2))
    dense = sizes["hidden/kernel"].reshape(4, 6, 8)
    reads = {
        "down": sizes["up/kernel"].mean((0, 1, 3)),
        "hidden": sizes["output/kernel"].mean(1),
        "stem": sizes["down/kernel"].sum((0, 1, 3)) + dense.sum((0, 2)),
    }
    worth = makes if granularity == "filter" else reads
    for name, score in worth.items():
        axes = tuple(range(state[f"{name}/kernel"].ndim - 1))
        alive = get_masks(model)[f"{name}/kernel"].any(axes)
        half = len(score) // 2
        assert set(np.flatnonzero(alive)) == set(np.argsort(-score)[:half]), name
    assert widths(model)["hidden"] == 4
    assert get_state(model)["norm/gamma"].astype(bool).sum() == 3


@pytest.mark.once
@pytest.mark.parametrize("allocation", [Global(), Uniform(), Layerwise()], ids=repr)
@settings(max_examples=6)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["filter", "channel"]))
def test_filters_live_whole_or_die_whole(allocation, seed, role):
    """Counts are exact, nothing is revived, and `compact` needs the masks alone."""
    model = masked(random_model(seed))
    try:
        units = find_units(role, model, get_masks(model))
    except ValueError as error:
        assert "no filters or units that can be" in str(error)
        return
    rng = np.random.default_rng(seed)
    masks = get_masks(model)
    scores = {name: rng.random(mask.shape) for name, mask in masks.items()}
    for sparsity in (0.2, 0.4):
        before, alive = masks, units.left(masks)
        try:
            masks = Grouped(allocation, units)(scores, masks, sparsity)
        except ValueError as error:
            assert "would be left" in str(error)
            break
        left = units.left(masks)
        assert left.kept == round(left.size * (1 - sparsity))
        assert not any((left[name] & ~alive[name]).any() for name in left)
        assert not any((masks[name] & ~before[name]).any() for name in masks)
        dead = np.zeros(units.count, bool)
        for name, groups in units.layers.items():
            dead[groups[~left[name]]] = True
        for slices in units.slices:
            rows = np.moveaxis(masks[slices.weight], slices.axis, 0)
            assert not rows[dead[slices.groups]].any()
    kl.set_masks(model, masks)
    x = inputs(model)
    expected, small = outputs(model, x), compact(model)
    scale = max(1, abs(expected).max())
    assert abs(outputs(small, x) - expected).max() < 1e-4 * scale
    if masks.sparsity:
        assert small.count_params() < model.count_params()


@pytest.mark.once
def test_a_search_finds_tickets_without_filters(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 5)).astype("float32")
    data = {"x": x, "y": (x[:, 0] > 0).astype("int32"), "verbose": 0}
    data |= {"validation_data": (data["x"], data["y"]), "epochs": 1}

    def build():
        model = keras.Sequential(
            [
                keras.Input((5,)),
                layers.Dense(10, "relu", name="one"),
                layers.Dense(6, "relu", name="two"),
                layers.Dense(2, name="three"),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        return model

    search = kl.LotteryTicketSearch(
        build,
        schedule=[0.5, 0.75],
        granularity="filter",
        controls={},
        directory=tmp_path,
    )
    search.search(**data)
    for level, (one, two) in enumerate([(10, 6), (5, 3), (3, 1)]):
        model = search.ticket(level).trained_model()
        assert compact(model).get_layer("one").units == one
        assert compact(model).get_layer("two").units == two
    loaded = kl.LotteryTicketSearch.load(tmp_path)
    assert (loaded.granularity, loaded.allocation) == ("filter", Uniform())


@pytest.mark.once
@pytest.mark.parametrize("criterion", ["bn_scale", "activation"])
def test_criteria_of_filters_in_a_search(tmp_path, criterion):
    """The ticket is what `prune` leaves of the dense net; controls keep its form."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 6)).astype("float32")
    y = (x[:, 0] > 0).astype("int32")

    def build():
        model = keras.Sequential(
            [
                keras.Input((6,)),
                layers.Dense(10, name="hidden"),
                layers.BatchNormalization(name="norm"),
                layers.Activation("relu", name="relu"),
                layers.Dense(2, name="output"),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        return model

    seen = []

    def note(ticket, snapshot):
        seen.append(controls.shuffle(ticket, snapshot).masks)
        return ticket

    search = kl.LotteryTicketSearch(
        build,
        schedule=[0.4, 0.7],
        criterion=criterion,
        granularity="filter",
        controls={"note": (note, 1)},
        directory=tmp_path,
        workers=0,
    )
    data = {"validation_data": (x, y), "test_data": (x, y), "epochs": 1}
    search.search(x, y, **data, batch_size=8, verbose=0)
    dense = search.ticket(0).trained_model()
    kl.prune(dense, 0.4, criterion, granularity="filter", data=(x, y))
    assert get_masks(dense) == search.ticket(1).masks
    for level, left in ((1, 6), (2, 3)):
        # The first control was tried before anything was trained.
        for masks in (search.ticket(level).masks, seen[level]):
            lives = masks["hidden/kernel"].any(axis=0)
            assert lives.sum() == left
            assert (masks["hidden/kernel"] == lives).all()
            assert (masks["output/kernel"] == lives[:, None]).all()
    small = compact(search.ticket(2).trained_model())
    assert small.get_layer("hidden").units == 3


@pytest.mark.once
def test_criteria_of_filters_are_refused_elsewhere():
    for granularity in ("weight", "channel", (4, 1)):
        with pytest.raises(ValueError, match="criterion='l1'"):
            kl.LotteryTicketSearch(net, criterion="l1", granularity=granularity)


@pytest.mark.once
def test_rounds_score_what_is_left():
    model = masked()
    layer_wise = kl.allocation.ErdosRenyi()
    left = []

    def criterion(snapshot):
        left.append(snapshot.grouping.left(snapshot.masks).kept)
        return {name: abs(snapshot.final[name]) for name in snapshot.masks}

    kl.prune(model, 0.75, criterion, layer_wise, "filter", rounds=2)
    assert left == [18, 9]
    units = find_units("filter", model, get_masks(model))
    assert units.left(get_masks(model)).kept == round(18 * 0.25)


@pytest.mark.once
def test_criteria_of_filters_see_what_rounds_left():
    model, seen = masked(), []

    @of_filters
    def criterion(filters):
        kernel = filters.kernels[0]
        assert (kernel.any(axis=1) == filters.alive).all()
        seen.append(int(filters.alive.sum()))
        return abs(kernel).sum(axis=1)

    kl.prune(model, 0.75, criterion, granularity="filter", rounds=2)
    assert sum(seen[:3]) == 18 and sum(seen[3:]) == 9


def test_gradual_pruning_silences_filters_step_by_step():
    model = masked()
    model.compile("sgd", "mse")
    x = inputs(model, 16)
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(
                find_units("filter", model, get_masks(model)).left(get_masks(model))
            )

    pruning = kl.GradualPruning(
        0.5, 0, 3, frequency=1, power=1, criterion="l1", granularity="filter"
    )
    model.fit(
        x, np.ones((16, 3)), batch_size=4, verbose=0, callbacks=[pruning, Watch()]
    )
    # Of 18 filters: at 0, a sixth, a third and a half.
    assert [masks.kept for masks in seen] == [18, 15, 12, 9]
    assert pruning.get_config()["allocation"] == "uniform"
    assert widths(model)["hidden"] == 4


@pytest.mark.once
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: kl.prune(m, 0.5, "l1"), "criterion='l1'"),
        (lambda m: kl.prune(m, 0.5, "l1", granularity="channel"), "criterion='l1'"),
        (lambda m: kl.prune(m, 0.99, granularity="filter"), "would be left"),
        (
            lambda m: kl.prune(m, 0.5, lambda s: {}, granularity="filter"),
            "`scores` to be arrays for",
        ),
        (lambda m: kl.prune(m, 0.5, "l1", None, "filter", rounds=0), "rounds=0"),
        (lambda m: kl.GradualPruning(0.5, 0, 1, criterion="l1"), "criterion='l1'"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    model = masked()
    before = arrays(model)
    with pytest.raises(ValueError, match=message):
        call(model)
    assert_equal(arrays(model), before)
