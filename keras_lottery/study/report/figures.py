"""The figures of a report, each small enough to be legible on a phone."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from keras_lottery.files import CorruptedFileError
from keras_lottery.search.results import own_steps
from keras_lottery.study import plots
from keras_lottery.study.report.content import Content, Replicate, percent
from keras_lottery.study.report.pixels import first_layer

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (3.9, 3.1)
# The colours from the first level or layer to the last.
SEQUENCE = ("#2b2f38", "#1a62d6", "#007d87", "#2e7d32", "#9a6200", "#b3261e")
MUTED = "#8c8c94"


@dataclass(frozen=True)
class Panel:
    """A figure and its text.

    Attributes:
        section: its subject: `"verdict"`, `"curves"`, `"layers"` or `"weights"`.
        name: the name of its file.
        caption: what the figure shows, and how it was measured.
        alt: the same for readers who cannot see it, with the most important numbers.
        figure: the figure.
        points: texts to show under the pointer: x, y and text, in data coordinates of
            the figure's first axes.
        replicate: the replicate that the figure shows, if it shows only one.
    """

    section: str
    name: str
    caption: str
    alt: str
    figure: "Figure"
    points: Sequence[tuple[float, float, str]] = ()
    replicate: int | None = None

    def spots(self) -> list[tuple[float, float, str]]:
        """The points as shares of the figure's width and height, from the top left.

        They are those of the last drawing, since the layout differs slightly by
        resolution.
        """
        if not self.points:
            return []
        places = np.array([point[:2] for point in self.points])
        pixels = self.figure.axes[0].transData.transform(places)
        x, y = (pixels / self.figure.bbox.size).T
        words = [text for *_, text in self.points]
        return list(zip(x.tolist(), (1 - y).tolist(), words, strict=True))


def panels(content: Content) -> Iterator[Panel]:
    """All figures for which a run has data."""
    if not content.replicates:
        return
    objective, table = content.objective, content.results
    variants = {name: table[table["variant"] == name] for name in content.variants}
    for part, column in content.parts.items():
        label = f"{part} {objective.words}{objective.unit}"
        yield by_density(variants, column, label, objective.scale)
    own = {name: own_steps(each) for name, each in variants.items()}
    yield by_density(own, "early_stop_step", "early stop (step)", 1)
    levels = sorted(variants["ticket"]["level"].unique().tolist())
    tickets = [("ticket", level) for level in spread(levels, 5)]
    caption = "The tickets of some levels"
    # The objective may be the loss itself, which then has one label.
    labels = {objective.name: objective.words + objective.unit, "val_loss": "loss"}
    for column, label in labels.items():
        yield _curves(content, tickets, column, f"validation {label}", caption)
    at = [(variant, content.shown) for variant in content.variants]
    if content.shown and len(at) > 1:
        label = f"validation {labels[objective.name]}"
        caption = f"Level {content.shown}, its controls and the dense network"
        yield _curves(content, [("ticket", 0), *at], objective.name, label, caption)
    for replicate in content.replicates:
        number = replicate.number
        yield _layers(content, replicate)
        if (found := first_layer(content, replicate)) is not None:
            name = f"first_layer_{number}"
            yield Panel("layers", name, *found, replicate=number)
        yield from _weights(content, replicate)


def spread(items: Sequence, most: int) -> list:
    """At most `most` of the items: the first, the last, and some in between.

    >>> spread(range(16), 4)
    [0, 5, 10, 15]
    """
    count = min(most, len(items))
    places = np.linspace(0, len(items) - 1, count).round().astype(int)
    return [items[place] for place in places]


def _shade(index: int, count: int) -> str:
    """The colour of the item at `index` among `count`."""
    return SEQUENCE[round(index * (len(SEQUENCE) - 1) / max(1, count - 1))]


def _new() -> tuple["Figure", "Axes"]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _legend(figure: "Figure", columns: int = 2) -> None:
    figure.legend(loc="outside upper left", ncols=columns, fontsize=9, frameon=False)


def by_density(
    tables: Mapping[str, "pd.DataFrame"], column: str, label: str, scale: int
) -> Panel:
    """Draws a column of several tables of results against the density.

    Args:
        tables: results of one variant each, by the names of their lines.
        column: the column whose means and ranges are drawn.
        label: the label of the column.
        scale: the factor by which the column is multiplied.
    """
    import pandas as pd
    from matplotlib.ticker import StrMethodFormatter

    figure, axes = _new()
    parts = [table.assign(variant=name) for name, table in tables.items()]
    table = pd.concat(parts, ignore_index=True)
    table = table.assign(**{column: scale * table[column]})
    plots.draw_by_density(axes, table, column)
    axes.set_ylabel(plots.plain(label))
    if column == "early_stop_step":
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.set_ylim(bottom=0)
    _legend(figure)
    ends, points = [], []
    for name, drawn in table.dropna(subset=[column]).groupby("variant", sort=False):
        levels = drawn.groupby("level")
        means, left = levels[column].mean(), levels["density"].mean()
        points += [
            (100 * x, y, f"{name}, {percent(x)} of the weights: {y:,.4g}")
            for x, y in zip(left, means, strict=True)
        ]
        ends.append(
            f"{name}: {means.iloc[0]:,.4g} at {percent(left.iloc[0])}, "
            f"{means.iloc[-1]:,.4g} at {percent(left.iloc[-1])}"
        )
    what = label[0].upper() + label[1:]
    at = "" if column == "early_stop_step" else "at the early stop "
    return Panel(
        "verdict",
        column.removesuffix("_step"),
        f"{what} {at}against the share of weights left. Means of n trainings; bars "
        "extend from the lowest to the highest.",
        f"Line chart: {label} {at}against the share of weights left. "
        f"{'; '.join(ends)}.",
        figure,
        points,
    )


def _mean_curve(
    content: Content, variant: str, level: int, column: str
) -> "pd.DataFrame":
    """Mean, minimum and maximum of a curve over replicates and trials, by step."""
    import pandas as pd

    curves = [
        pd.Series(curve[column], index=curve["step"], dtype=float)
        for which, curve in content.curves.items()
        # A training that diverged has no curve.
        if curve and (which.variant, which.level) == (variant, level)
    ]
    points = pd.concat(curves or [pd.Series(dtype=float)]).dropna()
    return points.groupby(level=0).agg(["mean", "min", "max"])


def _curves(
    content: Content,
    lines: Sequence[tuple[str, int]],
    column: str,
    label: str,
    caption: str,
) -> Panel:
    """Learning curves of one level's variants, or of several levels' tickets."""
    figure, axes = _new()
    by_level = len({level for _, level in lines}) == len(lines)
    palette = itertools.cycle(plots.COLORS)
    colors = dict(zip(content.variants, palette, strict=False))
    is_objective = column == content.objective.name
    scale = content.objective.scale if is_objective else 1
    late, ends = [], []
    for index, (variant, level) in enumerate(lines):
        curve = scale * _mean_curve(content, variant, level, column)
        if not len(curve):
            continue
        name = percent(content.density(level)) if by_level else plots.plain(variant)
        color = _shade(index, len(lines)) if by_level else colors[variant]
        if not by_level and not level:
            name, color = "dense", "0.2"
        dashes = "-" if by_level or variant == "ticket" else "--"
        axes.plot(
            curve.index, curve["mean"], dashes, color=color, linewidth=1.4, label=name
        )
        axes.fill_between(
            curve.index, curve["min"], curve["max"], color=color, alpha=0.12, lw=0
        )
        end = curve.index[-1]
        late.append(curve[curve.index >= end / 6])
        ends.append(f"{name}: {curve['mean'].iloc[-1]:.4g} at step {end:,}")
    rises = is_objective and content.objective.direction == "max"
    left_out = ""
    if _zoom(axes, late, upwards=rises):
        left_out = " Only the first sixth of trainings lies beyond the axis."
    axes.set_xlabel("step")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylabel(plots.plain(label))
    _legend(figure, 3)
    name = f"{column}_by_{'level' if by_level else 'variant'}"
    caption = f"{caption}: {label} while training."
    return Panel(
        "curves",
        name,
        f"{caption} Means over replicates and trials; areas extend from the lowest to "
        f"the highest.{left_out}",
        f"Line chart. {caption} At the end, {'; '.join(ends)}.",
        figure,
    )


def _zoom(axes: "Axes", late: list["pd.DataFrame"], upwards: bool) -> bool:
    """Leaves out the steep beginning, which would hide the differences after it.

    Returns:
        Whether anything is left out. The `late` parts of the curves stay visible.
    """
    if not late:
        return False
    low = min(curve["min"].min() for curve in late)
    high = max(curve["max"].max() for curve in late)
    margin = 0.08 * (high - low) or 0.01 * abs(high) or 1
    bottom, top = axes.get_ylim()
    if upwards:
        axes.set_ylim(max(bottom, low - margin), min(top, high + 3 * margin))
    else:
        axes.set_ylim(max(bottom, low - 3 * margin), min(top, high + margin))
    return axes.get_ylim() != (bottom, top)


def _layers(content: Content, replicate: Replicate) -> Panel:
    figure, axes = _new()
    levels = sorted(replicate.layers)
    names = list(replicate.layers[levels[0]])
    named = spread(names, 6)
    total = [100 * content.density(level) for level in levels]
    points = []
    for index, name in enumerate(names):
        left = np.array([100 * replicate.layers[level][name] for level in levels])
        points += [
            (x, y, f"{_short(name)}: {percent(y / 100)} of {percent(x / 100)} in all")
            for x, y in zip(total, left.tolist(), strict=True)
            if y > 0  # A logarithmic axis has no zero.
        ]
        axes.plot(
            total,
            np.where(left > 0, left, np.nan),
            color=_shade(index, len(names)),
            marker=".",
            linewidth=1.2,
            label=plots.plain(_short(name)) if name in named else None,
        )
    axes.plot(total, total, ":", color="0.2", linewidth=1, label="all layers alike")
    plots.format_density_axis(axes, sorted(set(total), reverse=True))
    axes.set_yscale("log")
    axes.set_yticks(*_percentages(*axes.get_ylim()))
    axes.minorticks_off()
    axes.set_ylabel("% of the layer's weights left")
    _legend(figure)
    last = replicate.layers[levels[-1]]
    ends = ", ".join(f"{_short(name)} {percent(last[name])}" for name in named)
    shown = "" if named == names else f" {len(named)} of {len(names)} are named."
    return Panel(
        "layers",
        f"layer_densities_{replicate.number}",
        f"Share of each layer's weights that is left, in replicate {replicate.number}."
        f"{shown}",
        "Line chart: share of each layer's weights left against that of all weights. "
        f"At level {levels[-1]}: {ends}.",
        figure,
        points,
        replicate.number,
    )


def _percentages(low: float, high: float) -> tuple[list[float], list[str]]:
    """Ticks of a log axis: 1, 2, 5, 10, …, or only powers of ten over many decades."""
    steps = (1, 2, 5) if high / low < 200 else (1,)
    values = [s * 10.0**e for e in range(-4, 3) for s in steps]
    ticks = [value for value in values if 0.99 * low <= value <= min(100, high)]
    return ticks, [f"{tick:g}" for tick in ticks]


def _short(name: str) -> str:
    """The name of a layer instead of that of its only kernel."""
    return name.removesuffix("/kernel")


def _weights(content: Content, replicate: Replicate) -> Iterator[Panel]:
    """Histograms by layer of the remaining weights, before and after training."""
    level, number = content.shown_of(replicate), replicate.number
    try:
        masks, final = (
            content.run.masks(level, number),
            content.run.trained(level, number),
        )
        initial = content.run.initial(number)
    except (CorruptedFileError, FileNotFoundError) as error:
        content.damaged.append(str(error))
        return
    for index, (name, mask) in enumerate(masks.items()):
        before = np.asarray(initial[name], "float32").ravel()
        kept = mask.ravel()
        after = np.asarray(final[name], "float32").ravel()[kept]
        survivors = before[kept]
        widest = float(np.abs(np.concatenate([before, after])).max()) or 1.0
        edges = np.linspace(-widest, widest, 62)
        figure, axes = _new()
        axes.stairs(_density(before, edges), edges, color=MUTED, alpha=0.35, fill=True)
        axes.stairs(_density(survivors, edges), edges, color=SEQUENCE[1], linewidth=1.3)
        axes.stairs(_density(after, edges), edges, color=SEQUENCE[5], linewidth=1.3)
        for patch, label in zip(
            axes.patches,
            ("all, before", "the ticket's, before", "the ticket's, trained"),
            strict=True,
        ):
            patch.set_label(label)
        axes.set_xlabel(f"weight of {plots.plain(_short(name))}")
        axes.set_ylabel("share of weights by value")
        axes.set_yticks([])
        _legend(figure)
        grown = np.abs(after).mean() / np.abs(survivors).mean() if kept.any() else 0
        text = (
            f"{_short(name)}: {kept.sum():,} of {kept.size:,} weights are left at "
            f"level {level}. Their mean magnitude is {grown:.2f} times that "
            "before training."
        )
        name = f"weights_{number}_{index:02}"
        alt = f"Histogram. Replicate {number}, {text}"
        yield Panel("weights", name, text, alt, figure, replicate=number)


def _density(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """A histogram of area 1, or of zeros if there are no values."""
    counts = np.histogram(values, edges)[0]
    return counts / max(1, counts.sum())
