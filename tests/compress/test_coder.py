"""Gaps and symbols come back as they were, in few bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_lottery.compress import coder

pytestmark = pytest.mark.once

shapes = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=9)


@given(hnp.arrays(bool, shapes), st.booleans())
def test_gaps_come_back(mask, even):
    gaps = coder.to_gaps(mask, even)
    np.testing.assert_array_equal(coder.from_gaps(gaps, mask.shape), mask)
    assert len(gaps.symbols) <= mask.size
    assert (gaps.symbols < 2**gaps.bits).all()


@given(st.lists(st.integers(0, 3000), max_size=5), st.integers(0, 700))
def test_long_gaps_come_back(skipped, rest):
    mask = np.zeros(sum(skipped) + len(skipped) + rest, bool)
    mask[np.cumsum(np.array(skipped, int) + 1) - 1] = True
    np.testing.assert_array_equal(
        coder.from_gaps(coder.to_gaps(mask), mask.shape), mask
    )


def test_the_scan_that_takes_less_is_chosen():
    """One input of ten is alive: along the inputs of an output, gaps are alike."""
    inputs = np.zeros((40, 30), bool)
    inputs[::10] = True
    for mask, axis in ((inputs, 0), (inputs.T.copy(), -1)):
        gaps = coder.to_gaps(mask)
        assert gaps.axis == axis
        np.testing.assert_array_equal(coder.from_gaps(gaps, mask.shape), mask)


@pytest.mark.parametrize("symbols", [[5], [1, 1, 1], [3, 3]])
def test_gaps_that_do_not_fit_are_refused(symbols):
    with pytest.raises(ValueError, match="in 5 weights"):
        coder.from_gaps(coder.Gaps(np.array(symbols), 4, -1), (5,))


@st.composite
def written(draw):
    number = draw(st.integers(1, 300))
    symbols = draw(
        hnp.arrays(np.int64, (st.integers(0, 200)), elements=st.integers(0, number - 1))
    )
    return symbols, number


@given(st.lists(written(), max_size=4), st.booleans())
def test_symbols_come_back(arrays, even):
    encoder = coder.Encoder()
    tables = [
        coder.uniform(number) if even else coder.frequencies(symbols, number)
        for symbols, number in arrays
    ]
    for (symbols, _), table in zip(arrays, tables, strict=True):
        encoder.write(symbols, table)
    decoder = coder.Decoder(encoder.to_bytes())
    for (symbols, _), table in zip(arrays, tables, strict=True):
        np.testing.assert_array_equal(decoder.read(len(symbols), table), symbols)


@pytest.mark.parametrize("density", [0.5, 0.1, 0.01, 0.001])
def test_positions_take_little_more_than_their_entropy(density):
    mask = np.random.default_rng(0).random((1000, 300)) < density
    gaps, encoder = coder.to_gaps(mask), coder.Encoder()
    table = coder.frequencies(gaps.symbols, 2**gaps.bits)
    encoder.write(gaps.symbols, table)
    share = mask.mean()
    entropy = -share * np.log2(share) - (1 - share) * np.log2(1 - share)
    size = len(encoder.to_bytes()) + len(table)
    assert size < 1.05 * mask.size * entropy / 8 + 40


def test_symbols_take_little_more_than_their_entropy():
    rng = np.random.default_rng(0)
    symbols = np.minimum(rng.geometric(0.2, 20_000) - 1, 31)
    encoder = coder.Encoder()
    encoder.write(symbols, coder.frequencies(symbols, 32))
    share = np.bincount(symbols) / len(symbols)
    entropy = -(share * np.log2(share)).sum()
    assert len(encoder.to_bytes()) < 1.01 * len(symbols) * entropy / 8 + 8
