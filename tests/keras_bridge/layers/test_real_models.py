"""Models that people use, from masking to the files."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_lottery import export
from keras_lottery.keras_bridge.layers import (
    get_masks,
    get_sparsity,
    mask_model,
    set_masks,
    strip_masks,
)
from keras_lottery.keras_bridge.layers.state import read
from keras_lottery.pruning import prune
from tests.models_zoo import (
    EAGER,
    compiled,
    encoder,
    fit,
    inputs,
    outputs,
    pruned,
    pruned_weights,
)


def mobile_net():
    """MobileNetV2's first blocks, strided and residual; the others are such again."""
    whole = keras.applications.MobileNetV2(
        weights=None, input_shape=(32, 32, 3), alpha=0.35, include_top=False
    )
    x = whole.get_layer("block_2_add").output
    x = layers.Dense(4, "softmax")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(whole.input, x)


@pytest.mark.tensorflow
@pytest.mark.parametrize("build", [mobile_net, encoder])
def test_from_masking_to_the_files(build, tmp_path):
    model = build()
    x = inputs(model, 2)
    masked = mask_model(model)
    np.testing.assert_array_equal(outputs(masked, x), outputs(model, x))
    # By layers: depthwise kernels are small, and one without weights ends the path.
    prune(masked, 0.8, allocation="erk")
    masks = get_masks(masked)
    assert get_sparsity(masked) == pytest.approx(0.8, abs=1e-3)
    compiled(masked, keras.optimizers.SGD(1e-3, momentum=0.9), **EAGER)
    fit(masked, batches=2, batch_size=2)
    assert not pruned_weights(masked).any()

    masked.save(tmp_path / "masked.keras")
    again = keras.models.load_model(tmp_path / "masked.keras")
    assert get_masks(again) == masks
    np.testing.assert_array_equal(outputs(again, x), outputs(masked, x))
    np.testing.assert_allclose(
        outputs(strip_masks(masked), x), outputs(masked, x), rtol=1e-4, atol=1e-5
    )
    # What the file gives, compared with the Keras model.
    report = export.to_litert(masked, tmp_path / "model.tflite")
    assert report.max_difference < 1e-3


class Trainer(keras.Model):
    """A `train_step` of the user's own, on either backend's terms."""

    if keras.backend.backend() == "tensorflow":

        def train_step(self, data):
            import tensorflow as tf

            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x, training=True))
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply(gradients, self.trainable_variables)
            return {"loss": loss}


def two_layers(model_class):
    x = keras.Input((4,))
    return model_class(x, layers.Dense(2)(layers.Dense(6, "tanh")(x)))


def test_a_train_step_of_ones_own():
    model = pruned(compiled(two_layers(Trainer), "adamw"))
    assert isinstance(model, Trainer)
    masks, before = get_masks(model), read(model.layers[1].weight_variable("kernel"))
    assert list(fit(model).history) == ["loss"]
    assert get_masks(model) == masks
    assert (read(model.layers[1].weight_variable("kernel")) != before).any()
    assert not pruned_weights(model).any()


@pytest.mark.tensorflow
@pytest.mark.parametrize("graph", [False, True])
def test_a_loop_of_ones_own(graph):
    import tensorflow as tf

    model = pruned(two_layers(keras.Model))
    optimizer = keras.optimizers.AdamW(0.05)
    x = inputs(model, 8)

    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - 1) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(
            zip(gradients, model.trainable_variables, strict=True)
        )
        return loss

    step = tf.function(step) if graph else step
    losses = [float(step(x)) for _ in range(5)]
    assert losses[-1] < losses[0]
    assert not pruned_weights(model).any()
    # Masks may change on the way; the optimizer has momentum by now.
    prune(model, 0.8)
    set_masks(model, get_masks(model), optimizer)
    for _ in range(3):
        step(x)
    assert get_sparsity(model) == pytest.approx(0.8, abs=0.02)
    assert not pruned_weights(model).any()
