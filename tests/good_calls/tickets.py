"""Allocations, repairs, rewinds, schedules and groupings."""

import numpy as np

import keras_lottery as kl
from tests.good_calls.good import Good


def calls(of):
    return {
        "kl.allocation.ErdosRenyi": Good({}),
        "kl.allocation.Global": Good({}, floor="0"),
        "kl.allocation.Layerwise": Good({"rates": {"output": 0.1}}, rate="0"),
        "kl.allocation.ByOutput": Good(
            {
                "allocation": kl.allocation.Uniform(),
                "outputs": {"hidden/kernel": np.zeros((4, 6), int)},
            }
        ),
        "kl.allocation.Isomorphic": Good({}, floor="0"),
        "kl.allocation.OutlierWeighed": Good({}, spread="0", threshold="above_0"),
        "kl.allocation.Uniform": Good({}),
        "allocate": Good(
            {"scores": of.scores, "masks": of.dense, "sparsity": 0.5},
            call=lambda scores, masks, sparsity: kl.allocation.Global()(
                scores, masks, sparsity
            ),
            sparsity="0",
        ),
        "kl.allocation.keep_by_layer": Good(
            {
                "scores": of.scores,
                "masks": of.dense,
                "keep": 21,
                "shares": {"hidden/kernel": 12.0, "output/kernel": 9.0},
            },
            keep="count",
        ),
        "kl.allocation.kept_after": Good(
            {"masks": of.masks, "sparsity": 0.5}, sparsity="0"
        ),
        "kl.allocation.largest": Good(
            {"scores": of.scores, "alive": of.dense, "keep": 3}, keep="count"
        ),
        "kl.repair.ADMM": Good({}, damping="from_0", rho="above_0", iterations="2"),
        "kl.repair.LeastSquares": Good({}, damping="from_0", choose=""),
        "kl.repair.SparseGPT": Good({}, damping="from_0", block="positive"),
        "kl.rewind.FineTune": Good({"steps": 3}, learning_rate="from_0"),
        "kl.rewind.rewind_step": Good(
            {"rewind_to": "1ep", "steps_per_epoch": 3, "steps": 9},
            rewind_to="count",
            steps_per_epoch="positive",
        ),
        "kl.schedules.Schedule": Good({"sparsities": (0.5,)}),
        "kl.schedules.geometric": Good({"rate": 0.2, "levels": 3}, levels="positive"),
        "kl.schedules.linear": Good({"rate": 0.2, "levels": 3}, levels="positive"),
        "kl.schedules.one_shot": Good({"sparsity": 0.5}),
        "kl.grouping.Blocks": Good(
            {"inputs": 2, "outputs": 1}, inputs="2", outputs="2"
        ),
        "kl.grouping.ByLayer": Good({"groupings": {"a": kl.grouping.Blocks(2, 1)}}),
        "kl.grouping.NOfM": Good({"n": 1, "m": 4}, n="2", m="2"),
    }
