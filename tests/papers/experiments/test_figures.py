"""Figures of experiments."""

import pandas as pd
import pytest

from keras_lottery.papers.experiments.figures import heat_map, lines

pytestmark = pytest.mark.once

TABLE = pd.DataFrame(
    {
        "density": [1.0, 0.5, 1.0, 0.5],
        "step": [0, 100, 0, 100],
        "accuracy": [90.0, 80.0, 70.0, 60.0],
        "variant": ["ticket", "ticket", "reinit", "reinit"],
    }
)


def drawn(axes):
    return [container.lines[0].get_ydata().tolist() for container in axes.containers]


def test_a_line_for_each_variant():
    figure = lines(TABLE, "step", "accuracy", "accuracy (%)", "variant", x_label="k")
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("k", "accuracy (%)")
    assert drawn(axes) == [[90, 80], [70, 60]]
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["ticket", "reinit"]


def test_a_panel_for_each_variant_and_means_of_replicates():
    twice = pd.concat([TABLE, TABLE.assign(accuracy=TABLE["accuracy"] + 2)])
    figure = lines(twice, "step", "accuracy", "accuracy", panels="variant")
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == ["ticket", "reinit"]
    assert [drawn(axes) for axes in shown] == [[[91, 81]], [[71, 61]]]


def test_a_variant_looks_the_same_in_all_panels():
    parts = TABLE.assign(rate="small"), TABLE[2:].assign(rate="large")
    table = pd.concat(parts)
    small, large = lines(table, "step", "accuracy", "accuracy", "variant", "rate").axes
    looks = [
        (line.get_color(), line.get_marker())
        for line in (small.containers[1].lines[0], large.containers[0].lines[0])
    ]
    assert looks[0] == looks[1]
    assert looks[0][0] != small.containers[0].lines[0].get_color()


def test_one_measurement_each_has_no_bars_and_steps_are_whole():
    (axes,) = lines(
        TABLE.assign(step=[0, 1, 0, 1]), "step", "accuracy", "", "variant"
    ).axes
    assert not any(container.has_yerr for container in axes.containers)
    assert all(tick == round(tick) for tick in axes.get_xticks())


def test_densities_fall_from_left_to_right_in_percent():
    (axes,) = lines(TABLE, "density", "accuracy", "accuracy", "variant").axes
    left, right = axes.get_xlim()
    assert left > 100 > 50 > right
    assert axes.get_xlabel() == "% of weights left"
    assert axes.containers[0].lines[0].get_xdata().tolist() == [50, 100]


def test_a_heat_map_says_its_numbers():
    table = pd.DataFrame({"0": [1.0, 2.0], "100": [3.0, 4.0]}, index=["a", "b"])
    axes = heat_map(table, "accuracy", ("step", "layer")).axes[0]
    assert [text.get_text() for text in axes.texts] == ["1.0", "3.0", "2.0", "4.0"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert axes.get_xlabel() == "step"
    assert axes.texts[0].get_color() != axes.texts[-1].get_color()


@pytest.mark.parametrize("points", [5, 50])
def test_only_short_lines_have_marks(points):
    table = pd.DataFrame({"x": range(points), "y": range(points)})
    (axes,) = lines(table, "x", "y", "y").axes
    marker = axes.containers[0].lines[0].get_marker()
    assert (marker == "") == (points == 50)
