"""The residual stream: narrowed, with all that makes, reads and normalises it."""

import inspect

import keras
import numpy as np
import pytest
from keras import layers

import keras_lottery as kl
from tests.models_zoo import as_array, scramble

WIDTH, LENGTH, WORDS = 6, 5, 11
# Keras 3.12 has no gates.
HAS_GATE = "use_gate" in inspect.signature(layers.GroupQueryAttention).parameters
GATE = {"use_gate": True} if HAS_GATE else {}
TEXTS = np.random.default_rng(0).integers(0, WORDS, (40, LENGTH))


def transformer(width, kind="plain"):
    """One block that normalises what it reads, and a head."""
    words = keras.Input((LENGTH,), dtype="int32")
    if kind == "grouped":
        embed = layers.ReversibleEmbedding(WORDS, width, name="words")
        norms = [layers.RMSNormalization(name=f"norm_{i}") for i in range(3)]
        attention = layers.GroupQueryAttention(4, 4, 2, name="attention", **GATE)
        expand = layers.EinsumDense(
            "abc,cde->abde", (None, 2, 7), bias_axes="de", name="expand"
        )
        project = layers.EinsumDense(
            "abde,dec->abc", (None, width), bias_axes="c", name="project"
        )
        head = lambda x: embed(x, reverse=True)  # noqa: E731
    else:
        embed = layers.Embedding(WORDS, width, name="words")
        norms = [layers.LayerNormalization(name=f"norm_{i}") for i in range(3)]
        attention = layers.MultiHeadAttention(2, 4, name="attention")
        expand = layers.Dense(14, "gelu", name="expand")
        project = layers.Dense(width, name="project")
        head = layers.Dense(3, name="head")
    places = keras.ops.cumsum(keras.ops.ones_like(words), axis=1) - 1
    x = embed(words) + layers.Embedding(LENGTH, width, name="places")(places)
    y = norms[0](x)
    x = layers.Add()([x, attention(y, y, use_causal_mask=True)])
    x = layers.Add()([x, project(expand(norms[1](x)))])
    if kind == "plain":
        # With a mask of the positions that count.
        counted = keras.ops.not_equal(words, 0)
        y = layers.GlobalAveragePooling1D()(norms[2](x), mask=counted)
    else:
        y = norms[2](x)
    return keras.Model(words, head(y))


# Where weights have channels of the stream: the axis, and whether they read them.
AXES = {
    "words/embeddings": (1, False),
    "places/embeddings": (1, False),
    "attention/query/kernel": (0, True),
    "attention/key/kernel": (0, True),
    "attention/value/kernel": (0, True),
    "attention/gate/kernel": (0, True),
    "attention/attention_output/kernel": (-1, False),
    "attention/attention_output/bias": (-1, False),
    "expand/kernel": (0, True),
    "project/kernel": (-1, False),
    "project/bias": (-1, False),
    "head/kernel": (0, True),
}


def doubled(small, kind):
    """A model with each channel of the stream twice, of which one is never read.

    Statistics over channels stay the same if each of them occurs twice.
    """
    rng = np.random.default_rng(1)
    which = rng.permutation(np.repeat(np.arange(WIDTH), 2))
    _, first = np.unique(which, return_index=True)
    copy = np.ones(2 * WIDTH, bool)
    copy[first] = False
    # The copies are in any order and the others in theirs.
    order = np.arange(WIDTH)
    which[~copy] = order
    which[copy] = rng.permutation(WIDTH)
    state = dict(kl.get_state(small))
    for name in state:
        if name.startswith("norm"):
            state[name] = np.where(copy, 0, state[name][which])
        elif name in AXES:
            axis, reads = AXES[name]
            state[name] = np.take(state[name], which, axis)
            if reads:
                rows = np.moveaxis(state[name], axis, -1)
                rows[..., copy] = rng.normal(size=rows[..., copy].shape)
    wide = transformer(2 * WIDTH, kind)
    kl.set_state(wide, state)
    return wide, copy


@pytest.mark.parametrize("kind", ["plain", "grouped"])
def test_channels_that_occur_twice_are_removed_without_a_trace(kind):
    small = scramble(transformer(WIDTH, kind))
    wide, copy = doubled(small, kind)
    expected = as_array(small(TEXTS))
    np.testing.assert_allclose(as_array(wide(TEXTS)), expected, atol=1e-4)
    found, report = kl.narrow(wide, 0.5, TEXTS, return_report=True)
    np.testing.assert_array_equal(report.kept["norm_0"], ~copy)
    assert list(report.kept) == ["norm_0"]
    np.testing.assert_allclose(as_array(found(TEXTS)), expected, atol=1e-4)
    state = kl.get_state(found)
    assert state.keys() == kl.get_state(small).keys()
    for name, array in kl.get_state(small).items():
        np.testing.assert_array_equal(state[name], array)
    counts = report.parameters_before, report.parameters_after
    assert counts == (wide.count_params(), small.count_params())


@pytest.fixture(scope="module")
def bert():
    """A model whose blocks normalise after the sum, masked and compiled."""
    made = kl.models.bert_small((LENGTH,), 3, blocks=2, width=32, vocabulary=WORDS)
    made = kl.mask_model(scramble(made), "block_*")
    made.compile("sgd", "mse")
    kl.prune(made, 0.5)
    return made


@pytest.mark.once
def test_importance_is_what_normalisations_return(bert):
    _, report = kl.narrow(bert, 0.3, TEXTS, return_report=True)
    embed, place = bert.get_layer("embeddings"), bert.get_layer("positions")
    x = bert.get_layer("norm")(embed(TEXTS) + place(np.arange(LENGTH)))
    is_word = keras.ops.convert_to_tensor(TEXTS != 0)

    def size(x):
        shares = (TEXTS != 0) / (TEXTS != 0).sum(axis=1, keepdims=True)
        return np.linalg.norm(np.einsum("bl,blc->bc", shares, abs(as_array(x))), axis=0)

    expected = size(x)
    for number in range(2):
        block = bert.get_layer(f"block_{number}")
        norms = [block.get_layer(name).output for name in ("norm", "norm_2")]
        middle, x = keras.Model(block.input, norms)([x, is_word])
        expected += size(middle) + size(x)
    np.testing.assert_allclose(report.importance["norm"], expected, rtol=1e-4)
    kept = report.kept["norm"]
    assert kept.sum() == 22
    assert expected[kept].min() > expected[~kept].max()
    assert "norm: 32 -> 22 channels" in str(report)


def with_padding(how):
    """A stream of texts of any length, the padding of which is masked in one way."""
    words = keras.Input((None,), dtype="int32", name="words")
    is_word = keras.Input((None,), dtype="bool", name="is_word")
    x = layers.Embedding(WORDS, WIDTH, mask_zero=how == "keras")(words)
    masks = {
        "attention_mask": keras.ops.expand_dims(is_word, 1),
        "value_mask": is_word,
    }
    y = layers.LayerNormalization(name="norm")(x)
    attention = layers.MultiHeadAttention(2, 3)
    y = attention(y, y, **{name: masks[name] for name in masks if name == how})
    y = layers.LayerNormalization()(layers.Add()([x, y]))
    inputs = [words] if how == "keras" else [words, is_word]
    return scramble(keras.Model(inputs, layers.Dense(2)(y)))


@pytest.mark.once
@pytest.mark.parametrize("how", ["attention_mask", "value_mask", "keras"])
def test_padding_does_not_count(how):
    model = with_padding(how)
    texts = np.maximum(TEXTS, 1)
    texts[0, 2:] = 0

    def importance(texts, is_word):
        x = {"words": texts}
        if how != "keras":
            x["is_word"] = is_word
        _, report = kl.narrow(model, 0.5, x, return_report=True)
        return report.importance["norm"]

    expected = importance(texts, texts != 0)
    padding = np.zeros((len(texts), 3), int)
    longer, is_word = (np.hstack([x, padding]) for x in (texts, texts != 0))
    if how != "keras":
        longer[is_word == 0] = 7
    np.testing.assert_allclose(importance(longer, is_word), expected, rtol=1e-5)


@pytest.mark.once
def test_masks_are_cut_and_the_given_model_stays(bert, tmp_path):
    before, masks = kl.get_state(bert), kl.get_masks(bert)
    small, report = kl.narrow(bert, 0.25, TEXTS, return_report=True)
    assert small.compiled and small.optimizer is not bert.optimizer
    kept = report.kept["norm"]
    left = kl.get_masks(small)
    assert left.keys() == masks.keys()
    for name, mask in masks.items():
        axis = 2 if "output" in name else 1 if "project" in name else 0
        np.testing.assert_array_equal(left[name], mask.compress(kept, axis))
    for name, array in kl.get_state(bert).items():
        np.testing.assert_array_equal(array, before[name])
    assert kl.get_masks(bert) == masks
    plain, counted = kl.narrow(kl.strip_masks(bert), 0.25, TEXTS, return_report=True)
    assert counted.parameters_after == report.parameters_after == plain.count_params()
    np.testing.assert_allclose(as_array(small(TEXTS)), as_array(plain(TEXTS)), 1e-5)
    small.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    np.testing.assert_allclose(as_array(loaded(TEXTS)), as_array(small(TEXTS)), 1e-5)


@pytest.mark.once
def test_a_head_that_shares_the_embeddings_becomes_narrower_too():
    mlm = kl.models.bert_small_mlm((LENGTH,), WORDS, blocks=1, width=32, masked=2)
    small = kl.narrow(mlm, 0.5, TEXTS)
    assert small.output_shape == mlm.output_shape
    assert small.get_layer("head_dense").kernel.shape == (16, 16)
    assert small.get_layer("embeddings").embeddings.shape == (WORDS, 16)


@pytest.mark.once
def test_weights_that_nothing_reads_yet_are_kept():
    """A zero now may be trained: it is no constant to fold into a bias."""
    model = scramble(transformer(WIDTH))
    model.get_layer("project").kernel.assign(np.zeros((14, WIDTH)))
    model.get_layer("head").kernel.assign(np.zeros((WIDTH, 3)))
    small, report = kl.narrow(model, 0.5, TEXTS, return_report=True)
    kept = report.kept["norm_0"]
    one, other = kl.get_state(model), kl.get_state(small)
    np.testing.assert_array_equal(other["expand/kernel"], one["expand/kernel"][kept])
    np.testing.assert_array_equal(other["expand/bias"], one["expand/bias"])


def encoder_and_decoder():
    """Two streams of several widths, attention between them, and a layer used twice."""
    words = keras.Input((LENGTH,), dtype="int32")
    norm = lambda x: layers.LayerNormalization()(x)  # noqa: E731
    x = layers.Embedding(WORDS, 10)(words)
    shared = layers.Dense(10, name="shared")
    for _ in range(2):
        x = norm(x + shared(x))
    y = layers.Embedding(WORDS, 8)(words)
    cross = layers.MultiHeadAttention(2, 3, output_shape=8, name="cross")
    y = norm(y + cross(layers.Dense(5)(y), x))
    y, scores = layers.MultiHeadAttention(2, 3, name="own")(
        y, y, return_attention_scores=True
    )
    # A bias for each position, not for each channel.
    same = layers.EinsumDense("abc,cd->abd", (LENGTH, 8), bias_axes="b")
    z = layers.Dense(4)(norm(layers.Add()([y, same(y)])))
    return scramble(keras.Model(words, [z, scores]))


@pytest.mark.once
def test_each_stream_loses_its_share():
    model = encoder_and_decoder()
    small, report = kl.narrow(model, 0.5, TEXTS, return_report=True)
    assert sorted(kept.size for kept in report.kept.values()) == [8, 10]
    assert all(2 * kept.sum() == kept.size for kept in report.kept.values())
    assert small.get_layer("shared").kernel.shape == (5, 5)
    cross = {n: a.shape for n, a in kl.get_state(small).items() if "cross" in n}
    assert cross["cross/query/kernel"] == (5, 2, 3)  # Of no stream.
    assert cross["cross/key/kernel"] == cross["cross/value/kernel"] == (5, 2, 3)
    assert cross["cross/attention_output/kernel"] == (2, 3, 4)
    assert [y.shape for y in small(TEXTS)] == [y.shape for y in model(TEXTS)]


class Own(layers.Layer):
    def call(self, x):
        return x[..., ::-1]


def stream(inside=None, outside=None, inputs=None):
    x = first = keras.Input((LENGTH,), dtype="int32") if inputs is None else inputs
    if inputs is None:
        x = layers.Embedding(WORDS, WIDTH, name="words")(x)
    y = inside(x) if inside else layers.Dense(WIDTH)(x)
    x = layers.LayerNormalization(name="norm")(layers.Add()([x, y]))
    return keras.Model(first, (outside or layers.Dense(2))(x))


@pytest.mark.once
@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            lambda: stream(Own(name="own")),
            r"own \(Own, behind words\): no rule for Own",
        ),
        (lambda: stream(outside=layers.Identity()), "the model returns these channels"),
        (
            lambda: stream(inputs=keras.Input((LENGTH, WIDTH))),
            "the model takes these channels",
        ),
        (lambda: stream(layers.Softmax()), "Softmax, .*: it goes over the channels"),
        (
            lambda: stream(layers.Dense(WIDTH, "softmax")),
            "an activation that mixes them",
        ),
        (
            lambda: keras.Sequential([keras.Input((4,)), layers.Dense(3)]),
            "has no residual stream",
        ),
    ],
)
def test_what_cannot_be_followed_is_named(made, message):
    # Data are not read before the model has been followed.
    with pytest.raises(ValueError, match=message):
        kl.narrow(made(), 0.5, None)


@pytest.mark.once
def test_a_layer_that_takes_a_few_channels_keeps_one():
    model = stream(outside=lambda x: layers.Dense(2)(x[..., :1]))
    for weight in model.get_layer("norm").weights:
        weight.assign(np.arange(WIDTH))
    with pytest.raises(ValueError, match="a few of the channels, has none"):
        kl.narrow(model, 0.5, TEXTS)


@pytest.mark.once
def test_one_channel_at_least_stays():
    with pytest.raises(ValueError, match=r"sparsity=0\.99.*has none\. Remove fewer"):
        kl.narrow(stream(), 0.99, TEXTS)
