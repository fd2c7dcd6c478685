"""Choices by validation."""

from tests.good_calls.good import Good


def calls(of):
    return {
        "kl.automatic.auto_compress": Good(
            {
                "model": of.plain,
                "target": 0.5,
                "data": of.data,
                "validation_data": of.data,
                "evaluations": 1,
                "epochs": 0,
                "verbose": 0,
            },
            target="True",
            rounds="positive",
            epochs="count",
            admm_epochs="count",
            purify="from_0",
            evaluations="positive",
        ),
        "kl.automatic.choose_criteria": Good(
            {
                "model": of.plain,
                "target": 0.5,
                "data": of.data,
                "validation_data": of.data,
                "criteria": ["l1"],
            },
            data="any",
            target="True",
            rounds="positive",
        ),
        "kl.automatic.anneal": Good(
            {"energy": lambda point: 0.0, "size": 2, "evaluations": 1},
            size="positive",
            evaluations="positive",
        ),
        "kl.automatic.draw": Good(
            {"energy": lambda point: 0.0, "size": 2, "evaluations": 1},
            size="positive",
            evaluations="positive",
        ),
    }
