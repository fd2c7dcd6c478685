"""Overlap and densities: functions of masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_lottery.masks import Masks
from keras_lottery.study.analysis import layer_densities, mask_overlap
from keras_lottery.tickets import Ticket

pytestmark = pytest.mark.once

SHAPES = {"hidden/kernel": (9, 7), "output/kernel": (7, 3)}


def random_masks(seed, density=0.5):
    rng = np.random.default_rng(seed)
    return Masks({n: rng.random(shape) < density for n, shape in SHAPES.items()})


class TestMaskOverlap:
    @given(st.integers(0, 1000), st.floats(0, 1), st.floats(0, 1))
    @settings(max_examples=20)
    def test_is_symmetric_and_between_0_and_1(self, seed, density_a, density_b):
        a, b = random_masks(seed, density_a), random_masks(seed + 1, density_b)
        one, other = mask_overlap(a, b), mask_overlap(b, a)
        shared = ["shared", "shared_by_chance", "jaccard", "jaccard_by_chance"]
        np.testing.assert_array_equal(one[shared], other[shared])
        assert one["kept_a"].tolist() == other["kept_b"].tolist()
        for column in ("jaccard", "jaccard_by_chance"):
            assert (one[column].dropna().between(0, 1)).all()

    def test_of_a_ticket_with_itself_is_one(self):
        masks = random_masks(0)
        table = mask_overlap(masks, masks)
        assert (table["jaccard"] == 1).all()
        assert table["shared"].tolist()[-1] == masks.kept
        ticket = Ticket(masks, {})
        assert mask_overlap(ticket, masks).equals(table)
        assert layer_densities(ticket).equals(layer_densities(masks))

    def test_counts(self):
        a, b = random_masks(0), random_masks(1)
        total = mask_overlap(a, b).set_index("weight").loc["total"]
        shared = sum((a[name] & b[name]).sum() for name in SHAPES)
        either = sum((a[name] | b[name]).sum() for name in SHAPES)
        assert total["shared"] == shared
        assert total["jaccard"] == pytest.approx(shared / either)
        assert total["size"] == a.size

    def test_chance_is_the_mean_over_shuffled_masks(self):
        a, b = random_masks(0, 0.3), random_masks(1, 0.6)
        rng = np.random.default_rng(2)
        shared = [
            sum(
                (a[name].ravel() & rng.permutation(b[name].ravel())).sum()
                for name in SHAPES
            )
            for _ in range(2000)
        ]
        by_chance = mask_overlap(a, b)["shared_by_chance"].iloc[-1]
        assert by_chance == pytest.approx(np.mean(shared), abs=0.3)

    def test_empty_layers_have_no_overlap(self):
        empty = random_masks(0, 0)
        assert mask_overlap(empty, empty)["jaccard"].isna().all()

    def test_masks_of_other_networks_are_refused(self):
        with pytest.raises(ValueError, match="masks of one network"):
            mask_overlap(random_masks(0), Masks({"hidden/kernel": np.ones((9, 7))}))


def test_layer_densities():
    masks = random_masks(0)
    table = layer_densities(masks).set_index("weight")
    for name in SHAPES:
        assert table.loc[name, "density"] == masks[name].mean()
    assert table.loc["total", "density"] == masks.density
    assert table.loc["total", ["kept", "size"]].tolist() == [masks.kept, masks.size]
