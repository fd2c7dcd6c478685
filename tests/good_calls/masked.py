"""Masked models."""

import numpy as np

import keras_lottery as kl
from tests.good_calls.given import mlp
from tests.good_calls.good import Good


def calls(of):
    return {
        "kl.Supermask": Good(
            {"network": of.supermaskable, "kind": "edge_popup", "sparsity": 0.5},
            sparsity="0",
        ),
        "kl.get_masks": Good({"model": of.masked}, wrong_models="all"),
        "kl.get_sparsity": Good({"model": of.masked}, wrong_models="all"),
        "kl.get_state": Good({"model": of.masked}, wrong_models="unbuilt subclassed"),
        "kl.set_masks": Good(
            {"model": of.masked, "masks": of.masks},
            wrong_models="all",
            optimizer="none",
        ),
        "kl.set_state": Good(
            {"model": of.masked, "state": of.state}, wrong_models="unbuilt subclassed"
        ),
        "kl.sparsity_summary": Good({"model": of.masked}, wrong_models="all"),
        "kl.strip_masks": Good({"model": of.masked}, wrong_models="unbuilt subclassed"),
        "kl.mask_model": Good(
            {"model": of.plain}, prunable="", wrong_models="unbuilt subclassed"
        ),
        "kl.learn_masks": Good(
            {"model": of.plain, "kind": "edge_popup", "sparsity": 0.5},
            sparsity="0",
            prunable="",
            wrong_models="unbuilt subclassed",
        ),
        "kl.learned_ticket": Good({"model": of.supermask}, wrong_models="all"),
        "kl.prune": Good(
            {"model": kl.mask_model(mlp()), "sparsity": 0.5},
            sparsity="0",
            rounds="positive",
            data="any",
            optimizer="none",
            wrong_models="all",
        ),
        "kl.recalibrate": Good(
            {"model": of.normalised, "data": np.zeros((4, 3), "float32")},
        ),
    }
