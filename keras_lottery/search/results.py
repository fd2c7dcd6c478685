"""Tidy tables of what a search measured, and the verdict on it."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = [
    "level",
    "sparsity",
    "density",
    "variant",
    "replicate",
    "trial",
    "seconds",
    "start_step",
    "early_stop_step",
    "early_stop_val_accuracy",
    "early_stop_test_accuracy",
    "final_val_accuracy",
    "final_val_loss",
    "final_test_accuracy",
    "final_train_accuracy",
]
"""The columns of `LotteryTicketSearch.results()`, one row for each training."""

CONFIDENCE = 0.95


def tabulate(rows: Iterable[Mapping[str, Any]]) -> "pd.DataFrame":
    """The table of results: one row a training, by level, variant and replicate."""
    import pandas as pd

    table = pd.DataFrame(list(rows), columns=COLUMNS)
    order = ["level", "variant", "replicate", "trial"]
    return table.sort_values(order, kind="stable", ignore_index=True)


def verdict(
    results: "pd.DataFrame", on: str | None = None, tolerance: float = 0.0
) -> "pd.DataFrame":
    """Whether the tickets of each level win, and whether they beat their controls.

    A winning ticket has fewer weights than the dense network, at least its accuracy,
    and stops no later. Accuracy and step are those of the early stop, the step of least
    validation loss; differences are paired: the same replicate's ticket and dense
    network, or ticket and mean of the control's trials.

    Args:
        results: the table of `LotteryTicketSearch.results()`.
        on: the data to compare accuracies on: `"test"` or `"validation"`; by default
            the test data, if there are any.
        tolerance: how far below the dense network's accuracy (a share, 0.002 is 0.2
            percentage points) still counts as its accuracy.

    Returns:
        One row a level. `accuracy_difference` is ticket less dense, mean over
        replicates, with `accuracy_low` and `accuracy_high`, its 95 % confidence
        interval (Student's t; NaN for a single replicate); `early_stop_difference` is
        in steps that each trained itself, from its `start_step` on. `winning` is the
        definition on the means; `certain` is true where also the whole interval of the
        accuracy lies on the winning side. For each control: ticket less control
        (`reinit_difference`, `reinit_low`, `reinit_high`,
        `reinit_early_stop_difference`), and `beats_reinit`: a higher mean.

    Raises:
        ValueError: if `on` is something else.

    Reference:
        Frankle & Carbin 2019, section 1 (the hypothesis, stated formally).
    """
    import pandas as pd

    columns = {
        "test": "early_stop_test_accuracy",
        "validation": "early_stop_val_accuracy",
    }
    if on is None:
        on = "test" if results[columns["test"]].notna().any() else "validation"
    if on not in columns:
        raise ValueError(
            f"Expected `on` to be 'test' or 'validation'. Received: on={on!r}"
        )
    means = (
        own_steps(results)
        .groupby(["level", "variant", "replicate"])[
            [columns[on], "early_stop_step", "sparsity"]
        ]
        .mean()
    )
    means.columns = ["accuracy", "step", "sparsity"]
    controls = [v for v in results["variant"].unique() if v != "ticket"]
    tickets = means.xs("ticket", level="variant")
    dense = tickets.loc[0] if 0 in tickets.index else tickets.iloc[:0]
    rows = []
    for level, ticket in tickets.groupby(level="level"):
        ticket = ticket.droplevel("level")
        if level == 0:
            continue
        mean, low, high = _paired(ticket["accuracy"], dense["accuracy"])
        later = _paired(ticket["step"], dense["step"])[0]
        sparsity = ticket["sparsity"].mean()
        row = {
            "level": level,
            "sparsity": sparsity,
            "density": 1 - sparsity,
            "replicates": len(ticket),
            "accuracy_difference": mean,
            "accuracy_low": low,
            "accuracy_high": high,
            "early_stop_difference": later,
            "winning": bool(sparsity > 0 and mean >= -tolerance and later <= 0),
            "certain": bool(low >= -tolerance and later <= 0),
        }
        for control in controls:
            if (level, control) not in means.index.droplevel("replicate"):
                continue
            other = means.loc[level, control]
            mean, low, high = _paired(ticket["accuracy"], other["accuracy"])
            row |= {
                f"{control}_difference": mean,
                f"{control}_low": low,
                f"{control}_high": high,
                f"{control}_early_stop_difference": _paired(
                    ticket["step"], other["step"]
                )[0],
                f"beats_{control}": bool(mean > 0),
            }
        rows.append(row)
    return pd.DataFrame(rows)


def own_steps(results: "pd.DataFrame") -> "pd.DataFrame":
    """The table with each training's steps counted from its own start.

    Fine-tuning begins where the dense training ended: of the absolute step of its early
    stop, most was not its own.

    >>> import pandas as pd
    >>> table = pd.DataFrame({"start_step": [0, 900], "early_stop_step": [500, 1000]})
    >>> own_steps(table).to_dict("list")
    {'start_step': [0, 0], 'early_stop_step': [500, 100]}
    """
    own = results["early_stop_step"] - results.get("start_step", 0)
    return results.assign(early_stop_step=own, start_step=0)


def in_words(verdict: "pd.DataFrame") -> dict[int, str]:
    """The verdict of each level, for people.

    >>> import pandas as pd
    >>> row = {"level": 1, "winning": True, "certain": False, "beats_reinit": True}
    >>> in_words(pd.DataFrame([row]))
    {1: 'winning, beats reinit'}
    """
    words = {}
    for row in verdict.to_dict("records"):
        word = "winning" if row["winning"] else "not winning"
        if row["winning"] and row["certain"]:
            word += " (95 %)"
        # Of a control that this level lacks, it is NaN.
        beaten = [
            name.removeprefix("beats_")
            for name, value in row.items()
            if name.startswith("beats_") and value is True
        ]
        if beaten:
            word += f", beats {', '.join(beaten)}"
        words[int(row["level"])] = word
    return words


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """The mean of replicates, and its 95 % confidence interval (Student's t).

    >>> [round(x, 2) for x in interval(np.array([1.0, 2.0, 3.0]))]
    [2.0, -0.48, 4.48]
    >>> interval(np.array([1.0]))  # of one replicate, the noise is not known
    (1.0, nan, nan)
    """
    if not len(values):
        return np.nan, np.nan, np.nan
    mean = float(values.mean())
    if len(values) == 1:
        return mean, np.nan, np.nan
    margin = float(
        stats.sem(values) * stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
    )
    return mean, mean - margin, mean + margin


def _paired(a: "pd.Series", b: "pd.Series") -> tuple[float, float, float]:
    """Mean of a - b over the replicates of both, and its confidence interval."""
    return interval((a - b).dropna().to_numpy(float))
