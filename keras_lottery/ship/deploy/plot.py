"""Plots a table of measured files."""

import os
from typing import TYPE_CHECKING

from keras_lottery.engines.objective import ACCURACY, Objective, named
from keras_lottery.keras_bridge import checks
from keras_lottery.ship.deploy.show import short_names
from keras_lottery.study.plots import check_kind, plain, write_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def plot_files(
    table: "pd.DataFrame",
    path: str | os.PathLike[str] | None = None,
    objective: str | Objective = ACCURACY,
) -> "Figure":
    """Plots files by size and latency, coloured by accuracy if it is known.

    Bars extend from the median to the ninth decile of the latency.

    Args:
        table: what `benchmark` returned.
        path: where to write the figure, as .png, .svg or .pdf.
        objective: the metric shown by the colours, same as in `benchmark`.

    Returns:
        The figure, independent of pyplot.

    Raises:
        ValueError: if `table` lacks a column, or the kind of file is unknown.

    Example:

    >>> import pandas as pd
    >>> table = pd.DataFrame({
    ...     "file": ["dense.tflite", "sparse.tflite"], "bytes": [1e6, 1e5],
    ...     "p50_us": [20.0, 5.0], "p90_us": [21.0, 5.5], "accuracy": [0.98, 0.97],
    ... })
    >>> [axes.get_xlabel() for axes in plot_files(table).axes]
    ['bytes', '']
    """
    from matplotlib.figure import Figure

    columns = ("file", "bytes", "p50_us", "p90_us")
    checks.table("table", table, "the table of `benchmark`", columns)
    if path is not None:
        check_kind(path)
    objective = named(objective)
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.errorbar(
        table["bytes"],
        table["p50_us"],
        yerr=[0 * table["p50_us"], (table["p90_us"] - table["p50_us"]).clip(lower=0)],
        fmt="none",
        ecolor="0.7",
        elinewidth=0.8,
    )
    known = objective.metric in table
    colors = objective.scale * table[objective.metric] if known else "0.3"
    points = axes.scatter(table["bytes"], table["p50_us"], c=colors, s=36, zorder=3)
    if known:
        figure.colorbar(points, label=plain(objective.words + objective.unit))
    for name, (_, row) in zip(short_names(table), table.iterrows(), strict=True):
        axes.annotate(
            name,
            (row["bytes"], row["p50_us"]),
            xytext=(5, 3),
            textcoords="offset points",
            fontsize="x-small",
        )
    axes.set(xscale="log", yscale="log", xlabel="bytes", ylabel="latency (µs, p50)")
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if path is not None:
        write_figure(figure, path)
    return figure
