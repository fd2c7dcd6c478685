"""Figures of an experiment's measurements, in addition to those of searches."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_lottery.study import plots

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FEW = 20
"""The largest number of points of a line that have marks."""
MANY = 8
"""The largest number of lines whose legend is inside the axes."""


def lines(
    table: "pd.DataFrame",
    x: str,
    y: str,
    label: str,
    by: str | None = None,
    panels: str | None = None,
    x_label: str | None = None,
    same_scale: bool = True,
) -> "Figure":
    """Plots means against x, with bars from the smallest to the largest value.

    Args:
        table: one row per measurement.
        x, y: the columns of the axes. The `density` is drawn from dense to sparse, in %
            on a log axis.
        label: the label of the y axis.
        by: the column whose values have a line each.
        panels: the column whose values have a panel each.
        x_label: the label of the x axis; the column's name by default.
        same_scale: whether all panels have the same y axis.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if x == "density":
        table = table.assign(density=100 * table["density"])
    looks = [""] if by is None else list(table[by].unique())
    parts = [("", table)] if panels is None else list(table.groupby(panels, sort=False))
    columns = min(len(parts), 3)
    rows = -(-len(parts) // columns)
    is_long = columns == 1 and len(looks) > MANY
    width = 5.2 + 2 * is_long if columns == 1 else 4 * columns
    figure = Figure(figsize=(width, 3.4 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=same_scale)
    for axes in grid.flat[len(parts) :]:
        axes.set_visible(False)
    for axes, (title, part) in zip(grid.flat, parts, strict=False):
        kinds = [("", part)] if by is None else list(part.groupby(by, sort=False))
        for kind, rows_ in kinds:
            # A line looks the same in all panels.
            index = looks.index(kind)
            values = rows_.groupby(x)[y]
            mean = values.mean()
            bars = [
                (mean - values.min()).clip(lower=0),
                (values.max() - mean).clip(lower=0),
            ]
            axes.errorbar(
                mean.index,
                mean,
                yerr=bars if values.size().max() > 1 else None,
                label=str(kind) or None,
                color=plots.COLORS[index % len(plots.COLORS)],
                marker=plots.MARKERS[index % len(plots.MARKERS)]
                if len(mean) <= FEW
                else "",
                markersize=4,
                linewidth=1.4,
                capsize=2,
                elinewidth=0.8,
            )
        axes.set_title(str(title), fontsize="small")
        axes.grid(axis="y", color="0.9", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel(x_label or x)
        if table[x].dtype.kind == "i":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if x == "density":
            densities = table[x].round(6).unique()
            plots.format_density_axis(axes, sorted(densities, reverse=True))
        if by is not None:
            beside = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if is_long else {}
            axes.legend(title=by, fontsize="x-small", frameon=False, **beside)
    grid[0, 0].set_ylabel(label)
    return figure


def heat_map(
    table: "pd.DataFrame",
    title: str,
    labels: Sequence[str] = ("", ""),
    digits: int = 1,
) -> "Figure":
    """Plots a table of numbers as colours, with each number written into its cell.

    Args:
        table: the numbers, with names of rows and columns.
        title: says what the numbers are.
        labels: those of the columns and of the rows.
        digits: the number of decimals.
    """
    from matplotlib.figure import Figure

    size = (1.6 + 0.8 * table.shape[1], 1.2 + 0.5 * table.shape[0])
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    values = table.to_numpy(float)
    image = axes.imshow(values, cmap="viridis", aspect="auto")
    middle = (values.min() + values.max()) / 2
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            axes.text(
                column,
                row,
                f"{values[row, column]:.{digits}f}",
                ha="center",
                va="center",
                fontsize="small",
                color="white" if values[row, column] < middle else "black",
            )
    axes.set_xticks(range(table.shape[1]), [str(name) for name in table.columns])
    axes.set_yticks(range(table.shape[0]), [str(name) for name in table.index])
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.set_title(title, fontsize="small")
    figure.colorbar(image)
    return figure
