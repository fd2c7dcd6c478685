"""The alternating direction method of multipliers."""

import numpy as np

import keras_lottery as kl
from tests.good_calls.good import Good


def to_one(v, rho):
    return (1 + rho * v) / (1 + rho)


def shrink(v, rho):
    return kl.admm.soft_threshold(v, 0.1 / rho)


def calls(of):
    return {
        "kl.admm.solve": Good(
            {"prox_f": to_one, "prox_g": shrink, "start": np.zeros(2)},
            start="-1 0 1.5 2 shape",
            rho="above_0",
            relaxation="1.5",
            absolute="from_0",
            relative="from_0",
            max_iterations="2",
        ),
        "kl.admm.consensus": Good(
            {"prox_fs": [to_one, to_one], "prox_g": shrink, "start": np.zeros(2)},
            start="-1 0 1.5 2 shape",
        ),
        "kl.admm.LeastSquares": Good(
            {"a": np.eye(3), "b": np.ones(3)}, a="shape", b="shape"
        ),
        "kl.admm.soft_threshold": Good(
            {"v": np.ones(3), "amount": 0.1}, v="real [] shape", amount="from_0"
        ),
        "kl.admm.inverse": Good({"convexity": 0.1}, convexity="above_0"),
        "kl.admm.inverse_root": Good({"scale": 0.1}, scale="above_0"),
        "kl.admm.stochastic": Good(
            {
                "gradient": lambda x: x,
                "prox_g": shrink,
                "start": np.zeros(2),
                "step_size": kl.admm.inverse(1.0),
                "steps": 2,
            },
            start="real [] shape",
            rho="above_0",
        ),
    }
