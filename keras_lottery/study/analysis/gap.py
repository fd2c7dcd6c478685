"""The generalisation gap: how much tickets overfit."""

from typing import TYPE_CHECKING

from keras_lottery import checks
from keras_lottery.search.run import Run, check_run

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["level", "density", "variant", "replicate", "trial"]


def generalisation_gap(search: Run, on: str | None = None) -> "pd.DataFrame":
    """How much better tickets are on training data than on held-out data, by density.

    Args:
        search: a `LotteryTicketSearch` or a `Run`, finished or not.
        on: the held-out data: `"test"` or `"validation"`; by default the test data if
            there are any, else the validation data.

    Returns:
        A row for each training: `level`, `density`, `variant`, `replicate`, `trial`,
        and the search's objective at the end of the training: `train_accuracy`,
        `accuracy` (on the held-out data; columns of another metric have its name) and
        `gap`, by how much the former is better.

    Raises:
        ValueError: if `search` is no search, `on` is something else, or there are no
            such data.

    Reference:
        Frankle & Carbin, [The Lottery Ticket Hypothesis](
        https://arxiv.org/abs/1803.03635), 2019, section 5: tickets "generalize better":
        the gap is smaller.
    """
    check_run("search", search)
    results = search.results()
    objective = search.objective
    columns = {
        "test": objective.column("final", "test"),
        "validation": objective.column("final", "val"),
    }
    if on is None:
        on = "test" if results[columns["test"]].notna().any() else "validation"
    checks.choice("on", on, list(columns))
    train, held_out = results[objective.column("final", "train")], results[columns[on]]
    if not held_out.notna().any():
        raise ValueError(
            f"Expected results on {on} data. Received: '{search.directory}', which has "
            "none. Search with `test_data`, or ask for on='validation'."
        )
    return results[COLUMNS].assign(
        **{f"train_{objective.metric}": train, objective.metric: held_out},
        gap=objective.gain(train, held_out),
    )
