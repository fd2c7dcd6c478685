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
from keras_lottery.pruning import prune
from keras_lottery.tickets.allocation import kept_after
from tests.models_zoo import (
    ARCHITECTURES,
    EAGER,
    Doubled,
    arrays,
    assert_equal,
    cases,
    compiled,
    fit,
    outputs,
    pruned,
    pruned_weights,
    scramble,
)


class Case:
    """A model, and what the tests compare with it; each is built once.

    `half` is the model masked with half of its weights pruned, which are not zero
    behind the masks, `plain` is `half` stripped. `other` and `other_masked` come from
    another build.
    """

    def __init__(self, name):
        self.model = scramble(ARCHITECTURES[name]())
        self.half = scramble(pruned(self.model), seed=1)
        self.plain = strip_masks(self.half)
        self.other = ARCHITECTURES[name]()
        self.other_masked = mask_model(self.other)


ON_EVERY_BACKEND = "residual", "attention", "subclassed", "recurrent", "spectral"


@pytest.fixture(scope="module", params=cases(ARCHITECTURES, ON_EVERY_BACKEND), ids=str)
def case(request):
    return Case(request.param)


def test_every_kernel_is_masked_and_counts_are_exact(case):
    kernels = {
        name: tuple(variable.shape)
        for name, variable in named_variables(case.model).items()
        if variable.name.endswith("kernel") and "depthwise" not in name
    }
    masks = get_masks(case.half)
    assert {name: mask.shape for name, mask in masks.items()} == kernels
    assert masks.kept == kept_after(masks, 0.5)


def test_names_are_the_same_in_every_build_masked_or_not(case):
    names = list(named_variables(case.model))
    for other in [case.other, case.half, case.plain]:
        assert list(named_variables(other)) == names
    assert list(get_masks(case.other_masked)) == list(get_masks(case.half))


OPTIMIZERS = {
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.05),
    "adamw": lambda: keras.optimizers.AdamW(0.05, weight_decay=0.1),
}


def test_masking_changes_no_output_and_pruned_weights_stay_zero_in_training(
    case, request
):
    """Training takes long: architectures take turns with optimizers."""
    model = case.model
    config, state = model.get_config(), arrays(model)
    masked = mask_model(model)
    np.testing.assert_array_equal(outputs(masked), outputs(model))
    assert not np.allclose(outputs(case.half), outputs(model))
    assert type(masked).__name__ == type(model).__name__
    assert isinstance(masked, class_of(model))
    assert model.get_config() == config

    prune(masked, 0.5, criterion="random")
    name = request.node.callspec.params["case"]
    optimizer = list(OPTIMIZERS)[list(ARCHITECTURES).index(name) % len(OPTIMIZERS)]
    before = {name: read(weight) for name, (_, weight) in named_masks(masked).items()}
    fit(compiled(masked, OPTIMIZERS[optimizer](), **EAGER), batches=2)
    if EAGER or name != "spectral":
        # On JAX, SpectralNormalization reaches the variable past its mask.
        assert not pruned_weights(masked).any()
    after = get_state(masked)
    for name, (mask, _) in named_masks(masked).items():
        assert not after[name][~read(mask)].any()
        assert (after[name] != before[name])[read(mask)].any(), name
    assert_equal(arrays(model), state)


def test_stripping_bakes_the_zeros_into_ordinary_layers(case):
    plain = case.plain
    assert not is_masked(plain)
    assert [type(layer) for _, layer in walk(plain)] == [
        type(layer) for _, layer in walk(case.model)
    ]
    assert type(plain) is type(case.model)
    np.testing.assert_array_equal(outputs(plain), outputs(case.half))
    state = get_state(plain)
    for name, mask in get_masks(case.half).items():
        assert not state[name][~mask].any()


def save_and_load(model, path):
    """Keras warns of what it did not load."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.save(path)
        return keras.models.load_model(path)


def test_a_keras_file_holds_the_masks(case, tmp_path):
    """What it gives is a model like the one that was saved: copied and cloned again."""
    half = case.half
    again = save_and_load(half, tmp_path / "model.keras")
    assert_equal(arrays(again), arrays(half))
    assert not pruned_weights(again).any()
    models = [copy_model(again), architecture.from_text(architecture.to_text(again))]
    # Keras clones the graph of Functional models alone, without what a class adds.
    if not isinstance(half, Doubled):
        models.append(keras.models.clone_model(half))
    for other in models:
        other.set_weights(half.get_weights())
    for other in [again, *models]:
        assert get_masks(other) == get_masks(half)
        np.testing.assert_array_equal(outputs(other), outputs(half))


def test_a_stripped_model_is_saved_without_us(case, tmp_path):
    again = save_and_load(case.plain, tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs(again), outputs(case.plain))
    assert "keras_lottery" not in str(case.plain.get_config())


def test_a_weights_file_fits_another_build_if_it_is_masked(case, tmp_path):
    half, again = case.half, case.other_masked
    path = tmp_path / "model.weights.h5"
    half.save_weights(path)
    again.load_weights(path)
    assert get_masks(again) == get_masks(half)
    np.testing.assert_array_equal(outputs(again), outputs(half))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError):
            case.other.load_weights(path)


def test_masking_again_keeps_the_masks(case):
    again = mask_model(case.half)
    assert get_masks(again) == get_masks(case.half)
    np.testing.assert_array_equal(outputs(again), outputs(case.half))


def test_redrawn_weights_come_from_the_initialisers(case):
    state, other = redraw(case.half, 1), redraw(case.half, 2)
    for name, (_, weight) in named_masks(case.half).items():
        # Orthogonal ones of the same size may share single entries.
        assert np.isclose(state[name], other[name]).mean() < 0.2, name
        assert state[name].shape == weight.shape
    assert state.keys() == named_variables(case.model).keys()
