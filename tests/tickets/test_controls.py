import dataclasses

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_lottery import controls
from keras_lottery.keras_bridge.gradients import keeping
from keras_lottery.keras_bridge.layers import get_masks, get_state, mask_model
from keras_lottery.masks import Masks
from keras_lottery.tickets import Snapshot, Ticket, grouping
from keras_lottery.tickets.allocation import Global, Uniform
from keras_lottery.tickets.grouping import Grouped

KERNELS = ("hidden/kernel", "output/kernel")


@pytest.fixture(scope="module")
def network():
    return mask_model(
        keras.Sequential(
            [
                keras.Input((20,)),
                keras.layers.Dense(30, name="hidden", bias_initializer="ones"),
                keras.layers.BatchNormalization(name="norm"),
                keras.layers.Dense(5, name="output"),
            ]
        )
    )


@pytest.fixture
def model(network):
    with keeping(network):
        yield network


def found(model, seed=0):
    """A ticket with weights that are no initial ones, and the snapshot it is from."""
    rng = np.random.default_rng(seed)
    initial = get_state(model)
    start = {n: rng.normal(size=a.shape).astype(a.dtype) for n, a in initial.items()}
    alive = Masks({n: rng.random(m.shape) < 0.7 for n, m in get_masks(model).items()})
    masks = Masks({n: m & (rng.random(m.shape) < 0.4) for n, m in alive.items()})
    scores = {n: rng.random(m.shape, "float32") for n, m in alive.items()}
    snapshot = Snapshot(alive, start, initial, start, rng, model, scores=scores)
    return Ticket(masks, start, step=3, steps=7), snapshot


def made(model, name, seed=0):
    ticket, snapshot = found(model, seed)
    with keeping(model):
        return ticket, controls.get(name)(ticket, snapshot), snapshot


@pytest.mark.parametrize(
    "name", ["reinit", "reinit_same_sign", "constant", "constant_same_sign"]
)
def test_weights_change_and_masks_do_not(model, name):
    ticket, control, snapshot = made(model, name)
    assert control.masks == ticket.masks
    assert (control.step, control.steps) == (3, 7)
    assert control.weights.keys() == ticket.weights.keys()
    for weight, array in control.weights.items():
        assert array.dtype == ticket.weights[weight].dtype
        if weight not in KERNELS:
            # All that is not masked is drawn anew, by the model's initialisers.
            np.testing.assert_array_equal(array, snapshot.initial[weight])
    for kernel in KERNELS:
        signs = np.sign(control.weights[kernel]) == np.sign(ticket.weights[kernel])
        assert signs.all() if "same_sign" in name else 0.3 < signs.mean() < 0.7
        magnitudes = np.abs(control.weights[kernel])
        if "constant" in name:
            np.testing.assert_allclose(magnitudes, snapshot.initial[kernel].std())
        else:
            assert len(np.unique(magnitudes)) == magnitudes.size
            assert not np.isclose(magnitudes, np.abs(ticket.weights[kernel])).all()


def test_same_sign_changes_nothing_but_signs(model):
    _, plain, _ = made(model, "reinit")
    _, signed, _ = made(model, "reinit_same_sign")
    for name, array in plain.weights.items():
        np.testing.assert_array_equal(np.abs(signed.weights[name]), np.abs(array))


def test_invert_takes_the_worst_of_what_was_left(model):
    ticket, control, snapshot = made(model, "invert")
    assert control.weights is ticket.weights
    for name, mask in control.masks.items():
        alive, scores = snapshot.masks[name], snapshot.scores[name]
        assert mask.sum() == ticket.masks[name].sum()
        assert not (mask & ~alive).any()
        assert scores[mask].max() < scores[alive & ~mask].min()


@given(
    scores=st.lists(st.integers(0, 2), min_size=1, max_size=12),
    share=st.floats(0, 1),
)
@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "bool"])
def test_invert_reverses_the_whole_order(dtype, scores, share):
    """Ties as well: the inverse of the inverse is the ticket."""
    scores = np.array(scores).astype(dtype)
    count = round(len(scores) * share)
    best = np.argsort(-scores.astype(int), kind="stable")
    mask = np.zeros(len(scores), bool)
    mask[best[:count]] = True
    snapshot = Snapshot(
        Masks.dense({"a": scores.shape}), {}, {}, {}, None, None, scores={"a": scores}
    )
    control = controls.invert(Ticket(Masks({"a": mask}), {}), snapshot)
    assert set(np.flatnonzero(control.masks["a"])) == set(best[len(best) - count :])


@pytest.mark.parametrize("granularity", [(5, 1), "2:4", "filter"])
@pytest.mark.parametrize("name", ["shuffle", "random", "invert"])
def test_masks_of_groups_stay_masks_of_groups(model, name, granularity):
    groups = grouping.get(granularity).of(model, get_masks(model))
    allocate = Grouped(Uniform() if granularity == "filter" else Global(), groups)
    ticket, snapshot = found(model)
    dense = Masks.dense({n: m.shape for n, m in ticket.masks.items()})
    masks = allocate(snapshot.scores, dense, 0.4)
    ticket = dataclasses.replace(ticket, masks=masks)
    snapshot = dataclasses.replace(snapshot, masks=dense, grouping=groups)
    control = controls.get(name)(ticket, snapshot).masks
    assert control != masks
    for kernel, mask in control.items():
        assert mask.sum() == masks[kernel].sum()
    if granularity == "filter":
        # Units that nothing makes are the ones that nothing reads.
        lives = control["hidden/kernel"].any(axis=0)
        assert (control["hidden/kernel"] == lives).all()
        assert (control["output/kernel"] == lives[:, None]).all()
    elif granularity == "2:4":
        for mask in control.values():
            sums = mask[: len(mask) // 4 * 4].reshape(-1, 4, mask.shape[1]).sum(axis=1)
            assert set(np.unique(sums)) <= {2, 4}
    else:
        for mask in control.values():
            sums = mask.reshape(-1, 5, mask.shape[1]).sum(axis=1)
            assert set(np.unique(sums)) <= {0, 5}
    if name == "invert":
        scores = snapshot.scores["hidden/kernel"]
        kept, other = masks["hidden/kernel"], control["hidden/kernel"]
        assert scores[other].mean() < scores[kept].mean()


def test_invert_needs_scores(model):
    ticket, snapshot = found(model)
    with pytest.raises(ValueError, match=r"snapshot\.scores=None"):
        controls.invert(ticket, dataclasses.replace(snapshot, scores=None))


def test_a_constant_of_no_deviation_is_refused(model):
    ticket, snapshot = found(model)
    initial = {n: np.ones_like(array) for n, array in snapshot.initial.items()}
    equal = dataclasses.replace(snapshot, initial=initial)
    with pytest.raises(ValueError, match="`hidden/kernel` with equal ones"):
        controls.constant(ticket, equal)


@pytest.mark.parametrize("name", sorted(controls.CONTROLS.keys() - {"permute_layers"}))
def test_trials_differ_and_seeds_repeat(model, name):
    one, again, other = (made(model, name, seed)[1] for seed in (0, 0, 1))
    assert one.masks == again.masks
    for weight, array in one.weights.items():
        np.testing.assert_array_equal(array, again.weights[weight])
    same_weights = all(
        np.array_equal(one.weights[kernel], other.weights[kernel]) for kernel in KERNELS
    )
    assert not (same_weights and one.masks == other.masks)


def blocks(count=3, width=4):
    """The state of blocks of two layers each, all numbers different."""
    rng = np.random.default_rng(0)
    shapes = {"query/kernel": (width, width), "key/kernel": (width, width)}
    shapes |= {"key/bias": (width,), "norm/gamma": (width,)}
    state = {
        f"block_{i}/{name}": rng.normal(size=shape).astype("float32")
        for i in range(count)
        for name, shape in shapes.items()
    }
    state |= {"head/kernel": np.ones((width, 2), "float32")}
    return state | {"dropout/seed": np.array([1, 2], "uint32")}


@pytest.mark.parametrize("count", [2, 3, 5])
def test_permuted_layers_exchange_whole_blocks(count):
    state = blocks(count)
    masks = Masks({n: a > 0 for n, a in state.items() if n.endswith("kernel")})
    snapshot = Snapshot.untrained(
        masks, state, rng=np.random.default_rng(0), shared_model=None
    )
    ticket = Ticket(masks, state)
    made = controls.permute_layers(ticket, snapshot)
    assert made.masks is ticket.masks
    sources = []
    for i in range(count):
        own = {n: a for n, a in made.weights.items() if n.startswith(f"block_{i}/")}
        found = [
            j
            for j in range(count)
            if all(
                np.array_equal(a, state[n.replace(f"block_{i}/", f"block_{j}/")])
                for n, a in own.items()
            )
        ]
        assert len(found) == 1 and found[0] != i
        sources += found
    assert sorted(sources) == list(range(count))
    for name in ("head/kernel", "dropout/seed"):
        np.testing.assert_array_equal(made.weights[name], state[name])


def test_layers_of_which_none_are_alike_are_not_permuted(model):
    with pytest.raises(ValueError, match=r"layers \['hidden', 'norm', 'output'\]"):
        made(model, "permute_layers")


@pytest.mark.parametrize("scale", [0.01, 1.0])
def test_noise_is_a_share_of_each_layers_deviation(model, scale):
    ticket, snapshot = found(model)
    noisy = controls.Noise(scale)(ticket, snapshot)
    assert noisy.masks is ticket.masks
    for name, array in noisy.weights.items():
        added = array - ticket.weights[name]
        expected = scale * ticket.weights[name].std() if name in KERNELS else 0
        np.testing.assert_allclose(added.std(), expected, rtol=0.2)
        assert array.dtype == ticket.weights[name].dtype


@pytest.mark.parametrize("scale", [0, -1, float("nan"), "1", True])
def test_a_scale_of_noise_is_a_positive_number(scale):
    with pytest.raises(ValueError, match="scale="):
        controls.Noise(scale)


def test_noise_may_be_of_the_initial_deviation(model):
    ticket, snapshot = found(model)
    noisy = controls.Noise(2.0, of="initial")(ticket, snapshot)
    for name in KERNELS:
        added = noisy.weights[name] - ticket.weights[name]
        expected = 2.0 * snapshot.initial[name].std()
        np.testing.assert_allclose(added.std(), expected, rtol=0.2)


def test_noise_of_unknown_weights_is_refused():
    with pytest.raises(ValueError, match="of="):
        controls.Noise(of="final")


def changed(model, name):
    """The ticket and its control, and that nothing but masked weights is another."""
    ticket, control, snapshot = made(model, name)
    assert control.masks is ticket.masks
    for weight, array in control.weights.items():
        assert array.dtype == ticket.weights[weight].dtype
        if weight not in KERNELS:
            assert array is ticket.weights[weight]
        else:
            assert not np.array_equal(array, ticket.weights[weight])
    return ticket, control, snapshot


@pytest.mark.parametrize("in_filters", [False, True])
@pytest.mark.parametrize("same_sign", [False, True])
def test_weights_that_are_left_are_exchanged(model, in_filters, same_sign):
    name = "shuffle_in_filters" if in_filters else "shuffle_weights"
    name += "_same_sign" if same_sign else ""
    ticket, control, _ = changed(model, name)
    for kernel in KERNELS:
        mask, before = ticket.masks[kernel], ticket.weights[kernel]
        after = control.weights[kernel]
        np.testing.assert_array_equal(after[~mask], before[~mask])
        np.testing.assert_array_equal(np.sort(after[mask]), np.sort(before[mask]))
        assert (np.sign(after) == np.sign(before)).all() == same_sign
        # Few find their place again: fewer, the more places there are.
        assert (after == before)[mask].mean() < 0.4
        filters = [
            np.array_equal(np.sort(after[m, i]), np.sort(before[m, i]))
            for i, m in enumerate(mask.T)
        ]
        assert all(filters) if in_filters else not any(filters)


def test_weights_are_exchanged_in_any_order(model):
    """Every place is as likely."""
    ticket, snapshot = found(model)
    state = {**ticket.weights, "output/kernel": np.zeros((30, 5), "float32")}
    state["output/kernel"][0, 0] = 1.0
    left = np.zeros((30, 5), bool)
    left[:4, 0] = True
    ticket = Ticket(Masks({"output/kernel": left}), state)
    shuffle = controls.get("shuffle_weights")
    places = [
        int(np.argmax(shuffle(ticket, snapshot).weights["output/kernel"][:, 0]))
        for _ in range(400)
    ]
    assert np.bincount(places, minlength=4).min() > 60


@pytest.mark.parametrize("argument", ["in_filters", "same_sign"])
def test_how_weights_are_exchanged_is_yes_or_no(argument):
    with pytest.raises(ValueError, match=f"{argument}="):
        controls.ShuffleWeights(**{argument: "filters"})


@pytest.mark.parametrize(
    ("name", "magnitudes", "signs"),
    [
        ("initial_weights", "initial", "initial"),
        ("initial_signs", "start", "initial"),
        ("initial_magnitudes", "initial", "start"),
        ("redraw_same_sign", None, "start"),
    ],
)
def test_values_of_step_0(model, name, magnitudes, signs):
    ticket, control, snapshot = changed(model, name)
    states = {"initial": snapshot.initial, "start": ticket.weights}
    for kernel in KERNELS:
        after = control.weights[kernel]
        assert (np.sign(after) == np.sign(states[signs][kernel])).all()
        same = {n: np.allclose(abs(after), abs(states[n][kernel])) for n in states}
        assert [n for n in states if same[n]] == ([magnitudes] if magnitudes else [])
    if name == "redraw_same_sign":
        deviation = control.weights["hidden/kernel"].std()
        np.testing.assert_allclose(
            deviation, snapshot.initial["hidden/kernel"].std(), rtol=0.1
        )
