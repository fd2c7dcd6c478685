"""What is encoded comes back bit for bit, and what is damaged or lies is refused."""

import base64
import contextlib
import hashlib
import json
import pickle
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_lottery.compress import codec
from keras_lottery.masks import Masks

pytestmark = pytest.mark.once

MOST = 2**20
START = len(codec._MAGIC) + hashlib.sha256().digest_size
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6)
dtypes = st.sampled_from(["float16", "float32", "float64", "uint32", "int64", "bool"])


@st.composite
def bits(draw, shape=shapes, dtype=dtypes):
    """Arrays of any bits at all: NaN of every kind, negative zeros."""
    shape, dtype = draw(shape), np.dtype(draw(dtype))
    if dtype.kind == "b":
        return draw(hnp.arrays(bool, shape))
    array = draw(hnp.arrays(f"u{dtype.itemsize}", shape))
    return array.view(dtype)


@st.composite
def models(draw):
    """Variables, masked ones among them, with many or few values."""
    state = dict(enumerate(draw(st.lists(bits(), max_size=3))))
    state = {f"rest/{name}": array for name, array in state.items()}
    masks = {}
    floats = st.sampled_from(["float16", "float32", "float64"])
    for i in range(draw(st.integers(0, 3))):
        shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=9))
        mask = draw(hnp.arrays(bool, shape))
        array = draw(bits(st.just(shape), floats))
        if draw(st.booleans()) and array.size:
            array = np.resize(array.ravel()[:3], shape)
        name = f"layer_{i}/kernel"
        state[name], masks[name] = np.where(mask, array, array.dtype.type(0)), mask
    return state, Masks(masks)


def assert_bits(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.shape == other[name].shape
        assert array.dtype == other[name].dtype
        assert array.tobytes() == other[name].tobytes()


@given(models(), st.sampled_from(["pruned", "quantized", "coded"]))
def test_everything_comes_back_bit_for_bit(model, stage):
    state, masks = model
    data = codec.encode("the architecture", state, masks, stage)
    text, state_again, masks_again = codec.decode(data, MOST)
    assert text == "the architecture"
    assert_bits(state, state_again)
    assert masks == masks_again


def lenet_like():
    """Two sparse kernels with 8 values each."""
    rng = np.random.default_rng(0)
    state, masks = {"hidden/bias": rng.normal(size=30).astype("float32")}, {}
    for name, shape in {"hidden/kernel": (200, 30), "output/kernel": (30, 10)}.items():
        masks[name] = rng.random(shape) < 0.1
        values = np.sort(rng.normal(size=8)).astype("float32")
        labels = rng.binomial(7, 0.5, shape)
        state[name] = np.where(masks[name], values[labels], np.float32(0))
    return state, Masks(masks)


def test_every_stage_is_smaller():
    state, masks = lenet_like()
    sizes = [
        len(codec.encode("", state, masks, stage))
        for stage in ("dense", "pruned", "quantized", "coded")
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 4 * (6000 + 300 + 30)
    # 630 weights of 32 bits; then of 3 bits, and 16 values.
    assert 4 * masks.kept < sizes[1] < 5 * masks.kept + 500
    assert sizes[1] - sizes[2] == pytest.approx(29 * masks.kept / 8 - 16 * 4, abs=12)


def test_the_same_model_makes_the_same_bytes():
    assert codec.encode("x", *lenet_like()) == codec.encode("x", *lenet_like())


def test_files_of_this_format_stay_readable():
    """Bytes that the first version wrote."""
    text, state, masks = codec.decode(base64.b64decode(GOLDEN), MOST)
    assert text == "golden"
    assert_bits(state, golden()[0])
    assert masks == golden()[1]


def golden():
    mask = np.arange(60).reshape(12, 5) % 7 == 3
    kernel = np.where(mask, np.float32([0.5, -0.25, 1.5])[np.arange(5) % 3], 0)
    state = {
        "dense/kernel": kernel.astype("float32"),
        "dense/bias": np.array([1, -2, 3, -4, 5], "float32"),
    }
    return state, Masks({"dense/kernel": mask})


def seal(content):
    return codec._MAGIC + hashlib.sha256(content).digest() + content


def forge(data, change):
    """The file with a meta that was changed, and a checksum that fits."""
    meta, rest = codec._section(data[START:])
    meta = json.loads(zlib.decompress(meta))
    change(meta)
    packed = zlib.compress(json.dumps(meta).encode())
    return seal(codec._LENGTH.pack(len(packed)) + packed + rest)


@contextlib.contextmanager
def little_memory(most):
    tracemalloc.start()
    try:
        yield
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        if peak > most:
            pytest.fail(f"{peak} bytes were taken")


def refused(data, most=4 * MOST):
    """Decoding fails with an ordinary error and takes little memory."""
    with little_memory(most), pytest.raises(Exception) as error:
        codec.decode(data, MOST)
    assert not isinstance(error.value, MemoryError)
    return str(error.value)


def test_a_sealed_copy_is_accepted():
    data = codec.encode("x", *lenet_like())
    assert_bits(codec.decode(forge(data, lambda meta: None), MOST)[1], lenet_like()[0])


def test_damage_is_found_wherever_it_is():
    data = codec.encode("x", *lenet_like())
    for place in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[place] ^= 1
        assert "checksum" in refused(bytes(damaged))
        assert "checksum" in refused(data[:place])
    assert "checksum" in refused(data + b"\0")
    assert "checksum" in refused(pickle.dumps([1]))


def kernel(meta):
    return next(v for v in meta["variables"] if v[0] == "hidden/kernel")


def form(place, value):
    def change(meta):
        kernel(meta)[3][place] = value

    return change


def shape_of(value):
    def change(meta):
        kernel(meta)[2] = value

    return change


def dtype_of(value):
    def change(meta):
        kernel(meta)[1] = value

    return change


LIES = {
    "a huge shape": (shape_of([2**40, 2**20]), "claims to hold"),
    "a negative shape": (shape_of([-200, -30]), "a shape with -200"),
    "a broken shape": (shape_of([200.5, 30]), "a shape with 200.5"),
    "a small shape": (shape_of([20, 30]), "gaps, "),
    "many numbers": (lambda meta: meta.update(numbers=2**45), "cannot hold"),
    "fewer numbers": (lambda meta: meta.update(numbers=10), "holds more than 10"),
    "many gaps": (form(3, 2**40), "gaps, "),
    "more weights than gaps": (form(4, 5999), "gaps, "),
    "a negative count": (form(4, -1), "gaps, "),
    "other positions": (form(3, 5), ""),
    "many values": (form(5, 2**30), "values in"),
    "wide gaps": (form(1, 60), "gaps of 60 bits"),
    "another axis": (form(2, 3), "along axis 3"),
    "objects": (dtype_of("O"), "variables of object"),
    "a wide type": (dtype_of("S1000000"), "variables of"),
    "a nameless type": (dtype_of("typo"), "typo"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_found(lie):
    change, message = LIES[lie]
    assert message in refused(forge(codec.encode("x", *lenet_like()), change))


def test_sections_that_lie_about_their_lengths():
    data = codec.encode("x", *lenet_like())
    content = data[START:]
    for length in (0, 3, len(content), 2**32 - 1):
        refused(seal(codec._LENGTH.pack(length) + content[4:]))
    bomb = zlib.compress(bytes(2**28), 9)
    assert "holds more than" in refused(
        seal(codec._LENGTH.pack(len(bomb)) + bomb + codec._LENGTH.pack(0)),
        most=4 * codec._META_LIMIT,
    )


def test_a_table_of_zeros_is_refused():
    data = codec.encode("x", *lenet_like())
    meta, rest = codec._section(data[START:])
    numbers, stream = codec._section(rest)
    packed = zlib.compress(bytes(len(zlib.decompress(numbers))))
    head = codec._LENGTH.pack(len(meta)) + meta
    forged = head + codec._LENGTH.pack(len(packed)) + packed + stream
    assert "no symbol" in refused(seal(forged))


@settings(max_examples=150)
@given(st.data())
def test_any_other_bytes_are_refused_in_little_memory(data):
    """Sealed anew after random damage: an ordinary error, never a crash."""
    content = bytearray(codec.encode("x", *lenet_like())[START:])
    places = st.tuples(st.integers(0, len(content) - 1), st.integers(1, 255))
    for place, change in data.draw(st.lists(places, min_size=1, max_size=4)):
        content[place] ^= change
    content = content[: data.draw(st.integers(len(content) // 2, len(content)))]
    # A change of unused bits may go unnoticed: the checksum was forged.
    with little_memory(4 * codec._META_LIMIT):
        try:
            codec.decode(seal(bytes(content)), MOST)
        except Exception as error:
            assert not isinstance(error, MemoryError)


GOLDEN = """
a2VyYXNfbG90dGVyeSBjb21wcmVzc2VkIDEKOQ3Np9Ka2gOuFqm1G2wkLjgy+OFnDWWxzWewot7uAcB+
AAAAeNpVjMEOwiAQRP9lz2MsJSL2VwgHkK1p3EJSWi/Gf3cPXjzOzHvzprUVFpro0aRwJVA91sxbp8le
QYXvuhcNznrvB+Ms6JW2JWVhZUJQpHY+P3mr+gOapaXdjoRgRlwiwpykMwxOBm7ADTZq+bPykvqfo0I9
RGL8fAFpyS9aIgAAAHjay/nPAAEHGuzt9/3fepcBDhoYHBoW2B9wOOAAAMINCph5jsBzOMGq5A==
"""
