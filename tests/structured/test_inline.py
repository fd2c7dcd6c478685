"""Blocks of layers, opened so that channels are followed through them."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_lottery as kl
from keras_lottery.keras_bridge.layers import get_masks, get_state
from tests.models_zoo import scramble

rng = np.random.default_rng(0)
X = rng.normal(size=(3, 5, 8)).astype("float32")


@keras.saving.register_keras_serializable("tests")
class Block(layers.Layer):
    """A transformer's block, as Keras's guides write it, with a mask of padding."""

    def __init__(self, heads=4, units=12, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.units = heads, units
        self.attention = layers.MultiHeadAttention(heads, 2, name="attention")
        self.inner = keras.Sequential(
            [
                layers.Dense(units, "gelu", name="expand"),
                layers.Dropout(0.5),
                layers.Dense(8, name="project"),
            ],
            name="inner",
        )
        self.norms = [layers.LayerNormalization(name=f"norm_{i}") for i in range(2)]

    def build(self, shape):
        self.attention.build(shape, shape)
        self.inner.build(shape)
        for norm in self.norms:
            norm.build(shape)

    def call(self, x, padding=None, training=None):
        mask = None if padding is None else padding[:, None, :]
        x = self.norms[0](x + self.attention(x, x, attention_mask=mask))
        return self.norms[1](x + self.inner(x, training=training))

    def get_config(self):
        return super().get_config() | {"heads": self.heads, "units": self.units}


@keras.saving.register_keras_serializable("tests")
class Stack(layers.Layer):
    """Blocks in a block."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.blocks = [Block(name=name) for name in ("lower", "upper")]

    def build(self, shape):
        for block in self.blocks:
            block.build(shape)

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return x


@keras.saving.register_keras_serializable("tests")
class Weighted(Block):
    """One with a weight that no layer inside has."""

    def build(self, shape):
        super().build(shape)
        self.scale = self.add_weight(shape=(8,), name="scale", initializer="ones")

    def call(self, x):
        return self.scale * super().call(x)


def model(*blocks, compiled=False):
    inputs = keras.Input((None, 8))
    padding = keras.Input((None,), dtype="bool")
    x = inputs
    for block in blocks:
        x = block(x, padding) if type(block) is Block else block(x)
    made = keras.Model([inputs, padding], layers.Dense(2, name="out")(x))
    if compiled:
        made.compile("sgd", "mse")
    return scramble(made)


def outputs(made, padding=((1, 1, 1, 0, 0), (1,) * 5, (1, 0, 0, 0, 0))):
    return keras.ops.convert_to_numpy(made([X, np.array(padding, bool)]))


@pytest.fixture(scope="module")
def plain():
    return model(Block(name="first"), Stack(name="stack"), compiled=True)


@pytest.fixture(scope="module")
def opened(plain):
    return kl.inline(plain)


def test_outputs_weights_and_names_stay(plain, opened):
    np.testing.assert_allclose(outputs(opened), outputs(plain), atol=1e-6)
    one, two = get_state(plain), get_state(opened)
    for name, array in one.items():
        np.testing.assert_array_equal(two[name], array)
    assert one.keys() == two.keys()
    assert opened.compiled and opened.optimizer is not plain.optimizer
    assert isinstance(opened.get_layer("stack").get_layer("upper"), keras.Model)


def test_the_copy_shares_nothing(plain, opened):
    before = outputs(plain)
    copy = kl.inline(plain)
    for weight in copy.weights:
        if "float" in str(weight.dtype):
            weight.assign(0 * weight)
    np.testing.assert_array_equal(outputs(plain), before)


@pytest.mark.parametrize("granularity", ["filter", "head"])
def test_units_and_heads_are_removed_from_blocks(opened, granularity, tmp_path):
    masked = kl.mask_model(opened)
    kl.prune(masked, 0.5, granularity=granularity, allocation="uniform")
    small, report = kl.compact(masked, return_report=True)
    np.testing.assert_allclose(outputs(small), outputs(masked), atol=1e-5)
    if granularity == "head":
        assert list(report.heads.values()) == [(4, 2)] * 3
    else:
        inner = [path for path in report.widths if path.endswith("expand")]
        assert [report.widths[path] for path in inner] == [(12, 6)] * 3
    small.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    np.testing.assert_allclose(outputs(loaded), outputs(small), atol=1e-6)


@pytest.mark.once
def test_masks_stay_and_are_saved(plain, tmp_path):
    masked = kl.mask_model(plain)
    kl.prune(masked, 0.5)
    inlined = kl.inline(masked)
    assert get_masks(inlined) == get_masks(masked)
    np.testing.assert_allclose(outputs(inlined), outputs(masked), atol=1e-6)
    inlined.save(tmp_path / "masked.keras")
    loaded = keras.saving.load_model(tmp_path / "masked.keras")
    assert get_masks(loaded) == get_masks(masked)


@pytest.mark.once
def test_dropout_inside_drops_in_training_alone(opened):
    def call(training):
        found = opened([X, np.ones((3, 5), bool)], training=training)
        return keras.ops.convert_to_numpy(found)

    np.testing.assert_array_equal(call(False), call(False))
    assert not np.allclose(call(True), call(True))


@pytest.mark.once
def test_a_block_that_is_used_twice_is_opened_once():
    block = Block(name="shared")
    plain = model(block, block)
    opened = kl.inline(plain)
    np.testing.assert_allclose(outputs(opened), outputs(plain), atol=1e-6)
    assert opened.count_params() == plain.count_params()


@keras.saving.register_keras_serializable("tests")
class Signed(Stack):
    """A block that is told something, besides a tensor."""

    def call(self, x, negate=False):
        x = super().call(x)
        return -x if negate else x


@pytest.mark.once
def test_a_block_that_is_called_in_several_ways_stays_closed():
    inputs = keras.Input((5, 8))
    block = Signed(name="signed")
    other = Stack(name="stack")
    x = block(other(block(inputs)), negate=True)
    plain = scramble(keras.Model(inputs, x))
    with pytest.warns(UserWarning, match="'signed': it is called in several ways"):
        opened = kl.inline(plain)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(opened(X)),
        keras.ops.convert_to_numpy(plain(X)),
        atol=1e-6,
    )


@pytest.mark.once
def test_constants_that_differ_somewhere_in_the_middle_are_other_calls():
    class Shifted(Stack):
        def call(self, x, by):
            return super().call(x) + by

    zeros = np.zeros((300, 8), "float32")
    ones = zeros.copy()
    ones[150] = 1
    inputs = keras.Input((300, 8))
    block = Shifted(name="shifted")
    made = keras.Model(inputs, block(block(inputs, by=zeros), by=ones))
    with pytest.raises(ValueError, match="'shifted': it is called in several ways"):
        kl.inline(made)


@keras.saving.register_keras_serializable("tests")
class Residual(layers.Layer):
    """One that adds what it reads, in the precision that Keras gives it."""

    def build(self, shape):
        self.inner = layers.Dense(8, name="inner", dtype=self.dtype_policy)
        self.inner.build(shape)

    def call(self, x):
        return x + self.inner(x)


@pytest.mark.once
def test_a_block_in_mixed_precision_computes_as_before():
    inputs = keras.Input((5, 8))
    block = Residual(name="block", dtype="mixed_float16")
    plain = scramble(keras.Model(inputs, block(inputs)))
    opened = kl.inline(plain)
    assert opened.output.dtype == plain.output.dtype == "float16"
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(opened(X)),
        keras.ops.convert_to_numpy(plain(X)),
        atol=1e-3,
    )


@pytest.mark.once
def test_a_sequential_model_of_blocks():
    plain = scramble(keras.Sequential([keras.Input((5, 8)), Stack(name="stack")]))
    opened = kl.inline(plain)
    for one in (opened, kl.inline(opened)):  # In which none is left.
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(one(X)),
            keras.ops.convert_to_numpy(plain(X)),
            atol=1e-6,
        )


@pytest.mark.once
def test_what_cannot_be_opened_is_named():
    with pytest.raises(ValueError, match=r"'own': it has weights of its own, \['scale"):
        kl.inline(model(Weighted(name="own")))
    both = model(Block(name="first"), Weighted(name="own"))
    with pytest.warns(UserWarning, match="'own': it has weights of its own"):
        opened = kl.inline(both)
    np.testing.assert_allclose(outputs(opened), outputs(both), atol=1e-6)


@pytest.mark.once
def test_blocks_of_one_name_are_told_apart_by_their_paths():
    x = inputs = keras.Input((5, 8))
    for name in ("one", "two"):
        inner = keras.Input((5, 8))
        x = keras.Model(inner, Weighted(name="own")(inner), name=name)(x)
    made = keras.Model(inputs, x)
    with pytest.raises(ValueError, match=r"'one/own': it has .*; 'two/own': it has"):
        kl.inline(made)


@pytest.mark.once
def test_a_block_of_which_no_file_can_be_made_stays_closed():
    class Told(layers.Dense):
        def call(self, x, how=None):
            return super().call(x)

    class Telling(layers.Layer):
        def build(self, shape):
            self.inner = Told(8, name="inner")
            self.inner.build(shape)

        def call(self, x):
            return self.inner(x, how=object())

    inputs = keras.Input((5, 8))
    made = keras.Model(inputs, Telling(name="own")(inputs))
    with pytest.raises(ValueError, match="'own': a file could not hold its graph"):
        kl.inline(made)


@pytest.mark.once
def test_a_block_that_makes_something_else_than_tensors_stays_closed():
    class Constant(Stack):
        def call(self, x):
            return keras.ops.zeros((2, 8))

    inputs = keras.Input((5, 8))
    made = keras.Model(inputs, Constant(name="own")(inputs))
    with pytest.raises(ValueError, match="'own': what its `call` does makes no graph"):
        kl.inline(made)


@pytest.mark.once
def test_masks_of_padding_that_travel_with_tensors_close_a_block():
    words = keras.Input((5,))
    x = layers.Embedding(9, 8, mask_zero=True)(words)
    made = keras.Model(words, Stack(name="stack")(x))
    with pytest.raises(ValueError, match=r"'stack': it reads .* mask of padding"):
        kl.inline(made)


@pytest.mark.once
def test_a_block_of_which_shapes_are_asked_stays_closed():
    class Shaped(Block):
        def call(self, x):
            return super().call(x) + keras.ops.zeros(keras.ops.shape(x))

    with pytest.raises(ValueError, match="'own': its `call` takes no symbolic tensors"):
        kl.inline(model(Shaped(name="own")))


@pytest.mark.once
def test_a_subclassed_model_is_refused():
    class Mine(keras.Model):
        def call(self, x):
            return x

    mine = Mine()
    mine(X)
    with pytest.raises(ValueError, match="Expected a Sequential or Functional model"):
        kl.inline(mine)
