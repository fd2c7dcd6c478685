"""Groups of weights live whole or die whole, whatever chooses them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_lottery import allocation as allocations
from keras_lottery import grouping
from keras_lottery.masks import Masks
from keras_lottery.testing import check_allocation
from keras_lottery.tickets.allocation import (
    ALLOCATIONS,
    Global,
    Layerwise,
    Uniform,
    kept_after,
)
from keras_lottery.tickets.grouping import Blocks, Columns, Grouped, NOfM

pytestmark = pytest.mark.once

# As (inputs, outputs).
BLOCKS = {"block_1x4": (4, 1), "block_2x1": (1, 2), (3, 2): (3, 2), (1, 1): (1, 1)}
SHAPES = {"conv/kernel": (3, 3, 4, 8), "dense/kernel": (21, 9), "output/kernel": (9, 4)}


def grouped(allocation, granularity):
    return Grouped(allocation, grouping.get(granularity).of(None, None))


def matrix(array):
    return array.reshape(-1, array.shape[-1])


def tiles(array, inputs, outputs):
    """The blocks of an array, one by one, by plain slices."""
    array = matrix(array)
    return [
        array[i : i + inputs, j : j + outputs]
        for i in range(0, array.shape[0], inputs)
        for j in range(0, array.shape[1], outputs)
    ]


@st.composite
def networks(draw):
    """Scores, many of them equal, and shapes that blocks divide, or do not."""
    shape = hnp.array_shapes(min_dims=2, max_dims=4, max_side=9)
    shapes = [(2, 1), *draw(st.lists(shape, min_size=1, max_size=2))]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    draws = draw(
        st.sampled_from(
            [rng.normal, lambda size: rng.integers(0, 3, size).astype("float32")]
        )
    )
    return {f"layer{i}": draws(size=shape) for i, shape in enumerate(shapes)}


def dense(scores):
    return Masks.dense({name: score.shape for name, score in scores.items()})


def prune_twice(allocate, scores, first, second):
    """Masks before and after, for each of the prunings that can be had."""
    masks = dense(scores)
    for sparsity in sorted((first, second)):
        try:
            new = allocate(scores, masks, sparsity)
        except ValueError as error:
            assert "would be left" in str(error)
            return
        yield sparsity, masks, new
        masks = new


@given(networks())
def test_a_column_is_a_block_of_all_outputs(scores):
    for score in scores.values():
        labels = Blocks(1, score.shape[-1]).label(score.shape)
        np.testing.assert_array_equal(Columns().label(score.shape), labels)


@pytest.mark.parametrize("granularity", BLOCKS)
@pytest.mark.parametrize("name", ALLOCATIONS)
@given(networks(), st.floats(0, 0.95), st.floats(0, 0.95))
def test_blocks_live_whole_or_die_whole(name, granularity, scores, first, second):
    size = BLOCKS[granularity]
    allocate = grouped(allocations.get(name), granularity)
    for sparsity, old, new in prune_twice(allocate, scores, first, second):
        assert abs(new.kept - kept_after(old, sparsity)) <= np.prod(size) / 2
        for weight, mask in new.items():
            assert all(tile.all() or not tile.any() for tile in tiles(mask, *size))
            assert not (mask & ~old[weight]).any()


@pytest.mark.parametrize("granularity", BLOCKS)
@given(scores=networks(), sparsity=st.floats(0, 0.9))
def test_blocks_of_the_largest_means_are_kept(granularity, scores, sparsity):
    size = BLOCKS[granularity]
    try:
        new = grouped(Global(floor=0), granularity)(scores, dense(scores), sparsity)
    except ValueError as error:
        assert "would be left" in str(error)
        return
    kept, gone = [], []
    for name, score in scores.items():
        for tile, mask in zip(
            tiles(score, *size), tiles(new[name], *size), strict=True
        ):
            (kept if mask.all() else gone).append(tile.mean())
    assert min(kept) >= max(gone, default=-np.inf) - 1e-6


def share(size, n, m):
    return math.ceil(size * n / m)


@given(networks(), st.floats(0, 1), st.sampled_from(["2:4", "1:2", "3:4"]))
def test_n_of_m(scores, part, pattern):
    n, m = map(int, pattern.split(":"))
    allocate = grouped(Global(), pattern)
    highest = 1 - n / m
    blocks = [tile for score in scores.values() for tile in tiles(score, m, 1)]
    least = sum(share(block.size, n, m) for block in blocks)
    for sparsity, old, new in prune_twice(allocate, scores, part * highest, highest):
        asked = max(kept_after(old, sparsity), least)
        assert abs(new.kept - asked) <= (m - n) / 2
        for name, mask in new.items():
            assert not (mask & ~old[name]).any()
            for tile, score in zip(
                tiles(mask, m, 1), tiles(scores[name], m, 1), strict=True
            ):
                assert tile.all() or tile.sum() == share(tile.size, n, m)
                if not tile.all():
                    assert score[tile].min() >= score[~tile].max()
    for mask in allocate(scores, dense(scores), highest).values():
        assert all(t.sum() == share(t.size, n, m) for t in tiles(mask, m, 1))


@given(networks(), st.floats(0, 0.9), st.sampled_from([*BLOCKS, "2:4"]))
def test_the_same_sparsity_again_changes_nothing(scores, sparsity, granularity):
    # Under a floor, which whole groups seldom meet, the rest may go elsewhere.
    allocate = grouped(Global(floor=0), granularity)
    sparsity = min(sparsity, 0.5) if granularity == "2:4" else sparsity
    try:
        once = allocate(scores, dense(scores), sparsity)
    except ValueError as error:
        assert "would be left" in str(error)
        return
    assert allocate(scores, once, sparsity) == once


@pytest.mark.parametrize("granularity", [*BLOCKS, "2:4"])
def test_what_was_pruned_alone_stays_pruned_and_has_no_say(granularity):
    rng = np.random.default_rng(0)
    masks = Masks({n: rng.random(s) < 0.9 for n, s in SHAPES.items()})
    scores = {n: rng.random(s) for n, s in SHAPES.items()}
    allocate = grouped(Global(), granularity)
    new = allocate(scores, masks, 0.45)
    assert abs(new.kept - kept_after(masks, 0.45)) <= 3
    assert not any((new[name] & ~masks[name]).any() for name in masks)
    for value in (np.nan, np.inf, -np.inf):
        other = {n: np.where(masks[n], s, value) for n, s in scores.items()}
        assert allocate(other, masks, 0.45) == new
    if granularity in BLOCKS:
        for name, mask in new.items():
            size = BLOCKS[granularity]
            before = tiles(masks[name], *size)
            for tile, old in zip(tiles(mask, *size), before, strict=True):
                assert (tile == old).all() or not tile.any()


@pytest.mark.parametrize("name", [name for name in ALLOCATIONS if name != "global"])
def test_layers_share_as_without_groups(name):
    """To within a group each, where scores do not choose the layers."""
    rng = np.random.default_rng(0)
    scores = {n: rng.random(s) for n, s in SHAPES.items()}
    alone = allocations.get(name)(scores, dense(scores), 0.6)
    groups = grouped(allocations.get(name), "block_1x4")(scores, dense(scores), 0.6)
    for weight, mask in alone.items():
        assert abs(int(mask.sum()) - int(groups[weight].sum())) < 4


@pytest.mark.parametrize("name", ALLOCATIONS)
def test_groups_of_one_weight_are_the_allocation_itself(name):
    allocation = allocations.get(name)
    check_allocation(grouped(allocation, (1, 1)))
    check_allocation(grouped(allocation, "weight"))


def test_each_layer_goes_to_the_most_that_n_of_m_leave():
    """21 and 9 inputs are no multiples of 4: of the last one, none can go."""
    rng = np.random.default_rng(0)
    scores = {n: rng.random(s) for n, s in SHAPES.items()}
    new = grouped(Uniform(), "2:4")(scores, dense(scores), 0.5)
    kept = {name: matrix(mask).sum(0).tolist() for name, mask in new.items()}
    assert kept == {
        "conv/kernel": [18] * 8,
        "dense/kernel": [11] * 9,
        "output/kernel": [5] * 4,
    }


@pytest.mark.parametrize("granularity", ["block_1x4", "2:4"])
def test_of_groups_with_equal_means_each_layer_has_its_share(granularity):
    """As those of units that are dead."""
    scores = {f"layer{i}": np.zeros((16, 16)) for i in range(5)}
    sparsity = 0.35 if granularity == "2:4" else 0.5
    new = grouped(Uniform(), granularity)(scores, dense(scores), sparsity)
    asked = 256 * (1 - sparsity)
    assert all(abs(mask.sum() - asked) < 4 for mask in new.values())
    assert abs(new.kept - 5 * asked) <= 2


def test_blocks_of_a_convolution_run_along_its_flattened_inputs():
    """Height by width by inputs: with 6 channels, a block of 4 goes over pixels."""
    order = np.arange(12, dtype=float).reshape(1, 2, 6, 1)
    masks = grouped(Global(), "block_1x4")({"conv": order}, dense({"conv": order}), 0.6)
    assert np.flatnonzero(masks["conv"]).tolist() == [8, 9, 10, 11]


def test_the_last_block_counts_by_its_size():
    score = np.array([[1.0], [1], [1], [1], [5], [5]])
    masks = grouped(Global(), "block_1x4")({"a": score}, dense({"a": score}), 0.5)
    # 3 of 6 weights: 2 are as near as 4, and the last block is worth more.
    assert masks["a"].ravel().tolist() == [False] * 4 + [True] * 2


def test_an_allocations_own_rates_count():
    assert grouped(Global(), (4, 1)).total_sparsity(0.5, Masks.dense(SHAPES)) == 0.5
    rates = Layerwise({"output": 0.1}, rate=0.2)
    masks = Masks.dense(SHAPES)
    expected = rates.total_sparsity(0.2, masks)
    assert grouped(rates, (4, 1)).total_sparsity(0.2, masks) == expected < 0.2


ONES = {name: np.ones(shape) for name, shape in SHAPES.items()}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: grouped(Global(), "typo"), "granularity='typo'"),
        (lambda m: grouped(Global(), "4:2"), "granularity='4:2'"),
        (lambda m: grouped(Global(), (0, 1)), r"granularity=\(0, 1\)"),
        (lambda m: grouped(Global(), None), "granularity=None"),
        (lambda m: grouping.get("block_4"), "granularity='block_4'"),
        (
            lambda m: grouped(Global(), "2:4")(ONES, m, 0.6),
            "at most 0.5: .* sparsity=0.6",
        ),
        (
            lambda m: grouped(Layerwise({"output": 0.5}), "2:4")(ONES, m, 0.4),
            "allocation='global'",
        ),
        (lambda m: grouped(Global(), (90, 90))(ONES, m, 0.99), "No group"),
        (lambda m: grouped(Global(), (4, 1))(ONES, m, 1.0), "sparsity=1.0"),
        (lambda m: grouped(Global(), (4, 1))({}, m, 0.5), "Expected `scores`"),
        (lambda m: grouped(Global(["typo"]), (4, 1))(ONES, m, 0.5), "'typo'"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(Masks.dense(SHAPES))


@pytest.mark.parametrize("granularity", [*BLOCKS, "2:4"])
def test_nan_is_refused(granularity):
    scores = {n: s.copy() for n, s in ONES.items()}
    scores["dense/kernel"][20, 8] = np.nan
    with pytest.raises(ValueError, match="`dense/kernel` hold NaN"):
        grouped(Global(), granularity)(scores, Masks.dense(SHAPES), 0.3)


@pytest.mark.parametrize("granularity", ["weight", *BLOCKS, "2:4"])
@given(scores=networks(), seed=st.integers(0, 99))
def test_all_groups_unfolded_are_what_was_folded(granularity, scores, seed):
    """And of some there is nothing else, whatever was pruned before."""
    rng = np.random.default_rng(seed)
    groups_of = grouping.get(granularity).of(None, None)
    masks = Masks({n: rng.random(s.shape) < 0.8 for n, s in scores.items()})
    groups = groups_of.fold(scores, masks)
    assert groups.masks == groups_of.left(masks) == masks
    assert {n: s.shape for n, s in groups.scores.items()} == {
        n: m.shape for n, m in masks.items()
    }
    if masks.kept:
        assert groups.unfold(masks) == masks
    some = Masks({n: m & (rng.random(m.shape) < 0.9) for n, m in masks.items()})
    try:
        new = groups.unfold(some)
    except ValueError as error:
        assert "would be left" in str(error) or "cannot leave" in str(error)
        return
    assert not any((new[name] & ~masks[name]).any() for name in masks)


@pytest.mark.parametrize("granularity", ["weight", *BLOCKS, "2:4"])
@settings(max_examples=10)
@given(scores=networks(), sparsity=st.floats(0.1, 0.5), seed=st.integers(0, 99))
def test_groups_that_change_places_stay_groups(granularity, scores, sparsity, seed):
    """As many weights in each layer, in whole groups, of what may be kept."""
    allocate = grouped(Global(), granularity)
    rng = np.random.default_rng(seed)
    try:
        before = allocate(scores, dense(scores), sparsity / 2)
        masks = allocate(scores, before, sparsity)
    except ValueError as error:
        assert "would be left" in str(error)
        return
    wishes = {name: rng.random(score.shape) for name, score in scores.items()}
    size = {"weight": (1, 1), "2:4": (4, 1)}.get(granularity) or BLOCKS[granularity]
    shuffled = allocate.grouping.shuffle(masks, rng)
    for alive, other in (
        (dense(scores), allocate.grouping.rearrange(masks, wishes, dense(scores))),
        (before, allocate.grouping.rearrange(masks, wishes, before)),
        (dense(scores), shuffled),
    ):
        for name, mask in other.items():
            assert mask.sum() == masks[name].sum()
            assert not (mask & ~alive[name]).any()
            # As many groups of each size with as many weights each.
            shape = [
                sorted((tile.size, tile.sum()) for tile in tiles(m, *size))
                for m in (mask, masks[name])
            ]
            assert shape[0] == shape[1]


def test_groups_go_by_what_is_preferred():
    masks = Masks({"a": np.repeat([True, False, False, True], 4)[:, None]})
    wish = np.repeat([1.0, 2.0, 4.0, 3.0], 4)[:, None]
    wish[8] = 0.0  # A mean of 3 is as good as the other, which comes later.
    other = Blocks(4, 1).rearrange(masks, {"a": wish}, masks)
    assert other == masks
    everywhere = Masks.dense({"a": (16, 1)})
    other = Blocks(4, 1).rearrange(masks, {"a": wish}, everywhere)
    assert other["a"].ravel().tolist() == [False] * 8 + [True] * 8


def test_n_of_m_change_places_within_blocks_too():
    score = np.tile([3.0, 2, 1, 0], 8)[:, None]
    masks = grouped(Global(), "2:4")({"a": score}, dense({"a": score}), 0.5)
    other = NOfM(2, 4).rearrange(masks, {"a": -score}, dense({"a": score}))
    assert other["a"].ravel().tolist() == [False, False, True, True] * 8
