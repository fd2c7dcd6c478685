"""Backbones of keras-hub, with small random weights: every way through the library.

They are skipped where keras-hub, the extra `transformers`, is not installed.
"""

import importlib.util

import keras
import numpy as np
import pytest

import keras_lottery as kl

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(
        importlib.util.find_spec("keras_hub") is None,
        reason="keras-hub is not installed: pip install keras_lottery[transformers]",
    ),
    # keras-hub's own.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

rng = np.random.default_rng(0)
TEXT = {
    "token_ids": rng.integers(1, 30, (2, 6)),
    "padding_mask": np.array([[1, 1, 1, 1, 0, 0], [1] * 6], "int32"),
}
SEGMENTS = {"segment_ids": np.array([[0, 0, 1, 1, 0, 0], [0] * 6], "int32")}
IMAGES = rng.normal(size=(2, 8, 8, 3)).astype("float32")
SIZES = {
    "vocabulary_size": 30,
    "num_layers": 2,
    "hidden_dim": 8,
    "intermediate_dim": 16,
}
ENCODER = {**SIZES, "num_heads": 2, "dropout": 0.0, "max_sequence_length": 8}
GROUPED = {**SIZES, "num_query_heads": 4, "num_key_value_heads": 2}
LLAMA_3 = {
    "rope_frequency_adjustment_factor": 8.0,
    "rope_low_freq_factor": 1.0,
    "rope_high_freq_factor": 4.0,
    "rope_pretraining_sequence_length": 4,
}
VIT = {
    "image_shape": (8, 8, 3),
    "patch_size": 4,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 8,
    "mlp_dim": 16,
}
# Class, arguments, inputs, masked kernels.
BACKBONES = {
    "bert": ("BertBackbone", ENCODER, {**TEXT, **SEGMENTS}, 13),
    "distil_bert": ("DistilBertBackbone", ENCODER, TEXT, 12),
    "gpt2": ("GPT2Backbone", ENCODER, TEXT, 12),
    "gemma": ("GemmaBackbone", {**GROUPED, "head_dim": 4}, TEXT, 14),
    "llama": ("LlamaBackbone", GROUPED, TEXT, 14),
    "vit": ("ViTBackbone", VIT, IMAGES, 13),
}
GATED = {"gemma", "llama"}
# The number of feed-forward units of those whose blocks can be opened; of the ViT, a
# test says why not.
OPENED = {"bert": 16, "distil_bert": 16, "gpt2": 16, "gemma": 8, "llama": 16}


def build(name):
    import keras_hub

    kind, arguments, x, masks = BACKBONES[name]
    model = getattr(keras_hub.models, kind)(**arguments)
    draws = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign(weight + draws.normal(scale=0.05, size=weight.shape))
    return model, x, masks


def outputs(model, x):
    found = keras.tree.flatten(model(x))
    return np.concatenate([keras.ops.convert_to_numpy(each).ravel() for each in found])


def assert_same(one, other, x):
    np.testing.assert_allclose(outputs(one, x), outputs(other, x), atol=1e-4)


@pytest.mark.parametrize("name", BACKBONES)
def test_masked_pruned_trained_saved_loaded_and_stripped(name, tmp_path):
    plain, x, masks = build(name)
    model = kl.mask_model(plain)
    assert_same(model, plain, x)
    # Projections of heads are one matrix each; embeddings are none of them.
    assert len(kl.get_masks(model)) == masks
    assert not any("embeddings" in weight for weight in kl.get_masks(model))
    kl.prune(model, 0.3)
    targets = keras.tree.map_structure(lambda y: np.zeros(y.shape, "float32"), model(x))
    model.compile("adam", "mse", run_eagerly=True)
    gradual = kl.GradualPruning(0.5, 0, 1, frequency=1)
    model.fit(x, targets, verbose=0, callbacks=[gradual])
    assert kl.get_sparsity(model) == pytest.approx(0.5, abs=0.01)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_same(loaded, model, x)
    assert kl.get_masks(loaded) == kl.get_masks(model)
    stripped = kl.strip_masks(model)
    assert_same(stripped, model, x)
    assert type(stripped) is type(plain)
    assert stripped.count_params() == plain.count_params()


@pytest.mark.parametrize("name", OPENED)
def test_units_and_heads_are_removed(name, tmp_path):
    plain, x, _ = build(name)
    model = kl.mask_model(kl.inline(plain))
    assert_same(model, plain, x)
    longer = {key: np.tile(value, 2)[:, :8] for key, value in x.items()}
    assert_same(model, plain, longer)
    targets = keras.tree.map_structure(lambda y: np.zeros(y.shape, "float32"), model(x))
    model.compile("adam", "mse", run_eagerly=True)
    for granularity in ("head", "filter"):
        kl.prune(model, 0.5, granularity=granularity, allocation="uniform")
    model.fit(x, targets, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_same(loaded, model, x)
    assert_same(kl.strip_masks(loaded), model, x)
    small, report = kl.compact(loaded, return_report=True)
    assert_same(small, model, x)
    assert_same(small, model, longer)
    assert list(report.heads.values()) == [(2, 1)] * 2
    halves = (OPENED[name], OPENED[name] // 2)
    # Gates are as wide as the units that they multiply.
    assert list(report.widths.values()).count(halves) == (4 if name in GATED else 2)
    small.save(tmp_path / "small.keras")
    assert_same(keras.saving.load_model(tmp_path / "small.keras"), small, x)


@pytest.mark.parametrize("name", ["gpt2", "gemma", "llama"])
def test_masks_stay_in_opened_blocks(name):
    plain, x, masks = build(name)
    model = kl.mask_model(plain)
    kl.prune(model, 0.5)
    opened = kl.inline(model)
    assert_same(opened, model, x)
    assert len(kl.get_masks(opened)) == masks
    assert kl.get_sparsity(opened) == kl.get_sparsity(model)


def with_head(name):
    plain, x, _ = build(name)
    ids = {key: keras.Input((6,), dtype="int32", name=key) for key in plain.input}
    made = plain(ids)
    first = made["pooled_output"] if isinstance(made, dict) else made[:, 0]
    return keras.Model(ids, keras.layers.Dense(3)(first)), x


# A model around Llama cannot be copied: its blocks' `get_config` fails.
@pytest.mark.parametrize("name", sorted(OPENED.keys() - {"llama"}))
def test_embeddings_become_narrower(name, tmp_path):
    plain, x = with_head(name)
    with pytest.raises(ValueError, match="inline"):
        kl.narrow(plain, 0.5, x)
    model = kl.mask_model(kl.inline(plain))
    kl.prune(model, 0.5)
    small, report = kl.narrow(model, 0.5, x, return_report=True)
    assert [kept.size for kept in report.kept.values()] == [8]
    assert sum(kept.sum() for kept in report.kept.values()) == 4
    # Of those of the blocks and of the head, and of a pooler that is as wide as before.
    embeddings = [w for w in small.weights if "embeddings" in w.path.split("/")[-1]]
    assert {weight.shape[-1] for weight in embeddings} == {4}
    assert len(kl.get_masks(small)) == len(kl.get_masks(model))
    small.save(tmp_path / "small.keras")
    assert_same(keras.saving.load_model(tmp_path / "small.keras"), small, x)
    with pytest.raises(ValueError, match="the model returns these channels"):
        kl.narrow(kl.inline(build(name)[0]), 0.5, x)


@pytest.mark.parametrize("name", ["bert", "gemma"])
def test_the_importance_of_channels_is_that_of_words(name):
    plain, x = with_head(name)
    model = kl.inline(plain)
    padding = {"token_ids": np.where(x["padding_mask"], x["token_ids"], 7)}
    one, other = (
        kl.narrow(model, 0.5, texts, return_report=True)[1].importance
        for texts in (x, {**x, **padding})
    )
    for stream in one:
        np.testing.assert_allclose(one[stream], other[stream], rtol=1e-5)


@pytest.mark.parametrize("name", sorted(BACKBONES.keys() - {"llama", "vit"}))
def test_blocks_are_dropped(name, tmp_path):
    plain, x, _ = build(name)
    model = kl.mask_model(plain)
    kl.prune(model, 0.5)
    small, report = kl.drop_blocks(model, 1, x, return_report=True)
    assert len(report.influence) == 2 and len(report.dropped) == 1
    assert 0 < report.influence[report.dropped[0]] <= min(report.influence.values())
    assert len(kl.get_masks(small)) < len(kl.get_masks(model))
    small.save(tmp_path / "small.keras")
    assert_same(keras.saving.load_model(tmp_path / "small.keras"), small, x)


def test_blocks_whose_masks_are_not_known_stay_closed():
    import keras_hub

    sizes = {"num_layers": 1, "num_attention_heads": 4, "hidden_dim": 16}
    model = keras_hub.models.FalconBackbone(20, intermediate_dim=32, **sizes)
    with pytest.raises(ValueError, match="takes no symbolic tensors"):
        kl.inline(model)


def test_attention_alone_is_called_as_before():
    import keras_hub

    one, other = (keras.Input((6, 8)) for _ in range(2))
    mask = keras.Input((6, 6), dtype="bool")
    attention = keras_hub.layers.CachedMultiHeadAttention(2, 4)
    ways = [
        attention(one, other),
        attention(one, other, one, mask),
        attention(one, value=other, key=one, attention_mask=mask),
    ]
    model = keras.Model([one, other, mask], ways)
    draws = np.random.default_rng(2)
    x = [draws.normal(size=(2, 6, 8)).astype("float32") for _ in range(2)]
    assert_same(kl.inline(model), model, [*x, draws.random((2, 6, 6)) < 0.7])


def test_attention_with_dropout_has_no_equal():
    import keras_hub

    model = keras_hub.models.LlamaBackbone(**GROUPED, dropout=0.1)
    with pytest.raises(ValueError, match="its attention has dropout"):
        kl.inline(model)


@pytest.mark.parametrize(
    "how", [LLAMA_3, {"dtype": "bfloat16"}], ids=["llama 3", "bfloat16"]
)
def test_other_llamas_are_opened(how):
    import keras_hub

    model = keras_hub.models.LlamaBackbone(**GROUPED, **how)
    found, wanted = outputs(kl.inline(model), TEXT), outputs(model, TEXT)
    np.testing.assert_allclose(found, wanted, atol=0.05 if "dtype" in how else 1e-4)


def test_a_decoder_that_caps_its_scores_stays_closed():
    import keras_hub

    how = {**GROUPED, "head_dim": 4, "attention_logit_soft_cap": 50.0}
    with pytest.raises(ValueError, match="caps its scores or sees a sliding window"):
        kl.inline(keras_hub.models.GemmaBackbone(**how))


def test_a_vit_is_opened_and_its_patches_cannot_be_made_again():
    plain, x, _ = build("vit")
    with pytest.warns(UserWarning, match=r"weights of its own, \['class_token'\]"):
        opened = kl.inline(plain)
    assert_same(opened, plain, x)
    # Their `get_config` names more than their constructor takes, in keras-hub 0.32.
    with pytest.raises(ValueError, match="cannot be rebuilt from its config"):
        kl.mask_model(opened)


@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt"])
def test_calibrated(criterion):
    plain, x, _ = build("bert")
    model = kl.mask_model(plain, "transformer_layer_*")
    kl.prune(model, 0.5, criterion, data=x)
    assert kl.get_sparsity(model) == pytest.approx(0.5, abs=0.01)
