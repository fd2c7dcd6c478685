"""A small BERT for the glosses of WordNet, built of Keras's own layers."""

import contextlib

import keras
from keras import layers, ops

from keras_lottery import checks
from keras_lottery.data.wordnet import (
    LENGTH,
    MASK,
    MASKED,
    NOUN_CLASSES,
    PAD,
    VOCABULARY,
)
from keras_lottery.keras_bridge.internals.randomness import seeded
from keras_lottery.papers.models.recipe import Recipe, check_sizes

# Chen et al. fine-tune with Adam, no weight decay, and a rate that falls to zero.
BERT_SMALL = Recipe(
    optimizer="adam",
    learning_rate=3e-4,
    batch_size=32,
    steps=6_000,
    rates={"block_*": 0.1},
    prunable="block_*",
    linear_decay=True,
    steps_per_execution=10,
)
BERT_SMALL_MLM = Recipe(
    optimizer="adam",
    learning_rate=1e-3,
    batch_size=64,
    steps=20_000,
    rates={"block_*": 0.1},
    prunable="block_*",
    linear_decay=True,
    warm_up=1000,
    steps_per_execution=10,
)


def bert_small(
    input_shape: tuple[int, ...] = (LENGTH,),
    classes: int = len(NOUN_CLASSES),
    seed: int | None = None,
    blocks: int = 3,
    width: int = 128,
    vocabulary: int = VOCABULARY,
) -> keras.Model:
    """A small BERT that classifies texts: 1.65 million parameters.

    As in BERT, blocks normalise after each sum, and their hidden layers are four times
    as wide; heads are 32 wide. There are no segments and no dropout, and the class is
    computed from the mean over the words instead of a pooler.

    Args:
        input_shape: (length,) of a text as word indices; 0 is padding.
        classes: Number of classes.
        seed: Seed of the initial weights; by default they differ at each call.
        blocks: Number of blocks.
        width: Width of the embeddings; a multiple of 32.
        vocabulary: Number of words.

    Returns:
        An uncompiled model that outputs logits. `mask_model(model, "block_*")` prunes
        its blocks only.

    Reference:
        Devlin et al. 2019, [BERT](https://arxiv.org/abs/1810.04805); Turc et al. 2019,
        [Well-read students learn better](https://arxiv.org/abs/1908.08962), for widths
        such as 128.

    Example:

    >>> model = bert_small(blocks=1, vocabulary=50, seed=0)
    >>> [layer.name for layer in model.get_layer("block_0").layers[2:]]
    ['attention', 'sum', 'norm', 'expand', 'project', 'sum_2', 'norm_2']
    """
    checks.count("classes", classes, 1)
    with _drawn_by(seed):
        encoder = _Encoder(input_shape, blocks, width, vocabulary)
        mean = layers.GlobalAveragePooling1D(name="mean")
        x = _dense("head", classes)(mean(encoder.outputs, mask=encoder.is_word))
    return keras.Model(encoder.words, x, name="bert_small")


def bert_small_mlm(
    input_shape: tuple[int, ...] = (LENGTH,),
    classes: int = VOCABULARY,
    seed: int | None = None,
    blocks: int = 3,
    width: int = 128,
    masked: int = MASKED,
) -> keras.Model:
    """The encoder of `bert_small` with a head for masked words, for pre-training.

    As in BERT, the last layer of the head shares its weights with the embeddings.

    Args:
        input_shape, seed, blocks, width: Same as in `bert_small`.
        classes: Number of words.
        masked: How many words of each text are masked; the mask is number 3.

    Returns:
        An uncompiled model that outputs logits of shape (masked, classes), for the
        masked words from left to right.

    Example:

    >>> bert_small_mlm(blocks=1, classes=50, seed=0).output_shape
    (None, 5, 50)
    """
    checks.count("masked", masked, 1)
    with _drawn_by(seed):
        encoder = _Encoder(input_shape, blocks, width, classes)
        # Earlier words score higher: no two scores of masked words are equal.
        from_right = input_shape[0] - encoder.positions
        score = ops.where(ops.equal(encoder.words, MASK), from_right, 0)
        _, places = ops.top_k(score, masked)
        x = ops.take_along_axis(encoder.outputs, ops.expand_dims(places, -1), axis=1)
        x = _dense("head_dense", width, "gelu")(x)
        x = layers.LayerNormalization(name="head_norm")(x)
    outputs = encoder.embed(x, reverse=True)
    return keras.Model(encoder.words, outputs, name="bert_small_mlm")


def _drawn_by(seed: int | None) -> contextlib.AbstractContextManager:
    """Draws all weights from a seed.

    Attention uses its initializer for three layers of the same shape: with a seed,
    they would have equal weights.
    """
    if seed is None:
        return contextlib.nullcontext()
    return seeded(checks.seed("seed", seed))


def _normal() -> keras.initializers.Initializer:
    return keras.initializers.TruncatedNormal(0.0, 0.02)


def _dense(name: str, units: int, activation: str | None = None) -> layers.Dense:
    return layers.Dense(units, activation, kernel_initializer=_normal(), name=name)


class _Encoder:
    """The inputs and outputs of the blocks.

    Attributes:
        words: the input.
        is_word: which inputs are words, not padding.
        positions: 0, 1, 2, … for each word.
        embed: the layer of the words' embeddings.
        outputs: those of the last block.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        blocks: int,
        width: int,
        vocabulary: int,
    ) -> None:
        form = "(length,) of a text in numbers of words"
        check_sizes("input_shape", input_shape, form, dimensions=1)
        for name, size in (("blocks", blocks), ("vocabulary", vocabulary)):
            checks.count(name, size, 1)
        if checks.count("width", width, 32) % 32:
            checks.refuse("width", "a multiple of 32, the width of a head", width)
        self.words = layers.Input(input_shape, dtype="int32", name="words")
        self.embed = layers.ReversibleEmbedding(
            vocabulary,
            width,
            embeddings_initializer=_normal(),
            name="embeddings",
        )
        # Keras loses its own mask of padding where the positions are added.
        self.is_word = ops.not_equal(self.words, PAD)
        self.positions = ops.cumsum(ops.ones_like(self.words), axis=1) - 1
        place = layers.Embedding(
            input_shape[0],
            width,
            embeddings_initializer=_normal(),
            name="positions",
        )
        both = [self.embed(self.words), place(self.positions)]
        x = layers.LayerNormalization(name="norm")(layers.Add(name="sum")(both))
        for number in range(blocks):
            x = self._block(x, f"block_{number}", width)
        self.outputs = x

    def _block(self, x: keras.KerasTensor, name: str, width: int) -> keras.KerasTensor:
        """A block of attention and dense layers, as a model of its own."""
        words = layers.Input(x.shape[1:], name="vectors")
        is_word = layers.Input(self.is_word.shape[1:], dtype="bool", name="is_word")
        attention = layers.MultiHeadAttention(
            width // 32, 32, kernel_initializer=_normal(), name="attention"
        )
        seen = ops.expand_dims(is_word, 1)
        attended = attention(words, words, attention_mask=seen)
        middle = layers.Add(name="sum")([words, attended])
        middle = layers.LayerNormalization(name="norm")(middle)
        units = _dense("expand", 4 * width, "gelu")(middle)
        units = _dense("project", width)(units)
        made = layers.Add(name="sum_2")([middle, units])
        made = layers.LayerNormalization(name="norm_2")(made)
        return keras.Model([words, is_word], made, name=name)([x, self.is_word])
