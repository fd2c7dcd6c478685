"""What holds for every architecture, however deep its layers lie."""

import warnings

import keras
import numpy as np
import pytest

from keras_lottery.keras_bridge import architecture
from keras_lottery.keras_bridge.layers import (
    copy_model,
    get_masks,
    get_state,
    is_masked,
    mask_model,
    named_masks,
    named_variables,
    redraw,
    strip_masks,
    walk,
)
from keras_lottery.keras_bridge.layers.inside import class_of
from keras_lottery.keras_bridge.layers.state import read
from keras_lottery.tickets.allocation import kept_after
from tests.models_zoo import (
    ARCHITECTURES,
    Doubled,
    arrays,
    assert_equal,
    compiled,
    fit,
    outputs,
    pruned,
    pruned_weights,
    scramble,
    spectral,
)


@pytest.fixture(scope="module", params=ARCHITECTURES, ids=str)
def case(request):
    """How to build a model, the model, and it masked with half of its weights pruned.

    Behind the masks, the weights are not zero.
    """
    build = ARCHITECTURES[request.param]
    model = scramble(build())
    return build, model, scramble(pruned(model), seed=1)


def test_masking_changes_no_output(case):
    _, model, half = case
    before, state = model.get_config(), arrays(model)
    masked = mask_model(model)
    np.testing.assert_array_equal(outputs(masked), outputs(model))
    assert not np.allclose(outputs(half), outputs(model))
    assert type(masked).__name__ == type(model).__name__
    assert isinstance(masked, class_of(model))
    assert model.get_config() == before
    assert_equal(arrays(model), state)


def test_every_kernel_is_masked_and_counts_are_exact(case):
    _, model, half = case
    kernels = {
        name: tuple(variable.shape)
        for name, variable in named_variables(model).items()
        if variable.name.endswith("kernel")
    }
    masks = get_masks(half)
    assert {name: mask.shape for name, mask in masks.items()} == kernels
    assert masks.kept == kept_after(masks, 0.5)


def test_names_are_the_same_in_every_build_masked_or_not(case):
    build, model, half = case
    names = list(named_variables(model))
    for other in [build(), half, strip_masks(half)]:
        assert list(named_variables(other)) == names
    assert list(get_masks(mask_model(build()))) == list(get_masks(half))


OPTIMIZERS = {
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.05),
    "adamw": lambda: keras.optimizers.AdamW(0.05, weight_decay=0.1),
}


def test_pruned_weights_are_zero_after_training(case):
    """Training takes long: architectures take turns with optimizers."""
    build, model, _ = case
    turn = list(ARCHITECTURES.values()).index(build) % len(OPTIMIZERS)
    optimizer = list(OPTIMIZERS)[turn]
    eager = keras.backend.backend() == "tensorflow"
    half = pruned(model)
    before = {name: read(weight) for name, (_, weight) in named_masks(half).items()}
    # Tracing takes longer than these few steps.
    fit(compiled(half, OPTIMIZERS[optimizer](), run_eagerly=eager), batches=3)
    if eager or build is not spectral:
        # On JAX, SpectralNormalization reaches the variable past its mask.
        assert not pruned_weights(half).any()
    state = get_state(half)
    for name, (mask, _) in named_masks(half).items():
        assert not state[name][~read(mask)].any()
        assert (state[name] != before[name])[read(mask)].any(), name


def test_stripping_bakes_the_zeros_into_ordinary_layers(case):
    _, model, half = case
    plain = strip_masks(half)
    assert not is_masked(plain)
    assert [type(layer) for _, layer in walk(plain)] == [
        type(layer) for _, layer in walk(model)
    ]
    assert type(plain) is type(model)
    np.testing.assert_array_equal(outputs(plain), outputs(half))
    state = get_state(plain)
    for name, mask in get_masks(half).items():
        assert not state[name][~mask].any()


def save_and_load(model, path):
    """Keras warns of what it did not load."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.save(path)
        return keras.models.load_model(path)


def test_a_keras_file_holds_the_masks_and_so_does_the_file_of_what_it_gave(
    case, tmp_path
):
    _, _, half = case
    again = half
    for _ in range(2):
        again = save_and_load(again, tmp_path / "model.keras")
        assert get_masks(again) == get_masks(half)
        assert_equal(arrays(again), arrays(half))
        np.testing.assert_array_equal(outputs(again), outputs(half))
        assert not pruned_weights(again).any()


def test_a_stripped_model_is_saved_without_us(case, tmp_path):
    _, _, half = case
    plain = strip_masks(half)
    again = save_and_load(plain, tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs(again), outputs(plain))
    assert "keras_lottery" not in str(plain.get_config())


def test_a_weights_file_fits_another_build_if_it_is_masked(case, tmp_path):
    build, _, half = case
    path = tmp_path / "model.weights.h5"
    half.save_weights(path)
    again = mask_model(build())
    again.load_weights(path)
    assert get_masks(again) == get_masks(half)
    np.testing.assert_array_equal(outputs(again), outputs(half))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError):
            build().load_weights(path)


def test_copies_clones_and_texts_make_masked_models(case):
    _, _, half = case
    models = [copy_model(half), architecture.from_text(architecture.to_text(half))]
    # Keras clones the graph of Functional models alone, without what a class adds.
    if not isinstance(half, Doubled):
        models.append(keras.models.clone_model(half))
    for again in models:
        again.set_weights(half.get_weights())
        assert get_masks(again) == get_masks(half)
        np.testing.assert_array_equal(outputs(again), outputs(half))


def test_masking_again_keeps_the_masks(case):
    _, _, half = case
    again = mask_model(half)
    assert get_masks(again) == get_masks(half)
    np.testing.assert_array_equal(outputs(again), outputs(half))


def test_redrawn_weights_come_from_the_initialisers(case):
    _, model, half = case
    state, other = redraw(half, 1), redraw(half, 2)
    for name, (_, weight) in named_masks(half).items():
        # Orthogonal ones of the same size may share single entries.
        assert np.isclose(state[name], other[name]).mean() < 0.2, name
        assert state[name].shape == weight.shape
    assert state.keys() == named_variables(model).keys()
