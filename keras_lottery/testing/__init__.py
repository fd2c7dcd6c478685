"""Contract tests: what every criterion, allocation, grouping, control, repair, schedule
and masked layer keeps to, the library's own and yours.

Each function takes a name or the object itself, and raises an AssertionError that says
which rule is broken, and how. Use them in the tests of your own package:

    from keras_lottery import testing

    def test_my_criterion():
        testing.check_criterion(my_criterion)

You still need tests of what is special about your object, for example that a score is
the one of its paper.
"""

from keras_lottery.testing.allocation import check_allocation
from keras_lottery.testing.control import check_control
from keras_lottery.testing.criterion import check_criterion
from keras_lottery.testing.grouping import check_grouping
from keras_lottery.testing.masked_layer import check_masked_layer
from keras_lottery.testing.repair import check_repair
from keras_lottery.testing.schedule import check_schedule

__all__ = [
    "check_allocation",
    "check_control",
    "check_criterion",
    "check_grouping",
    "check_masked_layer",
    "check_repair",
    "check_schedule",
]
