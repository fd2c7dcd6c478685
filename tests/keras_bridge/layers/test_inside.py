"""Layers inside of others: which are masked, and what files say of them."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from keras_lottery.keras_bridge.layers import (
    MASKED_LAYERS,
    copy_model,
    get_masks,
    is_masked,
    mask_model,
    register_masked,
    set_masks,
    strip_masks,
)
from keras_lottery.keras_bridge.layers.state import read
from tests.models_zoo import (
    EncoderBlock,
    Gate,
    encoder,
    inputs,
    outputs,
    own_layers,
    pruned,
    recurrent,
    scramble,
)


@pytest.mark.once
class TestChoosing:
    def test_embeddings_are_masked_only_if_they_are_chosen(self):
        assert "embedding/embeddings" not in get_masks(mask_model(encoder()))
        for prunable in ["*", "embed*", lambda layer: True]:
            assert "embedding/embeddings" in get_masks(mask_model(encoder(), prunable))

    def test_a_name_stands_for_what_is_inside(self):
        masks = get_masks(mask_model(encoder(), "encoder_block_1/multi_head_attention"))
        assert len(masks) == 4
        assert all(name.startswith("encoder_block_1/multi_head") for name in masks)
        assert len(get_masks(mask_model(encoder(), "encoder_block_1"))) == 6

    def test_a_function_may_choose_recurrent_layers(self):
        masks = get_masks(
            mask_model(recurrent(), lambda layer: isinstance(layer, layers.LSTM))
        )
        assert list(masks) == [
            "lstm/lstm_cell/kernel",
            "lstm/lstm_cell/recurrent_kernel",
        ]

    @pytest.mark.parametrize("kind", [layers.RNN, layers.Bidirectional])
    def test_a_function_chooses_all_cells_of_a_recurrent_layer(self, kind):
        both = layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)])
        model = keras.Sequential(
            [keras.Input((3, 4)), layers.Bidirectional(both), layers.Dense(2)]
        )
        masks = get_masks(mask_model(model, lambda layer: isinstance(layer, kind)))
        assert len(masks) == 8
        assert all(name.startswith("bidirectional/") for name in masks)

    def test_more_may_be_masked_later_inside_of_what_holds_masked_layers(self):
        first = pruned(mask_model(encoder(), "encoder_block/dense"))
        both = mask_model(first, "encoder_block/dense*")
        assert list(get_masks(both)) == [
            "encoder_block/dense/kernel",
            "encoder_block/dense_1/kernel",
        ]
        mask = get_masks(both)["encoder_block/dense/kernel"]
        np.testing.assert_array_equal(
            mask, get_masks(first)[next(iter(get_masks(first)))]
        )


@pytest.mark.once
class TestFiles:
    @pytest.mark.slow
    def test_without_the_library_a_masked_file_is_refused(self, tmp_path):
        """And a file of what it stripped needs Keras alone."""
        time_distributed = layers.TimeDistributed(layers.Dense(2))
        masked = mask_model(keras.Sequential([keras.Input((3, 4)), time_distributed]))
        masked.save(tmp_path / "masked.keras")
        strip_masks(masked).save(tmp_path / "plain.keras")
        code = (
            "import keras\n"
            "keras.models.load_model('plain.keras')\n"
            "try:\n"
            "    keras.models.load_model('masked.keras')\n"
            "except TypeError as error:\n"
            "    print('refused', error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            # NumPy: what is sooner imported than TensorFlow.
            env=os.environ | {"KERAS_BACKEND": "numpy", "PYTHONPATH": ""},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.stdout.startswith("refused"), done.stderr
        assert "keras_lottery" in done.stdout

    def test_without_a_layers_masked_form_its_file_is_refused(
        self, tmp_path, monkeypatch
    ):
        pruned(own_layers()).save(tmp_path / "model.keras")
        monkeypatch.delitem(MASKED_LAYERS, Gate)
        with pytest.raises(ValueError, match=r"register_masked\(Gate"):
            keras.models.load_model(tmp_path / "model.keras")

    def test_masks_of_layers_that_are_not_there_are_an_error(self, tmp_path):
        @keras.saving.register_keras_serializable("zoo")
        class Late(layers.Layer):
            """Makes its layer when it is called, where Keras itself cannot load it."""

            def build(self, input_shape):
                pass

            def call(self, x):
                if not hasattr(self, "dense"):
                    self._tracker.unlock()
                    self.dense = layers.Dense(2)
                return self.dense(x)

            def compute_output_spec(self, x):
                return keras.KerasTensor((*x.shape[:-1], 2))

        x = keras.Input((4,))
        model = keras.Model(x, layers.Dense(2)(Late()(x)))
        model(np.zeros((1, 4), "float32"))
        with pytest.raises(
            ValueError, match=r"does not give the same model.*late/dense/kernel"
        ):
            mask_model(model)

    def test_classes_of_the_user_come_by_custom_objects_as_well(self, tmp_path):
        def define():
            class Own(layers.Layer):
                def __init__(self, **kwargs):
                    super().__init__(**kwargs)
                    self.inside = layers.Dense(2)

                def call(self, x):
                    return self.inside(x)

            return Own

        half = pruned(keras.Sequential([keras.Input((4,)), define()()]))
        half.save(tmp_path / "model.keras")
        newer = define()
        again = keras.models.load_model(
            tmp_path / "model.keras", custom_objects={"Own": newer}
        )
        assert get_masks(again) == get_masks(half)
        assert isinstance(again.layers[0], newer)

    def test_a_layer_taken_from_a_masked_model_keeps_its_masks(self, tmp_path):
        half = pruned(encoder())
        block = half.get_layer(index=2)
        assert isinstance(block, EncoderBlock)
        x = keras.Input((3, 4))
        keras.Model(x, block(x)).save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        kept = {
            name: mask
            for name, mask in get_masks(half).items()
            if name.startswith("encoder_block/")
        }
        assert dict(get_masks(again)).keys() == kept.keys()
        for name, mask in get_masks(again).items():
            np.testing.assert_array_equal(mask, kept[name])


def smooth(x):
    """Not registered with Keras."""
    return keras.ops.tanh(x)


@pytest.mark.once
class TestCopies:
    def test_functions_of_the_user_need_not_be_registered(self):
        model = keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(3, smooth),
                layers.Lambda(lambda x: x * np.pi),
            ]
        )
        np.testing.assert_array_equal(outputs(mask_model(model)), outputs(model))

    @pytest.mark.tensorflow
    def test_vocabularies_are_copied(self):
        lookup = layers.StringLookup(output_mode="multi_hot")
        lookup.adapt(["a", "b", "c", "a"])
        words = keras.Input((2,), dtype="string")
        model = keras.Model(words, layers.Dense(2)(lookup(words)))
        import tensorflow as tf

        x = tf.constant([["a", "c"], ["b", "?"]])
        for copied in [mask_model(model), strip_masks(mask_model(model))]:
            np.testing.assert_array_equal(np.asarray(copied(x)), np.asarray(model(x)))

    @pytest.mark.tensorflow
    def test_a_vocabulary_that_cannot_be_copied_is_refused_by_name(self, monkeypatch):
        text = layers.TextVectorization(output_sequence_length=2, name="words")
        text.adapt(["a b", "c"])
        x = keras.Input((1,), dtype="string")
        model = keras.Model(x, layers.Dense(2)(layers.Embedding(9, 2)(text(x))))
        assert get_masks(mask_model(model)).size

        def broken(self, folder):
            raise OSError("no room")

        monkeypatch.setattr(layers.TextVectorization, "load_assets", broken)
        with pytest.raises(ValueError, match=r"'words'.*no room"):
            mask_model(model)

    def test_a_config_that_lacks_arguments_is_an_error_that_says_so(self):
        class Silent(layers.Layer):
            def __init__(self, inside):
                super().__init__()
                self.inside = inside

            def call(self, x):
                return self.inside(x)

        model = keras.Sequential([keras.Input((4,)), Silent(layers.Dense(2))])
        with pytest.raises(ValueError, match=r"Silent.*Implement `get_config`"):
            mask_model(model)

    def test_a_config_that_says_something_else_is_an_error(self):
        class Wrong(layers.Layer):
            def __init__(self, width=2, **kwargs):
                super().__init__(**kwargs)
                self.inside = layers.Dense(width)

            def call(self, x):
                return self.inside(x)

            def get_config(self):
                return super().get_config()

        model = keras.Sequential([keras.Input((4,)), Wrong(3)])
        with pytest.raises(ValueError, match=r"Other shapes: \['wrong/dense/bias'"):
            copy_model(model)

    def test_a_layer_used_inside_of_another_and_outside_cannot_be_copied(self):
        x = keras.Input((3, 4))
        dense = layers.Dense(4)
        model = keras.Model(x, layers.TimeDistributed(dense)(dense(x)))
        with pytest.raises(ValueError, match="inside another one and outside"):
            mask_model(model)

    def test_a_compile_of_the_users_own_is_left_to_them(self):
        class Own(keras.Model):
            def compile(self, own, **kwargs):
                super().compile(**kwargs)
                self.own = own

        x = keras.Input((4,))
        model = Own(x, layers.Dense(2)(x))
        model.compile(own=1, loss="mse")
        with pytest.warns(UserWarning, match="`compile` of its own"):
            masked = mask_model(model)
        assert not masked.compiled


def test_layers_that_share_a_weight_share_its_mask():
    @keras.saving.register_keras_serializable("zoo")
    class Tied(layers.Layer):
        def build(self, input_shape):
            self.one, self.other = layers.Dense(4), layers.Dense(4)
            self.one.build(input_shape)
            self.other.build(input_shape)
            self.other._untrack_variable(self.other._kernel)
            self.other._tracker.unlock()
            self.other._kernel = self.one._kernel
            self.other._tracker.lock()

        def call(self, x):
            return self.other(self.one(x))

    masked = mask_model(keras.Sequential([keras.Input((4,)), Tied()]))
    assert list(get_masks(masked)) == ["tied/dense/kernel"]
    set_masks(masked, {"tied/dense/kernel": np.eye(4)})
    for layer in (masked.layers[0].one, masked.layers[0].other):
        np.testing.assert_array_equal(read(layer.kernel_mask), np.eye(4))
    assert not is_masked(strip_masks(masked))


@pytest.mark.once
def test_lora_and_quantized_layers_are_refused():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="low")])
    model.layers[0].enable_lora(1)
    with pytest.raises(ValueError, match="'low' has LoRA"):
        mask_model(model)
    masked = mask_model(keras.Sequential([keras.Input((4,)), layers.Dense(2)]))
    with pytest.raises(NotImplementedError, match="`strip_masks"):
        masked.layers[0].enable_lora(1)


@pytest.mark.once
def test_bidirectional_layers_have_stable_names():
    def names():
        both = layers.Bidirectional(layers.LSTM(2))
        return list(
            get_masks(mask_model(keras.Sequential([keras.Input((3, 4)), both])))
        )

    assert names() == names()
    assert names()[0] == "bidirectional/forward_lstm/lstm_cell/kernel"


@pytest.mark.once
class TestRegister:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((3,), "a class of Keras layers"),
            ((layers.Dense(2),), "a class of Keras layers"),
            ((layers.PReLU, "alpha"), "names of one or more"),
            ((layers.PReLU, ()), "names of one or more"),
        ],
    )
    def test_wrong_arguments_are_named(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            register_masked(*arguments)

    def test_a_namesake_is_refused(self):
        class Dense(layers.Layer):
            pass

        with pytest.raises(ValueError, match="Another class `Dense`"):
            register_masked(Dense)

    def test_a_layer_that_saves_itself_is_refused(self):
        class Saves(layers.Layer):
            def save_own_variables(self, store):
                store["x"] = self.kernel

        with pytest.raises(ValueError, match="`Saves` saves its variables"):
            register_masked(Saves)

    def test_a_weight_that_is_none_is_named(self):
        class Mistaken(layers.Dense):
            pass

        register_masked(Mistaken, weights=("kernal",))
        model = keras.Sequential([keras.Input((4,)), Mistaken(2, name="layer")])
        with pytest.raises(ValueError, match="`kernal` of the layer 'layer'"):
            mask_model(model)
        del MASKED_LAYERS[Mistaken]

    def test_its_masked_form_takes_the_same_arguments(self):
        layer = MASKED_LAYERS[Gate](name="gate")
        layer.build((None, 3))
        assert sorted(w.name for w in layer.non_trainable_variables) == [
            "gate_kernel_mask",
            "other_kernel_mask",
        ]
        scrambled = scramble(pruned(own_layers()))
        np.testing.assert_array_equal(
            outputs(scrambled), outputs(scrambled, inputs(scrambled))
        )


@keras.saving.register_keras_serializable("zoo")
class TwoInputs(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.one, self.other = layers.Dense(3), layers.Dense(3)

    def call(self, left, right):
        return self.one(left) + self.other(right)


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:Model .* had a build config")
def test_a_model_that_keras_leaves_unbuilt_is_not_loaded(tmp_path):
    model = TwoInputs(name="pair")
    model(np.ones((2, 4)), np.ones((2, 4)))
    pruned(model).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"inside 'pair' are not built.*`build`"):
        keras.models.load_model(tmp_path / "model.keras")


class Shares(keras.Model):
    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def call(self, x):
        return self.inner(x)

    def get_config(self):
        return {**super().get_config(), "inner": self.inner}


@pytest.mark.once
def test_a_copy_shares_no_layer_with_the_model():
    model = Shares(layers.Dense(2, name="mine"))
    model(np.ones((1, 4)))
    with pytest.raises(ValueError, match="share the layer 'mine'"):
        mask_model(model)
    assert type(model.inner) is layers.Dense
