"""Tidy tables of what a search measured, and the verdict on it."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_lottery import checks
from keras_lottery.engines.objective import Objective, named
from keras_lottery.keras_bridge import checks as keras_checks
from keras_lottery.search.margin import margin_of
from keras_lottery.search.paired import (
    ERROR,
    holm,
    interval,
    p_value,
    resolution,
    word,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["verdict"]

TABLE = "the table of LotteryTicketSearch.results()"


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
    """The table of results: one row per training, by level, variant and replicate."""
    import pandas as pd

    table = pd.DataFrame(list(rows), columns=columns(objective))
    order = ["level", "variant", "replicate", "trial"]
    return table.sort_values(order, kind="stable", ignore_index=True)


def objective_of(results: "pd.DataFrame") -> Objective:
    """The objective of a table of results.

    Its direction is set if the name implies it, as for an accuracy or a loss.

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
    on: str = "validation",
    margin: float | str = "auto",
    objective: str | Objective | None = None,
    examples: int | None = None,
) -> "pd.DataFrame":
    """Tells whether the tickets of each level match the dense network, or beat it.

    The objective is compared at the early stop, the step with the lowest validation
    loss. Differences are paired: a replicate's ticket with its dense network, or with
    the mean of those of its control's trials that did not diverge. The best ticket is
    chosen on the validation data; a verdict on the test data is reported in addition.

    Args:
        results: the table of `LotteryTicketSearch.results()`.
        on: the data to compare on: `"validation"` or `"test"`. The margin `"auto"` is
            that of the validation data in both cases.
        margin: how much worse than the dense network a ticket may be and still match
            it, in the objective's unit: for an accuracy, 0.002 is 0.2 percentage
            points. `"auto"` means, for an accuracy, 0.2 percentage points, or its
            standard error on `examples` validation examples if that is larger; for
            another objective, the standard deviation of the dense networks.
        objective: the objective of the table; needed only if its name does not imply
            the direction, as it does for an accuracy or a loss.
        examples: the number of validation examples.

    Returns:
        One row per level. Differences are in the objective's unit, ticket less dense
        network or control; the objective says whether more or less is better.
        `difference` is ticket less dense network, mean over replicates, with `low` and
        `high`, its 95 % confidence interval (Student's t; NaN for a single replicate).
        `verdict` is `"better"` if the whole interval is on the good side of zero,
        `"matching"` if it is on the good side of the `margin`, `"worse"` if it is on
        the bad side of zero, and `"undecided"` otherwise. `p` is the p-value of "worse
        by the margin or more" after Holm's correction for the number of levels, and
        `confirmed` is true if it is below 2.5 %.

        `winning` is the first paper's definition, applied to the means: fewer weights,
        at least as good (`difference`), and an early stop no later
        (`early_stop_difference`, in steps of each network's own training). For each
        control, there is ticket less control (`reinit_difference`, `reinit_low`,
        `reinit_high`, `reinit_early_stop_difference`), and `beats_reinit`: whether the
        whole interval is on the good side of zero.

    Raises:
        ValueError: if an argument is none of these, the objective's direction is not
            known, or no ticket was trained yet.

    Reference:
        Frankle & Carbin 2019, section 1 (the hypothesis, stated formally); Frankle et
        al. 2020 (matching).
    """
    import pandas as pd

    keras_checks.table("results", results, TABLE)
    part = {"validation": "val", "test": "test"}[
        checks.choice("on", on, ("validation", "test"))
    ]
    if examples is not None:
        checks.count("examples", examples, 1)
    objective = _directed(results, objective)
    column = objective.column("early_stop", part)
    needed = ("level", "variant", "replicate", "sparsity", column, "early_stop_step")
    keras_checks.table("results", results, TABLE, needed)
    margin = margin_of(results, margin, objective, examples)
    if not (results["variant"] == "ticket").any():
        raise ValueError("There are no tickets to compare: call `search` first.")
    step = resolution(results[column].to_numpy(float))
    if examples and objective.is_share and on == "validation":
        step = 1 / examples
    means = (
        own_steps(results)
        .groupby(["level", "variant", "replicate"])[
            [column, "early_stop_step", "sparsity"]
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
        gains = _gains(objective, ticket, dense)
        mean, low, high = interval(gains, step)
        later = (ticket["step"] - dense["step"]).mean()
        sparsity = ticket["sparsity"].mean()
        row = {
            "level": level,
            "sparsity": sparsity,
            "density": 1 - sparsity,
            "replicates": len(gains),
            **_as_differences(objective, mean, low, high),
            "margin": margin,
            "verdict": word(low, high, margin),
            "p": p_value(gains, margin, step),
            "early_stop_difference": later,
            "winning": bool(sparsity > 0 and mean >= 0 and later <= 0),
        }
        for control in controls:
            if (level, control) not in means.index.droplevel("replicate"):
                continue
            other = means.loc[level, control]
            mean, low, high = interval(_gains(objective, ticket, other), step)
            row |= {
                **_as_differences(objective, mean, low, high, f"{control}_"),
                f"{control}_early_stop_difference": (
                    ticket["step"] - other["step"]
                ).mean(),
                f"beats_{control}": bool(low > 0),
            }
        rows.append(row)
    table = pd.DataFrame(rows)
    if rows:
        table["p"] = holm(table["p"].to_numpy())
        table.insert(table.columns.get_loc("p") + 1, "confirmed", table["p"] < ERROR)
    return table


def _gains(
    objective: Objective, ticket: "pd.DataFrame", other: "pd.DataFrame"
) -> np.ndarray:
    """How much better the ticket is, for each replicate that has both."""
    gains = objective.gain(ticket["value"], other["value"])
    return gains.dropna().to_numpy(float)


def _as_differences(
    objective: Objective, mean: float, low: float, high: float, prefix: str = ""
) -> dict[str, float]:
    """A gain and its interval as a difference: for an error, less is better."""
    ends = sorted([objective.gain(low, 0), objective.gain(high, 0)])
    values = (objective.gain(mean, 0), *ends)
    names = ("difference", "low", "high")
    return {prefix + name: v for name, v in zip(names, values, strict=True)}


def _directed(results: "pd.DataFrame", objective: str | Objective | None) -> Objective:
    """The objective of a table of results, with its direction."""
    found = objective_of(results) if objective is None else named(objective)
    if found.direction is None:
        raise ValueError(
            f"Expected the direction of {found.name!r}, which its name does not tell. "
            f"Use objective=Objective({found.name!r}, 'max'), or 'min'."
        )
    return found


def own_steps(results: "pd.DataFrame") -> "pd.DataFrame":
    """The table with the steps of each training counted from its own start.

    Fine-tuning begins where the dense training ended, so most of the steps up to its
    early stop were not its own.

    >>> import pandas as pd
    >>> table = pd.DataFrame({"start_step": [0, 900], "early_stop_step": [500, 1000]})
    >>> own_steps(table).to_dict("list")
    {'start_step': [0, 0], 'early_stop_step': [500, 100]}
    """
    own = results["early_stop_step"] - results.get("start_step", 0)
    return results.assign(early_stop_step=own, start_step=0)


def in_words(verdict: "pd.DataFrame") -> dict[int, str]:
    """The verdict on each level, for people to read: a star stands for `confirmed`.

    >>> import pandas as pd
    >>> row = {"level": 1, "verdict": "matching", "confirmed": True}
    >>> in_words(pd.DataFrame([row | {"beats_reinit": True}]))
    {1: 'matching *, beats reinit'}
    """
    words = {}
    for row in verdict.to_dict("records"):
        # It is NaN for a control that this level lacks.
        beaten = [
            name.removeprefix("beats_")
            for name, value in row.items()
            if name.startswith("beats_") and value is True
        ]
        star = " *" if row["confirmed"] else ""
        beats = f", beats {', '.join(beaten)}" if beaten else ""
        words[int(row["level"])] = f"{row['verdict']}{star}{beats}"
    return words
