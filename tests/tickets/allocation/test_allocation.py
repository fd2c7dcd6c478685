import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_lottery import allocation
from keras_lottery.masks import Masks
from keras_lottery.tickets.allocation import (
    ByOutput,
    ErdosRenyi,
    Global,
    Isomorphic,
    Layerwise,
    OutlierWeighed,
    Uniform,
    largest,
    ranking,
)
from keras_lottery.tickets.allocation.layerwise import LayerSparsities

pytestmark = pytest.mark.once

LENET = {
    "first/kernel": (784, 300),
    "second/kernel": (300, 100),
    "output/kernel": (100, 10),
}
ALLOCATIONS = [
    Global(),
    Global(floor=0),
    Layerwise(),
    Layerwise({"*0": 0.1, "*1": 0.5}),
    Uniform(),
    ErdosRenyi(kernel=False),
    ErdosRenyi(kernel=True),
    Global(exclude=["*2"], floor=0),
    Global(exclude=["*2"], floor=0.5),
    Layerwise(exclude=["*2"]),
    Uniform(exclude=["*2"]),
    ErdosRenyi(exclude=["*2"]),
    OutlierWeighed(),
    OutlierWeighed(exclude=["*2"]),
    Isomorphic(),
    Isomorphic(exclude=["*2"]),
]
SPARSITIES = st.floats(0, 0.99)


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    """Ranking goes block by block: these networks are of many blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_BLOCK", 60)
        yield


@st.composite
def networks(draw):
    """Scores with many ties, and masks of which some weights are pruned already."""
    shapes = draw(
        st.lists(hnp.array_shapes(max_dims=4, max_side=6), min_size=3, max_size=5)
    )
    # A few values only: most scores are tied.
    values = st.sampled_from([0.0, 1.0, 2.5, np.inf])
    scores = {
        f"layer{i}": draw(hnp.arrays("float32", shape, elements=values))
        for i, shape in enumerate(shapes)
    }
    alive = draw(st.sampled_from([1.0, 0.7, 0.1]))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    return scores, Masks({n: rng.random(s.shape) <= alive for n, s in scores.items()})


def rank_order(scores, mask):
    """The positions alive, the largest scores first; of equals, the first position."""
    flat = np.where(mask.ravel(), scores.ravel(), -1)
    return np.argsort(-flat, kind="stable")[: np.count_nonzero(mask)]


def assert_first_in_order(scores, new, old):
    kept = np.flatnonzero(new.ravel())
    assert set(kept) == set(rank_order(scores, old)[: len(kept)])


def ranks_all(allocate):
    return isinstance(allocate, Global) and not allocate.floor


def _floors(whole, share, masks):
    return {n: min(whole(share * m.size), m.sum()) for n, m in masks.items()}


def test_a_floor_is_exact_and_does_not_vanish_where_it_is_large():
    masks = Masks.dense({"large": (100,), "small": (20,)})
    scores = {"large": np.full(100, 2.0), "small": np.ones(20)}
    kept = Global(floor=1.0)(scores, masks, 0.52)
    assert [int(mask.sum()) for mask in kept.values()] == [49, 9]
    masks = Masks.dense({"large": (800,), "small": (200,)})
    scores = {"large": np.full(800, 2.0), "small": np.ones(200)}
    assert Global(floor=0.1)(scores, masks, 0.65)["small"].sum() == 7


@given(network=networks(), sparsity=SPARSITIES, floor=st.floats(0, 1))
def test_a_floor_keeps_some_of_every_layer_and_binds_where_it_must(
    network, sparsity, floor
):
    scores, masks = network
    try:
        free = Global(floor=0)(scores, masks, sparsity)
    except ValueError:
        return
    new = Global(floor=floor)(scores, masks, sparsity)
    share = floor * new.kept / masks.size
    least = _floors(lambda count: math.ceil(count - 1e-6), share, masks)
    if sum(least.values()) > new.kept:
        least = _floors(lambda count: math.floor(count + 1e-6), share, masks)
    assert all(new[name].sum() >= count for name, count in least.items())
    if all(free[name].sum() >= count for name, count in least.items()):
        assert new == free


@given(network=networks(), sparsity=SPARSITIES, outputs=st.integers(1, 4))
def test_outputs_keep_as_many_where_they_have_them(network, sparsity, outputs):
    scores, masks = network
    rng = np.random.default_rng(outputs)
    numbers = {n: rng.integers(0, outputs, m.shape) for n, m in masks.items()}
    try:
        expected = Uniform()(scores, masks, sparsity)
    except ValueError:
        return
    new = ByOutput(Uniform(), numbers)(scores, masks, sparsity)
    for name, mask in new.items():
        assert mask.sum() == expected[name].sum()
        assert not (mask & ~masks[name]).any()
        parts = [numbers[name] == k for k in range(outputs)]
        kept = [int(mask[part].sum()) for part in parts]
        left = [int(masks[name][part].sum()) for part in parts]
        for part, k, alive in zip(parts, kept, left, strict=True):
            assert k == alive or k >= max(kept) - 1
            ordered = np.sort(scores[name][part & masks[name]])[::-1]
            assert sorted(scores[name][part & mask])[::-1] == list(ordered[:k])


def test_layers_with_outliers_keep_more_and_within_the_spread():
    outliers = {"none": 0, "few": 20, "some": 50, "many": 80}
    scores = {
        n: np.r_[np.full(k, 50.0), np.ones(1000 - k)] for n, k in outliers.items()
    }
    masks = Masks.dense({name: (1000,) for name in scores})
    new = OutlierWeighed(spread=0.1)(scores, masks, 0.7)
    densities = [mask.mean() for mask in new.values()]
    assert densities == sorted(densities)
    assert densities[-1] - densities[0] == pytest.approx(0.2, abs=0.002)
    assert densities[1] - densities[0] == pytest.approx(0.2 * 20 / 80, abs=0.002)
    assert np.mean(densities) == pytest.approx(0.3)


def test_shapes_are_ranked_apart():
    masks = Masks.dense({"a": (10, 10), "b": (10, 10), "c": (100,)})
    rng = np.random.default_rng(0)
    scores = {n: rng.random(m.shape) for n, m in masks.items()}
    scores["a"] *= 10
    scores["c"] *= 100
    new = Isomorphic(floor=0)(scores, masks, 0.5)
    assert new["c"].sum() == 50 and new["a"].sum() + new["b"].sum() == 100
    both = {name: scores[name] for name in ("a", "b")}
    assert new["a"].sum() == largest(both, {n: masks[n] for n in both}, 100)["a"].sum()


@pytest.mark.parametrize("allocate", ALLOCATIONS, ids=repr)
@given(network=networks(), sparsity=SPARSITIES)
def test_counts_are_exact_the_largest_are_kept_and_nothing_is_revived(
    allocate, network, sparsity
):
    scores, masks = network
    keep = round(masks.size * (1 - sparsity))
    try:
        new = allocate(scores, masks, sparsity)
    except ValueError:
        # Only where the sparsity cannot be had.
        left_out = masks["layer2"].sum() if allocate.exclude else 0
        assert not max(left_out, 1) <= keep <= masks.kept
        return
    assert new.kept == keep
    for name, mask in masks.items():
        assert not (new[name] & ~mask).any()
        if not ranks_all(allocate) and not isinstance(allocate, Isomorphic):
            assert_first_in_order(scores[name], new[name], mask)
    if ranks_all(allocate):
        names = [name for name in masks if not allocate.exclude or name != "layer2"]
        assert_first_in_order(
            *(
                np.concatenate([a[n].ravel() for n in names])
                for a in (scores, new, masks)
            )
        )


def test_layers_have_what_largest_remainders_give_them():
    """Of the shares that sum exactly to the whole number that is asked for."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        sizes = {f"l{i}": int(n) for i, n in enumerate(rng.integers(1, 60, 4))}
        rates = {name: float(rng.uniform(0.05, 0.6)) for name in sizes}
        masks = Masks.dense({name: (size,) for name, size in sizes.items()})
        keep = int(rng.integers(4, masks.size))
        if masks.size - keep in (0, masks.size):
            continue
        low, high = 0.0, 1000.0
        for _ in range(200):
            k = (low + high) / 2
            shares = {n: size * (1 - rates[n]) ** k for n, size in sizes.items()}
            low, high = (k, high) if sum(shares.values()) > keep else (low, k)
        counts = {name: math.floor(share) for name, share in shares.items()}
        rest = sorted(counts, key=lambda name: counts[name] - shares[name])
        for name in rest[: keep - sum(counts.values())]:
            counts[name] += 1
        scores = {name: np.arange(size) for name, size in sizes.items()}
        new = Layerwise(rates)(scores, masks, 1 - keep / masks.size)
        assert {name: int(mask.sum()) for name, mask in new.items()} == counts


@given(network=networks(), share=st.floats(0, 1))
def test_largest_breaks_ties_by_position(network, share):
    scores, masks = network
    keep = round(masks.kept * share)
    chosen = largest(scores, masks, keep)
    assert {name: mask.shape for name, mask in chosen.items()} == {
        name: mask.shape for name, mask in masks.items()
    }
    flat = [np.concatenate([a[n].ravel() for n in masks]) for a in (scores, masks)]
    expected = rank_order(*flat)[:keep]
    marks = np.concatenate([mask.ravel() for mask in chosen.values()])
    assert set(np.flatnonzero(marks)) == set(expected)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32", "uint8", "bool"])
def test_scores_of_any_type_are_ranked(dtype):
    scores = {"a": np.array([0, 1, 0, 1], dtype)}
    chosen = largest(scores, {"a": np.ones(4, bool)}, 3)
    assert chosen["a"].tolist() == [True, True, False, True]


def test_scores_of_different_types_are_ranked_together():
    scores = {"a": np.array([1, 3]), "b": np.array([0.5, 3.5], "float32")}
    chosen = largest(scores, {name: np.ones(2, bool) for name in scores}, 2)
    assert [mask.tolist() for mask in chosen.values()] == [[False, True]] * 2


@pytest.mark.parametrize("allocate", ALLOCATIONS, ids=repr)
def test_dead_positions_have_no_say(allocate):
    """Whatever their scores are: weight decay and momentum may move what is masked."""
    rng = np.random.default_rng(0)
    masks = Masks({f"layer{i}": rng.random((8, 9)) < 0.5 for i in range(3)})
    scores = {name: rng.random(mask.shape) for name, mask in masks.items()}
    new = allocate(scores, masks, 0.8)
    for value in (np.inf, -np.inf, np.nan):
        other = {n: np.where(masks[n], s, value) for n, s in scores.items()}
        assert allocate(other, masks, 0.8) == new


@pytest.mark.parametrize("allocate", ALLOCATIONS, ids=repr)
def test_nan_is_refused(allocate):
    masks = Masks.dense({f"layer{i}": (2, 3) for i in range(3)})
    scores = {name: np.ones(mask.shape) for name, mask in masks.items()}
    scores["layer1"][1, 1] = np.nan
    with pytest.raises(ValueError, match="`layer1` hold NaN"):
        allocate(scores, masks, 0.5)


def lenet(allocate, sparsity):
    rng = np.random.default_rng(0)
    masks = Masks.dense(LENET)
    scores = {name: rng.random(mask.shape) for name, mask in masks.items()}
    return allocate(scores, masks, sparsity)


@pytest.mark.parametrize(("level", "density"), [(3, 0.5128), (7, 0.2107), (15, 0.0358)])
def test_layerwise_gives_the_papers_grid(level, density):
    """Frankle & Carbin 2019: 20 % a round, 10 % in the output layer."""
    allocate = Layerwise({"output": 0.1}, rate=0.2)
    total = allocate.total_sparsity(1 - 0.8**level, Masks.dense(LENET))
    masks = lenet(allocate, total)
    assert masks.density == pytest.approx(density, abs=5e-5)
    for name, shape in LENET.items():
        rate = 0.1 if name == "output/kernel" else 0.2
        expected = math.prod(shape) * (1 - rate) ** level
        assert abs(np.count_nonzero(masks[name]) - expected) <= 1


def test_global_differs_from_layer_to_layer_and_uniform_does_not():
    masks = Masks.dense({"small": (50, 2), "large": (100, 3)})
    scores = {"small": np.full((50, 2), 2.0), "large": np.full((100, 3), 1.0)}
    assert [m.sum() for m in Global()(scores, masks, 0.5).values()] == [100, 100]
    assert [m.sum() for m in Uniform()(scores, masks, 0.5).values()] == [50, 150]


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), SPARSITIES)
@example([1, 1, 1], 0.5)
def test_uniform_is_within_one_weight_of_each_layers_share(sizes, sparsity):
    masks = Masks.dense({str(i): (size,) for i, size in enumerate(sizes)})
    keep = round(sum(sizes) * (1 - sparsity))
    assume(keep)
    scores = {name: np.ones(mask.shape) for name, mask in masks.items()}
    for name, mask in Uniform()(scores, masks, sparsity).items():
        assert abs(mask.sum() - masks[name].size * keep / sum(sizes)) < 1


@pytest.mark.parametrize("allocate", [Global, Layerwise, Uniform, ErdosRenyi])
@pytest.mark.parametrize("pattern", ["output", "output/kernel", "out*"])
def test_layers_can_be_left_out(allocate, pattern):
    masks = lenet(allocate(exclude=[pattern]), 0.9)
    assert masks["output/kernel"].all()
    assert masks.kept == round(266_200 * 0.1)


@pytest.mark.parametrize("allocate", [Global, Layerwise, Uniform, ErdosRenyi])
def test_total_sparsity_is_that_of_the_layers_not_left_out(allocate):
    dense = Masks.dense(LENET)
    left_out = allocate(exclude=["output"]).total_sparsity(0.5, dense)
    assert left_out == pytest.approx(0.5 * 265_200 / 266_200)
    assert allocate().total_sparsity(0.5, dense) == pytest.approx(0.5)


WIDE = {"small": (10, 10), "wide": (1000, 200), "conv": (3, 3, 20, 40), "bias": (50,)}
SIDES = {
    False: {"small": 20, "wide": 1200, "conv": 60 * 9, "bias": 50},
    True: {"small": 20, "wide": 1200, "conv": 66, "bias": 50},
}


@pytest.mark.parametrize("kernel", [False, True])
@pytest.mark.parametrize("sparsity", [0.2, 0.8, 0.95, 0.995])
def test_densities_are_as_sides_over_size_up_to_dense(kernel, sparsity):
    masks = Masks.dense(WIDE)
    scores = {name: np.ones(mask.shape) for name, mask in masks.items()}
    new = ErdosRenyi(kernel)(scores, masks, sparsity)
    assert new.kept == round(masks.size * (1 - sparsity))
    dense = [name for name in masks if new[name].all()]
    # One ε for all that are not dense, and a larger one would be too much for those.
    epsilon = {name: new[name].sum() / SIDES[kernel][name] for name in masks}
    rest = [name for name in masks if name not in dense]
    for name in rest:
        shared = sum(new[n].sum() for n in rest) / sum(SIDES[kernel][n] for n in rest)
        assert abs(new[name].sum() - shared * SIDES[kernel][name]) < 1
        assert all(epsilon[full] <= shared + 0.1 for full in dense)
    assert ("small" in dense) == (sparsity <= 0.95)


def test_erdos_renyi_levels_are_nested_and_stay_exact():
    masks = Masks.dense(WIDE)
    rng = np.random.default_rng(0)
    scores = {name: rng.random(mask.shape) for name, mask in masks.items()}
    for level in range(1, 20):
        once = ErdosRenyi()(scores, Masks.dense(WIDE), 1 - 0.8**level)
        masks = ErdosRenyi()(scores, masks, 1 - 0.8**level)
        for name in masks:
            assert abs(masks[name].sum() - once[name].sum()) <= 1


def test_pruning_by_other_means_before_does_not_revive():
    """The share of a layer may be more than it has left."""
    masks = Masks({"a": np.arange(100) < 10, "b": np.ones(100, bool)})
    scores = {name: np.arange(100.0) for name in masks}
    for allocate in (Uniform(), Layerwise(), Uniform(exclude=["a"]), ErdosRenyi()):
        new = allocate(scores, masks, 0.5)
        assert [mask.sum() for mask in new.values()] == [10, 90]


ONES = {"a": np.ones((2, 3)), "b": np.ones(4)}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: Global()(ONES, m, 1.0), "from 0 below 1.*sparsity=1.0"),
        (lambda m: Global()(ONES, m, -0.1), "from 0 below 1.*sparsity=-0.1"),
        (lambda m: Global()(ONES, m, 0.99), "No weight of 10 would be left"),
        (
            lambda m: Global()({"a": ONES["a"]}, m, 0.5),
            r"arrays for \['a', 'b'\]",
        ),
        (
            lambda m: Global()(ONES | {"b": np.ones(5)}, m, 0.5),
            r"\(4,\) for `b`.*\(5,\)",
        ),
        (lambda m: Global(floor=1.5), "from 0 to 1.*floor=1.5"),
        (lambda m: Global(["typo"])(ONES, m, 0.5), "'typo' matches none"),
        (lambda m: Layerwise({"typo": 0.1})(ONES, m, 0.5), "'typo' matches none"),
        (lambda m: Uniform(["*"])(ONES, m, 0.5), "Every layer is left out"),
        (lambda m: Global(["a"])(ONES, m, 0.6), "sparsity=0.6000"),
        (lambda m: Layerwise({"a": 0.0}, 0.0)(ONES, m, 0.5), "the rates can reach"),
        (lambda m: Layerwise(rate=0.0).total_sparsity(0.5, m), "rate=0"),
        (lambda m: Layerwise(rate=1.0), "rate=1.0"),
        (lambda m: Layerwise({"a": -0.1}), r"rates\['a'\]=-0.1"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(Masks.dense({"a": (2, 3), "b": (4,)}))


def test_shares_of_no_layers_are_refused():
    scores = {"a": np.ones((3, 4))}
    masks = Masks.dense({"a": (3, 4)})
    with pytest.raises(ValueError, match=r"`shares`.*\['a'\]"):
        allocation.keep_by_layer(scores, masks, 5, {})
    with pytest.raises(ValueError, match="at least one weight"):
        allocation.keep_by_layer({}, Masks({}), 5, {})


@pytest.mark.parametrize(
    "allocate", [Global(), Layerwise(), Uniform(), ErdosRenyi()], ids=repr
)
def test_less_sparsity_than_there_is_would_revive_and_is_refused(allocate):
    masks = Masks({"a": np.zeros((2, 3)), "b": np.ones(4)})
    with pytest.raises(ValueError, match="leaves the pruned weights pruned"):
        allocate(ONES, masks, 0.5)
    assert allocate(ONES, masks, 0.6) == masks


def test_a_plain_function_has_the_whole_protocol():
    function = lambda scores, masks, sparsity: Global()(scores, masks, sparsity)  # noqa: E731
    allocate = allocation.get(function)
    masks = Masks.dense({"a": (2, 3), "b": (4,)})
    assert isinstance(allocate, allocation.Allocation)
    assert allocate(ONES, masks, 0.5) == Global()(ONES, masks, 0.5)
    assert allocate.total_sparsity(0.5, masks) == 0.5
    assert allocate.exclude == ()
    assert allocate.leaving_out(["a"]) is allocate
    assert allocation.get(allocate) is allocate


def test_layers_are_left_out_of_a_copy():
    allocate = Layerwise({"a": 0.1}, rate=0.3)
    assert allocate.leaving_out(["b"]) == Layerwise({"a": 0.1}, 0.3, exclude=["b"])
    assert allocate.exclude == ()


def test_get():
    assert allocation.get("layerwise") == Layerwise()
    own = Global(exclude=["a"])
    assert allocation.get(own) is own
    with pytest.raises(ValueError, match=r"\['erdos_renyi', .*allocation='typo'"):
        allocation.get("typo")


def test_rates_of_one_round_are_exact_where_they_are_whole():
    """Rounding the network's total takes no weight of another layer's."""
    masks = Masks.dense({"a": (1000,), "b": (10,), "c": (10,)})
    scores = {name: np.arange(mask.size) for name, mask in masks.items()}
    allocation = LayerSparsities({"a": 0.5, "b": 0.129, "c": 0.131}, rate=0)
    kept = allocation(scores, masks, allocation.sparsity(masks))
    assert [int(mask.sum()) for mask in kept.values()] == [500, 9, 8]


def test_rates_keep_what_their_rounds_say_next_to_a_whole_round_too():
    shapes = [(12, 28), (31, 35), (17, 6), (22, 11), (14, 19)]
    masks = Masks.dense({f"l{i}": shape for i, shape in enumerate(shapes)})
    scores = {name: np.ones(mask.shape) for name, mask in masks.items()}
    allocate = Layerwise({"l4": 0.1}, rate=0.2)
    kept = allocate(scores, masks, allocate.total_sparsity(0.2, masks))
    assert (int(kept["l2"].sum()), int(kept["l3"].sum())) == (82, 193)
