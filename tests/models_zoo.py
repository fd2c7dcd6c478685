"""Small models of every kind that the library serves, and helpers to use them."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_lottery.keras_bridge.layers import mask_model, named_masks, register_masked
from keras_lottery.keras_bridge.layers.state import read
from keras_lottery.pruning import prune

as_array = keras.ops.convert_to_numpy
KERAS = tuple(map(int, keras.__version__.split(".")[:2]))
needs_muon = pytest.mark.skipif(
    KERAS == (3, 12) and keras.backend.backend() == "tensorflow",
    reason="on TensorFlow, Muon of Keras 3.12 does not train",
)


def mlp(**kwargs):
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, "tanh", **kwargs),
            # Without a seed, torch draws by its own generator.
            layers.Dropout(0.2, seed=3),
            layers.Dense(2, **kwargs),
        ]
    )


def cnn():
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )


def separable():
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.DepthwiseConv2D(3, depth_multiplier=2),
            layers.SeparableConv2D(3, 2, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2),
        ]
    )


def conv1d():
    return keras.Sequential(
        [
            keras.Input((6, 2)),
            layers.Conv1D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )


def shared_layer():
    x = keras.Input((4,))
    shared = layers.Dense(4, "tanh")
    return keras.Model(x, layers.Dense(2)(shared(shared(x))))


def nested():
    """Parts in parts, one of which shares the Input."""
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, "relu")])
    x = keras.Input((4,))
    outer = keras.Model(x, layers.Dense(4)(layers.LayerNormalization()(inner(x))))
    return keras.Model(x, layers.Dense(2)(outer(x)))


def nested_used_twice():
    left, right, x = keras.Input((4,)), keras.Input((4,)), keras.Input((4,))
    encoder = keras.Model(x, layers.Dense(3, "tanh")(x))
    merged = layers.Concatenate()([encoder(left), encoder(right)])
    return keras.Model([left, right], layers.Dense(2)(merged))


def twins():
    """Two parts whose layers have the same names."""

    def part():
        x = keras.Input((4,))
        return keras.Model(x, layers.Dense(4, "tanh", name="hidden")(x))

    x = keras.Input((4,))
    return keras.Model(x, layers.Dense(2)(layers.Add()([part()(x), part()(x)])))


def branches():
    """Two inputs and two outputs, an embedding, and layers of one width."""
    numbers, words = keras.Input((4,)), keras.Input((3,), dtype="int32")
    features = layers.Flatten()(layers.Embedding(5, 2)(words))
    both = layers.Dense(4, "relu")(layers.Concatenate()([numbers, features]))
    return keras.Model([numbers, words], [layers.Dense(2)(both), layers.Dense(2)(both)])


ZOO = {
    build.__name__: build
    for build in [
        mlp,
        cnn,
        separable,
        conv1d,
        shared_layer,
        nested,
        nested_used_twice,
        twins,
        branches,
    ]
}


_register = keras.saving.register_keras_serializable("zoo")


def residual():
    x = keras.Input((6, 6, 2))
    y = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    y = layers.Conv2D(4, 3, padding="same")(y)
    y = layers.Add()([layers.Conv2D(4, 1)(x), y])
    return keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y)))


def attention():
    x, memory = keras.Input((3, 4)), keras.Input((5, 6))
    y = layers.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True)
    y = layers.MultiHeadAttention(2, 3)(y, memory)
    y = layers.GroupQueryAttention(3, 4, 2)(y, y)
    return keras.Model([x, memory], layers.Dense(2)(y))


@_register
class EncoderBlock(layers.Layer):
    """A layer that holds layers: some made in `__init__`, some in `build`."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.norm = layers.LayerNormalization()
        last = layers.Dense(4)
        # Before 3.15, Keras saves no layers of a container inside of another.
        last = {"last": last} if KERAS >= (3, 15) else last
        self.hidden = [layers.Dense(width, "gelu"), last]

    def build(self, input_shape):
        self.attention = layers.MultiHeadAttention(2, 3)
        self.attention.build(input_shape, input_shape)
        self.norm.build(input_shape)
        self.hidden[0].build(input_shape)
        self.last.build((*input_shape[:-1], self.width))

    def call(self, x):
        y = x + self.attention(x, x)
        return x + self.last(self.hidden[0](self.norm(y)))

    @property
    def last(self):
        last = self.hidden[1]
        return last["last"] if isinstance(last, dict) else last

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "width": self.width}


def encoder():
    words = keras.Input((3,), dtype="int32")
    x = layers.Embedding(5, 4)(words)
    for _ in range(2):
        x = EncoderBlock(5)(x)
    return keras.Model(words, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))


@_register
class Tagger(keras.Model):
    """A subclassed model of layers, lists of layers, wrappers and a nested model."""

    example_shape, example_dtype = (2,), "int32"

    def __init__(self, width=3, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.embed = layers.Embedding(5, 4)
        self.blocks = [EncoderBlock(width)]
        self.recurrent = layers.Bidirectional(layers.SimpleRNN(width))
        self.head = keras.Sequential([layers.Dense(4, "tanh"), layers.Dropout(0.1)])
        self.last = layers.SpectralNormalization(layers.Dense(2))

    def call(self, x, training=False):
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.last(self.head(self.recurrent(x), training=training))

    def get_config(self):
        return {**super().get_config(), "width": self.width}


def subclassed():
    model = Tagger()
    model(np.zeros((1, 2), "int32"))
    return model


@_register
class Doubled(keras.Model):
    """A Functional model with a constructor, `call` and `train_step` of its own."""

    def __init__(self, width=3):
        x = keras.Input((4,))
        super().__init__(x, layers.Dense(2)(layers.Dense(width, "tanh")(x)))
        self.width = width

    def call(self, x, training=False):
        return 2 * super().call(x, training=training)

    def get_config(self):
        return {"width": self.width}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def subclassed_functional():
    return Doubled(5)


def recurrent():
    return keras.Sequential(
        [
            keras.Input((2, 4)),
            layers.LSTM(3, return_sequences=True),
            layers.GRU(3, return_sequences=True),
            layers.SimpleRNN(3),
            layers.Dense(2),
        ]
    )


def bidirectional():
    backward = layers.LSTM(3, activation="relu", go_backwards=True)
    both = layers.Bidirectional(layers.LSTM(3), backward_layer=backward)
    return keras.Sequential([keras.Input((2, 4)), both, layers.Dense(2)])


def stacked_cells():
    cells = layers.StackedRNNCells([layers.LSTMCell(3), layers.GRUCell(2)])
    return keras.Sequential([keras.Input((2, 4)), layers.RNN(cells), layers.Dense(2)])


def time_distributed():
    return keras.Sequential(
        [
            keras.Input((2, 4, 4, 2)),
            layers.TimeDistributed(layers.Conv2D(3, 3)),
            layers.TimeDistributed(
                keras.Sequential([layers.Flatten(), layers.Dense(4), layers.Dense(2)])
            ),
        ]
    )


def autoencoder():
    return keras.Sequential(
        [
            keras.Input((4, 4, 4, 2)),
            layers.Conv3D(3, 2, activation="relu"),
            layers.Conv3DTranspose(2, 2),
            layers.Reshape((8, 8, 2)),
            layers.Conv2DTranspose(2, 2),
        ]
    )


def sequence():
    return keras.Sequential(
        [
            keras.Input((6, 2)),
            layers.SeparableConv1D(3, 2),
            layers.DepthwiseConv1D(2),
            layers.Conv1DTranspose(2, 2),
            layers.EinsumDense("abc,bd->adc", output_shape=(3, 2)),
        ]
    )


def spectral():
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.SpectralNormalization(layers.Conv2D(3, 3)),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )


def tied():
    """One layer at both ends."""
    words = keras.Input((3,), dtype="int32")
    embed = layers.ReversibleEmbedding(5, 4)
    x = layers.Dense(4, "tanh")(embed(words))
    return keras.Model(words, embed(x, reverse=True))


@_register
class Gate(layers.Layer):
    """A user's own layer: one weight in an attribute, one behind a property."""

    def build(self, input_shape):
        width = input_shape[-1]
        self.gate_kernel = self.add_weight((width, width), name="gate_kernel")
        self._other_kernel = self.add_weight((width, width), name="other_kernel")

    @property
    def other_kernel(self):
        return self._other_kernel

    def call(self, x):
        gate = keras.ops.sigmoid(keras.ops.matmul(x, self.gate_kernel))
        return gate * keras.ops.matmul(x, self.other_kernel)

    def compute_output_shape(self, input_shape):
        return input_shape


@_register
class MinimalCell(layers.Layer):
    """A user's own recurrent cell."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight((input_shape[-1], self.units), name="kernel")

    def call(self, x, states, training=False):
        y = keras.ops.tanh(keras.ops.matmul(x, self.kernel) + states[0])
        return y, [y]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


register_masked(Gate, weights=("gate_kernel", "other_kernel"))
register_masked(MinimalCell)


def own_layers():
    return keras.Sequential(
        [
            keras.Input((2, 4)),
            layers.TimeDistributed(Gate()),
            layers.RNN(MinimalCell(3)),
            layers.Dense(2),
        ]
    )


def siamese():
    """A layer that holds layers, used twice, in a model that takes a dictionary."""
    x = {name: keras.Input((3, 4), name=name) for name in ("left", "right")}
    block = EncoderBlock(5)
    merged = layers.Concatenate()([block(x["left"]), block(x["right"])])
    return keras.Model(x, {"score": layers.Dense(2)(merged)})


ARCHITECTURES = {
    build.__name__: build
    for build in [
        residual,
        attention,
        encoder,
        subclassed,
        subclassed_functional,
        recurrent,
        bidirectional,
        stacked_cells,
        time_distributed,
        autoencoder,
        sequence,
        spectral,
        tied,
        own_layers,
        siamese,
    ]
}


def cases(names, everywhere):
    """Parameters of a test: those not named run on TensorFlow only.

    For what differs between them in Keras, and not in the backend.
    """
    return [
        pytest.param(name, marks=() if name in everywhere else pytest.mark.once)
        for name in names
    ]


def scramble(model, seed=0):
    """Draws all weights and statistics, so that none is left at zero or one."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if "float" in weight.dtype:
            weight.assign(rng.choice([-1, 1], weight.shape) * rng.random(weight.shape))
        if weight.name == "moving_variance":
            weight.assign(rng.uniform(0.5, 2, weight.shape))
    return model


def pruned(model, sparsity=0.5):
    """The model masked, weights at random positions pruned."""
    masked = mask_model(model)
    prune(masked, sparsity, criterion="random")
    return masked


def inputs(model, size=4, seed=0):
    rng = np.random.default_rng(seed)

    def draw(x):
        shape = (size, *x.shape[1:])
        array = (
            rng.integers(0, 5, shape) if "int" in x.dtype else rng.normal(size=shape)
        )
        return array.astype(x.dtype)

    if not hasattr(model, "inputs"):
        return draw(
            keras.KerasTensor((None, *model.example_shape), model.example_dtype)
        )
    arrays = [draw(x) for x in model.inputs]
    if isinstance(model, keras.Sequential):
        return arrays[0]
    return keras.tree.pack_sequence_as(model.input, arrays)


def outputs(model, x=None):
    """The model's outputs, side by side."""
    y = model(inputs(model) if x is None else x, training=False)
    return np.concatenate(
        [keras.ops.convert_to_numpy(part) for part in keras.tree.flatten(y)], -1
    )


# How to compile a model that trains for a few steps only: on TensorFlow, tracing takes
# longer than they do.
EAGER = {"run_eagerly": True} if keras.backend.backend() == "tensorflow" else {}


def compiled(model, optimizer="adam", **kwargs):
    model.compile(optimizer, "mse", **kwargs)
    return model


def fit(model, batches=4, batch_size=4, **kwargs):
    """Fits random targets, `batches` an epoch."""
    x = inputs(model, batches * batch_size)
    y = keras.tree.map_structure(lambda part: np.ones(part.shape), model(x))
    if not model.optimizer.built:
        # TensorFlow traces a step that makes variables twice.
        model.optimizer.build(model.trainable_variables)
    return model.fit(x, y, batch_size, verbose=0, shuffle=False, **kwargs)


def arrays(model):
    """Copies of all weights, masks included, as a user reads them."""
    return [np.array(array) for array in model.get_weights()]


def assert_equal(one, other):
    """Two lists of arrays are equal to the bit."""
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def pruned_weights(model):
    """All pruned weights, as the layers' variables hold them."""
    pairs = named_masks(model).values()
    return np.concatenate([read(weight)[~read(mask)] for mask, weight in pairs])
