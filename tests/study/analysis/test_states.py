"""Weight correlation and movement: functions of two states."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_lottery.masks import Masks
from keras_lottery.study.analysis import (
    weight_correlation,
    weight_histograms,
    weight_movement,
)

pytestmark = pytest.mark.once

SHAPES = {"hidden/kernel": (6, 5), "output/kernel": (5, 4)}
SEEDS = st.integers(0, 2**32 - 1)
SHARES = st.floats(0.02, 1)


def state(seed):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape) for name, shape in SHAPES.items()}


def random_masks(seed, density=0.6):
    rng = np.random.default_rng(seed)
    return Masks({n: rng.random(shape) < density for n, shape in SHAPES.items()})


def correlations(*args, **kwargs):
    table = weight_correlation(*args, **kwargs)
    return dict(zip(table["weight"], table["correlation"], strict=True))


class TestWeightCorrelation:
    def test_is_the_papers_formula(self):
        before, after, p = state(1), state(2), 0.3
        found = correlations(before, after, p)
        shared, chosen = 0, 0
        for name in SHAPES:
            size = round(p * before[name].size)
            tops = [
                set(np.argsort(-np.abs(each[name]).ravel())[:size].tolist())
                for each in (before, after)
            ]
            assert found[name] == len(tops[0] & tops[1]) / size
            shared, chosen = shared + len(tops[0] & tops[1]), chosen + size
        assert found["total"] == shared / chosen

    @given(SEEDS, SHARES)
    @settings(max_examples=20)
    def test_of_equal_weights_is_one(self, seed, p):
        other = {name: -2 * array for name, array in state(seed).items()}
        assert set(correlations(state(seed), other, p).values()) == {1.0}

    @given(SEEDS, SHARES, SEEDS)
    @settings(max_examples=20)
    def test_is_symmetric_and_a_share(self, seed, p, other):
        one, two, masks = state(seed), state(other), random_masks(seed)
        found = correlations(one, two, p, masks)
        assert found == correlations(two, one, p, masks)
        assert all(0 <= value <= 1 for value in found.values())

    @given(SEEDS, SHARES)
    @settings(max_examples=20)
    def test_does_not_depend_on_the_order_within_a_layer(self, seed, p):
        before, after, masks = state(seed), state(seed + 1), random_masks(seed)
        rng = np.random.default_rng(seed)
        order = {name: rng.permutation(a.size) for name, a in before.items()}
        moved = [
            {name: a.ravel()[order[name]].reshape(a.shape) for name, a in each.items()}
            for each in (before, after, masks)
        ]
        found = correlations(before, after, p, masks)
        assert found == correlations(moved[0], moved[1], p, Masks(moved[2]))

    @pytest.mark.parametrize("p", [0.1, 0.5])
    def test_of_independent_weights_is_about_p(self, p):
        rng = np.random.default_rng(0)
        before, after = ({"kernel": rng.normal(size=(200, 200))} for _ in range(2))
        deviation = np.sqrt((1 - p) ** 2 / 40_000)
        assert correlations(before, after, p)["total"] == pytest.approx(
            p, abs=4 * deviation
        )

    def test_p_is_a_share_of_the_weights_left(self):
        masks = Masks({"kernel": [[True, True, True, True, False, False]]})
        before = {"kernel": np.array([[4.0, 3.0, 2.0, 1.0, 9.0, 8.0]])}
        after = {"kernel": np.array([[4.0, 1.0, 2.0, 3.0, np.nan, 0.0]])}
        table = weight_correlation(before, after, 0.5, masks)
        assert table.loc[0, ["size", "top", "shared"]].tolist() == [4, 2, 1]

    def test_ties_go_to_the_earlier_position(self):
        before = {"kernel": np.array([[1.0, 1.0, -1.0, 1.0]])}
        after = {"kernel": np.array([[2.0, 1.0, 0.0, 0.0]])}
        assert correlations(before, after, 0.5)["total"] == 1

    def test_small_layers_have_one_weight_at_the_top_and_empty_ones_none(self):
        masks = random_masks(0)
        masks = Masks({**masks, "output/kernel": np.zeros((5, 4), bool)})
        table = weight_correlation(state(0), state(1), 0.001, masks).set_index("weight")
        assert table["top"].tolist() == [1, 0, 1]
        assert np.isnan(table["correlation"]["output/kernel"])
        assert not np.isnan(table["correlation"]["total"])

    def test_only_matrices_count_by_default(self):
        before = {**state(0), "hidden/bias": np.ones(5), "seed/state": np.ones(2)}
        table = weight_correlation(before, before, 0.5)
        assert table["weight"].tolist() == [*SHAPES, "total"]

    @pytest.mark.parametrize("p", [0, 1.1, -0.5, float("nan")])
    def test_shares_out_of_range_are_refused(self, p):
        with pytest.raises(ValueError, match=f"Received: p={p}"):
            weight_correlation(state(0), state(1), p)

    def test_states_of_other_networks_are_refused(self):
        other = {**state(0), "hidden/kernel": np.ones((3, 3))}
        with pytest.raises(ValueError, match=r"\(6, 5\).*Received: shape \(3, 3\)"):
            weight_correlation(state(0), other, 0.5)
        with pytest.raises(ValueError, match="Received: only"):
            weight_correlation(state(0), {"else/kernel": np.ones((2, 2))}, 0.5)
        with pytest.raises(ValueError, match="two or more dimensions"):
            weight_correlation({"b": np.ones(3)}, {"b": np.ones(3)}, 0.5)


class TestWeightMovement:
    @given(SEEDS, st.sampled_from([0.0, 0.5, 1.0]))
    @settings(max_examples=10)
    def test_is_the_definition(self, seed, density):
        initial, final, masks = (
            state(seed),
            state(seed + 1),
            random_masks(seed, density),
        )
        table = weight_movement(initial, final, masks)
        table = table.set_index(["weight", "part", "quantity"])
        for name in SHAPES:
            for part, chosen in (("kept", masks[name]), ("pruned", ~masks[name])):
                w_0, w_t = initial[name][chosen], final[name][chosen]
                expected = {
                    "initial": w_0,
                    "distance": np.abs(w_t - w_0),
                    "growth": np.abs(w_t) - np.abs(w_0),
                }
                for quantity, values in expected.items():
                    row = table.loc[name, part, quantity]
                    assert row["count"] == values.size
                    if not values.size:
                        assert row.drop("count").isna().all()
                        continue
                    assert row["mean"] == pytest.approx(values.mean())
                    assert row["std"] == pytest.approx(values.std())
                    assert row["q50"] == pytest.approx(np.median(values))
                    assert row["q05"] == pytest.approx(np.quantile(values, 0.05))

    def test_totals_are_of_all_weights(self):
        initial, final, masks = state(0), state(1), random_masks(2)
        table = weight_movement(initial, final, masks)
        total = table.query("weight == 'total' and quantity == 'distance'")
        moved = np.concatenate(
            [np.abs(final[n] - initial[n])[masks[n]] for n in SHAPES]
        )
        assert total["count"].tolist() == [masks.kept, masks.size - masks.kept]
        assert total["mean"].iloc[0] == pytest.approx(moved.mean())

    def test_histograms_hold_every_weight_once_in_shared_bins(self):
        initial, final, masks = state(0), state(1), random_masks(2)
        table = weight_histograms(initial, final, masks, bins=7)
        moved = weight_movement(initial, final, masks)
        labels = ["weight", "part", "quantity"]
        counts = table.groupby(labels, sort=False)["count"].sum()
        assert counts.tolist() == moved["count"].tolist()
        assert (table.groupby(labels).size() == 7).all()
        kept, pruned = (
            table.query(f"part == '{part}'")[["low", "high"]].to_numpy()
            for part in ("kept", "pruned")
        )
        np.testing.assert_array_equal(kept, pruned)

    def test_misfits_are_refused(self):
        with pytest.raises(ValueError, match="states of one network"):
            weight_movement(state(0), {}, random_masks(0))
        with pytest.raises(ValueError, match="Received: bins=0"):
            weight_histograms(state(0), state(1), random_masks(0), bins=0)
