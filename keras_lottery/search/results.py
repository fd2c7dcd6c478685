"""Tidy tables of what a search measured, and the verdict on it."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from keras_lottery.engines.objective import Objective, named

if TYPE_CHECKING:
    import pandas as pd

CONFIDENCE = 0.95


def columns(objective: Objective) -> list[str]:
    """The columns of `LotteryTicketSearch.results()`, one row for each training.

    >>> columns(Objective("val_accuracy"))[8:]
    ['early_stop_step', 'early_stop_val_accuracy', 'early_stop_test_accuracy',
     'final_val_accuracy', 'final_val_loss', 'final_test_accuracy',
     'final_train_accuracy']
    """
    names = [
        *("level", "sparsity", "density", "variant", "replicate", "trial", "seconds"),
        *("start_step", "early_stop_step"),
        *(objective.column("early_stop", part) for part in ("val", "test")),
        objective.column("final", "val"),
        "final_val_loss",
        *(objective.column("final", part) for part in ("test", "train")),
    ]
    # The objective may be the loss itself.
    return list(dict.fromkeys(names))


def tabulate(rows: Iterable[Mapping[str, Any]], objective: Objective) -> "pd.DataFrame":
    """The table of results: one row a training, by level, variant and replicate."""
    import pandas as pd

    table = pd.DataFrame(list(rows), columns=columns(objective))
    order = ["level", "variant", "replicate", "trial"]
    return table.sort_values(order, kind="stable", ignore_index=True)


def objective_of(results: "pd.DataFrame") -> Objective:
    """The objective that a table of results is about.

    Its direction is set if the name tells it, as that of an accuracy or a loss does.

    Raises:
        ValueError: if the table has no columns of an early stop.

    >>> import pandas as pd
    >>> objective_of(pd.DataFrame(columns=["early_stop_test_accuracy"]))
    Objective(name='val_accuracy', direction='max')
    """
    found = {
        column.removeprefix(start)
        for column in results.columns
        for start in ("early_stop_val_", "early_stop_test_")
        if column.startswith(start)
    }
    if len(found) != 1:
        raise ValueError(
            "Expected the table of LotteryTicketSearch.results(), with an early stop. "
            f"Received: {len(results)} rows, columns {', '.join(results.columns)}"
        )
    return named(f"val_{found.pop()}")


def verdict(
    results: "pd.DataFrame",
    on: str | None = None,
    tolerance: float = 0.0,
    objective: str | Objective | None = None,
) -> "pd.DataFrame":
    """Whether the tickets of each level win, and whether they beat their controls.

    A winning ticket has fewer weights than the dense network, is at least as good, and
    stops no later. Objective and step are those of the early stop, the step of least
    validation loss; differences are paired: the same replicate's ticket and dense
    network, or ticket and mean of the control's trials.

    Args:
        results: the table of `LotteryTicketSearch.results()`.
        on: the data to compare on: `"test"` or `"validation"`; by default the test
            data, if there are any.
        tolerance: how far the ticket may be worse than the dense network and still
            count as equally good, in the objective's unit: of an accuracy, 0.002 is 0.2
            percentage points.
        objective: what the table is about; needed only where the name does not tell
            the direction, as that of an accuracy or a loss does.

    Returns:
        One row a level. Differences are in the objective's unit, ticket less dense
        network or control; whether more or less is better, the objective says.
        `difference` is ticket less dense, mean over replicates, with `low` and `high`,
        its 95 % confidence interval (Student's t; NaN for a single replicate);
        `early_stop_difference` is in steps that each trained itself, from its
        `start_step` on. `winning` is the definition on the means; `certain` is true
        where also the whole interval lies on the winning side. For each control: ticket
        less control (`reinit_difference`, `reinit_low`, `reinit_high`,
        `reinit_early_stop_difference`), and `beats_reinit`: a better mean.

    Raises:
        ValueError: if `on` is something else, or the objective's direction is not
            known.

    Reference:
        Frankle & Carbin 2019, section 1 (the hypothesis, stated formally).
    """
    import pandas as pd

    objective = _directed(results, objective)
    parts = {"test": "test", "validation": "val"}
    if on is None:
        column = objective.column("early_stop", "test")
        on = "test" if results[column].notna().any() else "validation"
    if on not in parts:
        raise ValueError(
            f"Expected `on` to be 'test' or 'validation'. Received: on={on!r}"
        )
    means = (
        own_steps(results)
        .groupby(["level", "variant", "replicate"])[
            [objective.column("early_stop", parts[on]), "early_stop_step", "sparsity"]
        ]
        .mean()
    )
    means.columns = ["value", "step", "sparsity"]
    controls = [v for v in results["variant"].unique() if v != "ticket"]
    tickets = means.xs("ticket", level="variant")
    dense = tickets.loc[0] if 0 in tickets.index else tickets.iloc[:0]
    rows = []
    for level, ticket in tickets.groupby(level="level"):
        ticket = ticket.droplevel("level")
        if level == 0:
            continue
        mean, low, high = _paired(ticket["value"], dense["value"])
        gain = objective.gain(mean, 0)
        least = min(objective.gain(low, 0), objective.gain(high, 0))
        later = _paired(ticket["step"], dense["step"])[0]
        sparsity = ticket["sparsity"].mean()
        row = {
            "level": level,
            "sparsity": sparsity,
            "density": 1 - sparsity,
            "replicates": len(ticket),
            "difference": mean,
            "low": low,
            "high": high,
            "early_stop_difference": later,
            "winning": bool(sparsity > 0 and gain >= -tolerance and later <= 0),
            "certain": bool(least >= -tolerance and later <= 0),
        }
        for control in controls:
            if (level, control) not in means.index.droplevel("replicate"):
                continue
            other = means.loc[level, control]
            mean, low, high = _paired(ticket["value"], other["value"])
            row |= {
                f"{control}_difference": mean,
                f"{control}_low": low,
                f"{control}_high": high,
                f"{control}_early_stop_difference": _paired(
                    ticket["step"], other["step"]
                )[0],
                f"beats_{control}": bool(objective.gain(mean, 0) > 0),
            }
        rows.append(row)
    return pd.DataFrame(rows)


def _directed(results: "pd.DataFrame", objective: str | Objective | None) -> Objective:
    """The objective of a table of results, whose direction is known."""
    found = objective_of(results) if objective is None else named(objective)
    if found.direction is None:
        raise ValueError(
            f"Expected the direction of {found.name!r}, which its name does not tell. "
            f"Use objective=Objective({found.name!r}, 'max'), or 'min'."
        )
    return found


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
