"""What reaches over several layers."""

import numpy as np

import keras_lottery as kl
from tests.good_calls.good import Good


def calls(of):
    return {
        "kl.compact": Good({"model": of.masked}, wrong_models="unbuilt subclassed"),
        "kl.drop_blocks": Good(
            {
                "model": kl.models.bert_small(
                    (4,), 2, blocks=3, width=32, vocabulary=9
                ),
                "count": 1,
                "data": np.ones((2, 4), "int32"),
            },
            count="2",
            blocks="none",
            wrong_models="unbuilt subclassed",
        ),
        "kl.inline": Good({"model": of.masked}, wrong_models="unbuilt subclassed"),
        "kl.narrow": Good(
            {
                "model": kl.models.bert_small(
                    (4,), 2, blocks=1, width=32, vocabulary=9
                ),
                "sparsity": 0.5,
                "data": np.ones((2, 4), "int32"),
            },
            wrong_models="unbuilt subclassed",
        ),
    }
