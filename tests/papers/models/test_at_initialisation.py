"""All methods before training on all of the library's models."""

import keras
import numpy as np
import pytest

import keras_lottery as kl

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:No weights")]


@pytest.mark.parametrize("criterion", ["snip", "iterative_snip", "grasp", "synflow"])
@pytest.mark.parametrize("name", [n for n in kl.models.names() if "bert" not in n])
def test_every_model_is_pruned_before_training(name, criterion):
    shape = (8, 8, 3) if name.startswith(("resnet", "conv")) else (32, 32, 3)
    model = kl.mask_model(kl.models.get(name)(shape))
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = np.random.default_rng(0).normal(size=(8, *shape)).astype("float32")
    # All rounds of a method do the same.
    rounds = 1 if criterion in ("snip", "grasp") else 2
    kl.prune(model, 0.9, criterion, data=(x, np.arange(8)), rounds=rounds)
    assert kl.get_sparsity(model) == pytest.approx(0.9, abs=1e-4)
