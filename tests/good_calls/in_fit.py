"""What changes inside one `fit`."""

from tests.good_calls.good import Good


def calls(of):
    return {
        "kl.ADMMPruning": Good(
            {"sparsity": 0.5, "rho": 0.1, "growth": 1.1, "frequency": 2, "bits": 3},
            sparsity="0",
            bits="2",
            rounds="count",
            rho="above_0",
            growth="above_0",
            frequency="positive",
            allocation="",
        ),
        "kl.EarlyBird": Good(
            {"sparsity": 0.5, "threshold": 0.1, "queue": 3},
            sparsity="0",
            queue="positive",
            data="any",
        ),
        "kl.GradualPruning": Good(
            {"final_sparsity": 0.5, "begin_step": 0, "end_step": 2, "frequency": 1},
            final_sparsity="0",
            initial_sparsity="0",
            begin_step="count",
            end_step="count",
            frequency="positive",
            power="from_0",
            data="any",
        ),
        "kl.MovementPruning": Good(
            {"final_sparsity": 0.5, "begin_step": 1, "end_step": 2, "frequency": 1},
            final_sparsity="0",
            initial_sparsity="0",
            begin_step="positive",
            end_step="positive",
            frequency="positive",
            power="from_0",
        ),
        "kl.NeST": Good(
            {"final_sparsity": 0.9, "peak_step": 1, "end_step": 9, "data": of.data},
            peak_step="2",
            end_step="positive",
            frequency="positive",
            data="any",
        ),
        "kl.RigL": Good(
            {"sparsity": 0.5, "end_step": 9, "data": of.data, "frequency": 1},
            sparsity="none",
            end_step="positive",
            frequency="positive",
            alpha="",
            data="any",
        ),
        "kl.SET": Good(
            {"sparsity": 0.5, "end_step": 9, "frequency": 1},
            sparsity="none",
            end_step="positive",
            frequency="positive",
        ),
        "kl.callbacks.Checkpoints": Good({"epochs": [0, 1]}),
        "kl.callbacks.GroupLasso": Good(
            {"strength": 0.1, "groups": "shape"},
            strength="from_0",
            growth="from_0",
            frequency="positive",
        ),
        "kl.callbacks.QuantizationAware": Good({}),
        "kl.callbacks.SoftFilterPruning": Good(
            {"sparsity": 0.5},
            sparsity="0",
            data="any",
            every="positive",
        ),
        "kl.callbacks.SharedWeights": Good({}),
        "kl.callbacks.mask_distance": Good({"one": of.masks, "other": of.dense}),
    }
