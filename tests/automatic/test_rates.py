"""Searches for rates of layers."""

import numpy as np
import pytest

from keras_lottery.automatic import anneal, draw

pytestmark = pytest.mark.once


def separable(seed, layers=8, budget=0.5):
    """Σ a r³ where Σ c (1 - r) is at most the budget, and its least value."""
    rng = np.random.default_rng(seed)
    a, c = rng.lognormal(0, 1.5, layers), rng.lognormal(0, 1, layers)
    c /= c.sum()

    def raised(rates):
        low, high = -1.0, 1.0
        for _ in range(30):
            middle = (low + high) / 2
            if c @ (1 - np.clip(rates + middle, 0, 1)) > budget:
                low = middle
            else:
                high = middle
        return np.clip(rates + high, 0, 1)

    # Where the multiplier of the budget is λ, r² = λ c / 3 a.
    multipliers = np.geomspace(1e-3, 1e3, 4000)[:, np.newaxis]
    rates = np.clip(np.sqrt(multipliers * c / (3 * a)), 0, 1)
    best = rates[np.argmax((1 - rates) @ c <= budget)]
    return lambda point: float(a @ raised(point) ** 3), float(a @ best**3)


def test_annealing_finds_the_optimum_of_a_separable_problem_and_chance_does_not():
    ratios = {}
    for search in (anneal, draw):
        found = []
        for seed in range(5):
            energy, least = separable(seed)
            found.append(energy(search(energy, 8, 300, seed)) / least)
        ratios[search] = np.median(found)
    assert 1 - 1e-3 <= ratios[anneal] < 1.03
    assert ratios[draw] > 1.1


@pytest.mark.parametrize("search", [anneal, draw])
@pytest.mark.parametrize("evaluations", [1, 2, 50])
def test_it_asks_as_often_as_it_is_told(search, evaluations):
    asked = []

    def energy(point):
        assert point.shape == (3,)
        assert np.all((point >= 0) & (point <= 1))
        asked.append(point.copy())
        return float(point @ point)

    best = search(energy, 3, evaluations)
    assert evaluations <= len(asked) <= evaluations + 3
    np.testing.assert_array_equal(best, min(asked, key=lambda point: point @ point))
    again = search(lambda point: float(point @ point), 3, evaluations)
    np.testing.assert_array_equal(again, best)


def test_the_unit_of_the_energy_changes_nothing():
    energy, _ = separable(0)
    one = anneal(energy, 8, 60)
    np.testing.assert_array_equal(anneal(lambda x: 1024 * energy(x), 8, 60), one)
