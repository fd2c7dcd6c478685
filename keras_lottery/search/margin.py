"""How much worse than the dense network a ticket may be and still match it."""

from typing import TYPE_CHECKING

import numpy as np

from keras_lottery import checks
from keras_lottery.engines.objective import Objective

if TYPE_CHECKING:
    import pandas as pd

LEAST = 0.002
"""Of accuracies: the 0.2 percentage points of Frankle et al. 2020, "Linear mode
connectivity and the lottery ticket hypothesis"."""


def check_margin(margin: float | str) -> None:
    """Raises ValueError unless this is `"auto"` or a number of at least 0."""
    if not isinstance(margin, str) or margin != "auto":
        remedy = (
            "Or 'auto'. It is in the objective's unit: of an accuracy, 0.002 is 0.2 "
            "percentage points."
        )
        checks.number("margin", margin, 0, remedy=remedy)


def margin_of(
    results: "pd.DataFrame",
    margin: float | str,
    objective: Objective,
    examples: int | None,
) -> float:
    """The margin as a number; NaN if there is too little data for `"auto"`.

    Args:
        results: the table of `LotteryTicketSearch.results()`.
        margin, examples: same as in `kl.results.verdict`.
        objective: the objective of the table.
    """
    check_margin(margin)
    if not isinstance(margin, str):
        return float(margin)
    is_dense = (results["level"] == 0) & (results["variant"] == "ticket")
    dense = results.loc[is_dense, objective.column("early_stop")].dropna()
    if not objective.is_share:
        return float(dense.std())
    if examples is None or not len(dense):
        return LEAST
    share = dense.mean()
    return float(max(LEAST, np.sqrt(share * (1 - share) / examples)))
