"""Plots the results of a search."""

import io
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_lottery import checks
from keras_lottery.files import write_atomically
from keras_lottery.keras_bridge import checks as keras_checks
from keras_lottery.search.results import TABLE, objective_of, own_steps

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_search"]

COLORS = ("#1a62d6", "#b35a00", "#c9202f", "#8a3f80", "#676775", "#6d1fc4")
"""The hues of matplotlib's "petroff6", which is made for colour-blind readers, dark
enough for thin lines on white."""
MARKERS = "osD^vPX*<>h"
KINDS = (".png", ".svg", ".pdf")
"""Suffixes of figures."""
MOST = 7
"""Up to this many lines are labelled inside the figure; more have a legend beside it.
"""


def plot_search(
    results: "pd.DataFrame", path: str | os.PathLike[str] | None = None
) -> "Figure":
    """Plots the objective and step of the early stop against the density.

    Lines are means over all replicates and trials; bars extend from the smallest to the
    largest. The early stop is the step with the lowest validation loss, counted from
    the start of the training. If `results` has no test data, the objective on the
    validation data is drawn, and the axis says so.

    Args:
        results: the table of `LotteryTicketSearch.results()`.
        path: where to write the figure, as .png, .svg or .pdf.

    Returns:
        The figure, independent of pyplot. A notebook shows it if it is a cell's last
        value.

    Raises:
        ValueError: if `results` lacks a column or has nothing to plot, or the kind of
            file is unknown.

    Reference:
        Frankle & Carbin, [The Lottery Ticket Hypothesis](
        https://arxiv.org/abs/1803.03635), 2019, Figures 3 and 4.

    Example:

    >>> import pandas as pd
    >>> results = pd.DataFrame({
    ...     "level": [0, 1], "density": [1.0, 0.8], "variant": "ticket",
    ...     "early_stop_test_accuracy": [0.97, 0.98], "early_stop_step": [900, 700],
    ... })
    >>> [axes.get_ylabel() for axes in plot_search(results).axes]
    ['test accuracy at early stop (%)', 'early stop (step)']
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import StrMethodFormatter

    keras_checks.table("results", results, TABLE)
    if path is not None:
        check_kind(path)
    objective, column = objective_of(results), objective_column(results)
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    part = "test" if column.startswith("early_stop_test_") else "validation"
    scaled = results.assign(**{column: objective.scale * results[column]})
    draw_by_density(left, scaled, column)
    left.set_ylabel(plain(f"{part} {objective.words} at early stop{objective.unit}"))
    draw_by_density(right, own_steps(results), "early_stop_step")
    right.set_ylabel("early stop (step)")
    right.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    right.set_ylim(bottom=0)
    handles, labels = left.get_legend_handles_labels()
    how: dict[str, Any] = {"fontsize": "small", "frameon": False}
    if len(labels) <= MOST:
        left.legend(**how)
    else:
        figure.set_figwidth(10.5)
        figure.legend(handles, labels, loc="outside right center", **how)
    figure.supxlabel(
        "Means of n trainings; bars from minimum to maximum. "
        "Early stop: the step of minimum validation loss.",
        fontsize="small",
        color="0.35",
    )
    if path is not None:
        write_figure(figure, path)
    # Notebooks call this method, because without pyplot they do not know figures.
    figure._repr_png_ = partial(as_png, figure)  # type: ignore[attr-defined]
    return figure


def objective_column(results: "pd.DataFrame") -> str:
    """The column of the objective at the early stop, on test data if there are any.

    Raises:
        ValueError: if the table lacks a column, or has nothing to plot.
    """
    column = objective_of(results).column
    test, validation = column("early_stop", "test"), column("early_stop", "val")
    found = test
    if validation in results and (test not in results or results[test].isna().all()):
        found = validation
    needed = ["level", "density", "variant", found, "early_stop_step"]
    missing = [name for name in needed if name not in results]
    if missing or results[found].isna().all():
        raise ValueError(
            "Expected the table of LotteryTicketSearch.results(), with an early stop. "
            f"Received: {len(results)} rows, columns {', '.join(results.columns)}"
            + (f", without {', '.join(missing)}." if missing else ".")
        )
    return found


def draw_by_density(axes: "Axes", results: "pd.DataFrame", column: str) -> None:
    """One line per variant of a column's mean, with bars of its range."""
    results = results.dropna(subset=[column])
    variants = sorted(results["variant"].unique(), key=lambda name: name != "ticket")
    for index, variant in enumerate(variants):
        levels = results[results["variant"] == variant].groupby("level")
        mean, count = levels[column].mean(), levels[column].count()
        # Means of equal values have rounding errors, but no bar may be negative.
        below = (mean - levels[column].min()).clip(lower=0)
        above = (levels[column].max() - mean).clip(lower=0)
        n = sorted({int(count.min()), int(count.max())})
        axes.errorbar(
            100 * levels["density"].mean(),
            mean,
            yerr=[below, above],
            label=f"{plain(variant)} (n = {'-'.join(map(str, n))})",
            color=COLORS[index % len(COLORS)],
            marker=MARKERS[index % len(MARKERS)],
            linestyle="-" if variant == "ticket" else "--",
            markersize=4,
            linewidth=1.4,
            capsize=2,
            elinewidth=0.8,
            zorder=3 if variant == "ticket" else 2,
        )
    dense = results[(results["level"] == 0) & (results["variant"] == "ticket")]
    if len(dense):
        axes.axhline(dense[column].mean(), color="0.2", linewidth=0.8, label="dense")
    format_density_axis(axes, sorted(100 * results["density"].unique(), reverse=True))


def plain(text: str) -> str:
    """Text for a figure, in which `$` begins no formula, without control characters.

    SVG cannot contain control characters.
    """
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return text.replace("$", r"\$")


def format_density_axis(axes: "Axes", densities: list[float]) -> None:
    """Makes the x axis logarithmic, from dense to sparse."""
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log")
    axes.set_xlabel("% of weights left")
    margin = max(densities[0] / densities[-1], 1.5) ** 0.04
    axes.set_xlim(densities[0] * margin, densities[-1] / margin)
    ticks = _ticks(densities)
    axes.set_xticks(ticks, [f"{t:.{3 if t >= 1 else 2}g}" for t in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _ticks(densities: list[float], room: int = 7) -> list[float]:
    """The densities, in falling order, that have room as ticks on a log axis.

    Both ends are always included.
    """
    first, last = densities[0], densities[-1]
    apart = 0.999 * (first / last) ** (1 / room)  # less a rounding
    ticks = [first]
    for density in densities[1:-1]:
        if ticks[-1] / density >= apart and density / last >= apart:
            ticks.append(density)
    return ticks if first == last else [*ticks, last]


def check_kind(path: str | os.PathLike[str]) -> Path:
    """Returns the path of a figure to write, or raises ValueError for other kinds."""
    return checks.path("path", path, KINDS)


def as_png(figure: "Figure") -> bytes:
    """The figure as the bytes of a .png file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return file.getvalue()


def write_figures(
    figures: Mapping[str, "Figure"], directory: str | os.PathLike
) -> None:
    """Writes each figure under its name, as .png and as .svg."""
    for name, figure in figures.items():
        for kind in (".png", ".svg"):
            write_figure(figure, Path(directory) / f"{name}{kind}")


def write_figure(figure: "Figure", path: str | os.PathLike[str]) -> None:
    """Writes a figure, whole or not at all."""
    kind = check_kind(path).suffix[1:]
    write_atomically(path, lambda file: figure.savefig(file, format=kind, dpi=150))
