"""Where zeros lie, times how weights are stored: what LiteRT files come of it."""

import numpy as np
import pytest

from keras_lottery.keras_bridge.layers import get_masks, mask_model
from keras_lottery.papers.models import lenet_300_100
from keras_lottery.pruning import prune
from keras_lottery.ship.export import to_litert

pytestmark = pytest.mark.tensorflow

PATTERNS = {
    "scattered": {"sparsity": 0.9, "allocation": "uniform"},
    "nearly all": {"sparsity": 0.98, "allocation": "uniform"},
    "blocks": {"sparsity": 0.9, "granularity": "block_1x4"},
}
# A part of each note: why a file is not encoded sparsely.
BEYOND, EIGHT_BITS = "beyond their end", "fails to load such files or answers wrongly"
MATRIX = {
    ("scattered", None): None,
    ("scattered", "float16"): None,
    ("scattered", "dynamic"): EIGHT_BITS,
    ("scattered", "int8"): EIGHT_BITS,
    ("nearly all", "float16"): BEYOND,
    ("blocks", None): None,
    ("blocks", "float16"): BEYOND,
}
BYTES = {None: 4, "float16": 2, "dynamic": 1, "int8": 1}


@pytest.fixture(scope="module")
def pruned():
    models = {}
    for name, options in PATTERNS.items():
        models[name] = mask_model(lenet_300_100(seed=0))
        prune(models[name], **options)
    return models


def kernels(path):
    """The constants of a file that have two axes; none of what is sparse."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    return {
        tuple(tensor["shape"]): interpreter.get_tensor(tensor["index"])
        for tensor in interpreter.get_tensor_details()
        if tuple(tensor["shape"]) in {(300, 784), (100, 300)}
        and tensor["dtype"] in (np.int8, np.float16)
    }


@pytest.mark.parametrize(("pattern", "quantize"), MATRIX)
def test_every_file_is_small_or_says_why_not(
    pruned, images, tmp_path, pattern, quantize
):
    model, note = pruned[pattern], MATRIX[pattern, quantize]
    x = images[:50]
    report = to_litert(
        model, tmp_path / "a.tflite", quantize=quantize, representative_data=x
    )
    dense_bytes = BYTES[quantize] * 266_610
    assert report.dense_bytes == pytest.approx(dense_bytes, rel=0.05)
    if note is None:
        assert report.notes == ()
        assert report.bytes < 0.25 * report.dense_bytes
    else:
        assert note in report.notes[0]
        assert report.bytes == pytest.approx(report.dense_bytes, rel=0.001)
        # The zeros are there, where the masks have them, for the download to shrink.
        assert report.gzip_bytes < 0.25 * report.dense_bytes
        masks = get_masks(model)
        stored = kernels(report.path)
        for name in ("hidden_1/kernel", "hidden_2/kernel"):
            mask = masks[name].T
            assert np.all(stored[mask.shape][~mask] == 0)
            assert np.count_nonzero(stored[mask.shape]) > 0.95 * np.count_nonzero(mask)
    # It was compared with the Keras model before it was handed over.
    outputs = run(report.path, x)
    expected = np.asarray(model(x))
    tolerance = {None: 1e-5, "float16": 1e-3}.get(quantize, 0.05)
    np.testing.assert_allclose(outputs, expected, atol=tolerance * expected.max())
    assert report.max_difference == pytest.approx(
        np.abs(outputs - expected).max(), abs=1e-6
    )


def run(path, x):
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(path)).get_signature_runner()
    return np.concatenate([runner(input_0=row[None])["output_0"] for row in x])
