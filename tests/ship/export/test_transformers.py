"""A small transformer, pruned, as files."""

import numpy as np
import pytest

import keras_lottery as kl
from tests.models_zoo import scramble

pytestmark = [pytest.mark.once, pytest.mark.tensorflow]


@pytest.fixture(scope="module")
def masked():
    plain = kl.models.bert_small((8,), 3, blocks=1, width=64, vocabulary=40)
    model = kl.mask_model(scramble(plain), "block_*")
    for granularity in ("head", "filter"):
        kl.prune(model, 0.5, granularity=granularity)
    return model


def test_without_half_of_its_heads_and_units(masked):
    small, report = kl.compact(masked, return_report=True)
    assert report.heads == {"block_0/attention": (2, 1)}
    assert report.widths["block_0/expand"] == (256, 128)
    texts = np.random.default_rng(0).integers(0, 40, (5, 8))
    np.testing.assert_allclose(
        small.predict(texts, verbose=0), masked.predict(texts, verbose=0), atol=1e-5
    )


def test_as_litert_it_answers_as_the_model_does(masked, tmp_path):
    # `to_litert` compares the file's outputs with the model's.
    report = kl.export.to_litert(kl.compact(masked), tmp_path / "small.tflite")
    assert report.path.stat().st_size == report.bytes
