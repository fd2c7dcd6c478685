"""How far tickets overfit."""

from typing import TYPE_CHECKING

from keras_lottery.search.run import Run

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["level", "density", "variant", "replicate", "trial"]


def generalisation_gap(search: Run, on: str | None = None) -> "pd.DataFrame":
    """Train less test accuracy at the end of every training, by density.

    Args:
        search: a `LotteryTicketSearch` or a `Run`, finished or not.
        on: the data that are held out: `"test"` or `"validation"`; by default the test
            data, if there were any.

    Returns:
        A row for each training: `level`, `density`, `variant`, `replicate`, `trial`,
        and shares: `train_accuracy`, `accuracy` (on the data held out) and `gap`,
        their difference.

    Raises:
        ValueError: if `on` is something else, or there are no such accuracies.

    Reference:
        Frankle & Carbin, [The Lottery Ticket Hypothesis](
        https://arxiv.org/abs/1803.03635), 2019, section 5: tickets "generalize better":
        the gap is smaller.
    """
    results = search.results()
    columns = {"test": "final_test_accuracy", "validation": "final_val_accuracy"}
    if on is None:
        on = "test" if results[columns["test"]].notna().any() else "validation"
    if on not in columns:
        raise ValueError(
            f"Expected `on` to be 'test' or 'validation'. Received: on={on!r}"
        )
    table = results[COLUMNS].assign(
        train_accuracy=results["final_train_accuracy"], accuracy=results[columns[on]]
    )
    if not table["accuracy"].notna().any():
        raise ValueError(
            f"'{search.directory}' has no accuracies of {on} data: search with "
            "`test_data`, or ask for on='validation'."
        )
    return table.assign(gap=table["train_accuracy"] - table["accuracy"])
