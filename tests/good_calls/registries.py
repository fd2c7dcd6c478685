"""What is looked up by name."""

from tests.good_calls.good import Good


def calls(of):
    return {
        "kl.controls.get": Good({"value": "reinit"}),
        "kl.criteria.get": Good({"value": "magnitude"}),
        "kl.allocation.get": Good({"value": "global"}),
        "kl.filter_criteria.get": Good({"value": "l1"}),
        "kl.rewind.get": Good({"value": "weights"}),
        "kl.grouping.get": Good({"granularity": "weight"}),
        "kl.models.get": Good({"model": "lenet_300_100"}),
        "kl.models.recipe": Good({"model": "lenet_300_100"}),
        "kl.models.names": Good({}),
        "kl.schedules.get": Good({"schedule": "geometric"}),
        "kl.controls.trials": Good({"controls": ["reinit"]}, controls="none list text"),
        "kl.controls.resolve": Good({"controls": {"reinit": 1}}),
        "kl.data.load": Good({"name": "digits"}),
        "kl.repair.get": Good({"value": "admm"}),
    }
