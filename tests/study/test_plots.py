import itertools
from xml.etree import ElementTree

import matplotlib.pyplot
import numpy as np
import pandas as pd
import pytest

from keras_lottery.study.plots import _ticks, plain, plot_search

pytestmark = pytest.mark.once

PNG = b"\x89PNG\r\n"


def table(levels=5, replicates=3):
    rows = [
        {
            "level": level,
            "density": 0.8**level,
            "variant": variant,
            "early_stop_step": 1000 + 100 * replicate - 50 * level,
            "early_stop_val_accuracy": 0.5,
            "early_stop_test_accuracy": 0.9 + 0.01 * replicate - drop * level,
        }
        for variant, drop in [("reinit", 0.01), ("ticket", 0.0)]
        for level in range(variant == "reinit", levels + 1)
        for replicate in range(replicates)
    ]
    return pd.DataFrame(rows)


def line(axes, variant):
    """The container that errorbar draws."""
    return next(c for c in axes.containers if c.get_label().startswith(variant))


def test_lines_are_means_and_bars_are_ranges():
    left, right = plot_search(table()).axes
    ticket, _, (bars,) = line(left, "ticket")
    np.testing.assert_allclose(ticket.get_xdata(orig=False), 100 * 0.8 ** np.arange(6))
    np.testing.assert_allclose(ticket.get_ydata(orig=False), 91)
    np.testing.assert_allclose(bars.get_segments()[0][:, 1], [90, 92])
    reinit = line(left, "reinit")[0]
    np.testing.assert_allclose(reinit.get_ydata(orig=False), 91 - np.arange(1, 6))
    steps = line(right, "ticket")[0]
    np.testing.assert_allclose(steps.get_ydata(orig=False), 1100 - 50 * np.arange(6))


def test_early_stops_count_from_where_a_training_began():
    tuned = table().assign(start_step=lambda t: 500 * (t["level"] > 0))
    _, right = plot_search(tuned).axes
    steps = line(right, "ticket")[0].get_ydata(orig=False)
    np.testing.assert_allclose(steps, [1100, *(600 - 50 * np.arange(1, 6))])


def test_equal_replicates_have_no_bars():
    results = table().assign(early_stop_test_accuracy=0.977)
    left, _ = plot_search(results).axes
    for low, high in line(left, "ticket")[2][0].get_segments():
        np.testing.assert_allclose(low, high)


def test_ticket_is_solid_and_first_controls_are_dashed():
    left, _ = plot_search(table()).axes
    assert line(left, "ticket")[0].get_linestyle() == "-"
    assert line(left, "reinit")[0].get_linestyle() == "--"
    assert left.containers[0] is line(left, "ticket")


def test_dense_line_is_the_mean_of_level_zero():
    for axes, expected in zip(plot_search(table()).axes, (91, 1100), strict=True):
        dense = next(x for x in axes.lines if x.get_label() == "dense")
        np.testing.assert_allclose(dense.get_ydata(orig=False), expected)


def test_axis_is_logarithmic_from_dense_to_sparse():
    for axes in plot_search(table()).axes:
        start, end = axes.get_xlim()
        assert axes.get_xscale() == "log"
        assert start > 100 > 100 * 0.8**5 > end


def test_legend_counts_the_trainings():
    results = table()
    results = results.drop(results.index[-1])  # one replicate of the last level
    labels = [c.get_label() for c in plot_search(results).axes[0].containers]
    assert labels == ["ticket (n = 2-3)", "reinit (n = 3)"]


def test_many_lines_have_their_names_beside_the_figure():
    few = plot_search(table())
    assert few.axes[0].get_legend() and not few.legends
    others = [table().assign(variant=f"control_{n}") for n in range(6)]
    many = plot_search(pd.concat([table(), *others]))
    assert many.axes[0].get_legend() is None
    (legend,) = many.legends
    assert len(legend.get_texts()) == 9  # with the dense network
    many.draw_without_rendering()
    assert legend.get_window_extent().x0 >= many.axes[1].get_window_extent().x1


def test_names_are_no_formulas():
    figure = plot_search(table().replace("reinit", "$x^^$"))
    figure.draw_without_rendering()
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert r"\$x^^\$ (n = 3)" in labels


def test_files_have_no_control_characters(tmp_path):
    """XML cannot hold them."""
    plot_search(table().replace("reinit", "a\x01b"), tmp_path / "figure.svg")
    ElementTree.parse(tmp_path / "figure.svg")
    assert plain("a\x01b $\ud800") == "a�b \\$�"


def test_unfinished_trainings_are_left_out():
    results = table()
    last = (results["level"] == 5) & (results["variant"] == "reinit")
    results.loc[last, ["early_stop_test_accuracy", "early_stop_step"]] = np.nan
    left, _ = plot_search(results).axes
    assert len(line(left, "reinit")[0].get_xdata(orig=False)) == 4


@pytest.mark.parametrize("blank", [True, False])
def test_without_test_data_the_axis_says_validation(blank):
    results = table().drop(columns="early_stop_test_accuracy")
    if blank:
        results["early_stop_test_accuracy"] = np.nan
    left, _ = plot_search(results).axes
    assert left.get_ylabel() == "validation accuracy at early stop (%)"
    np.testing.assert_allclose(line(left, "ticket")[0].get_ydata(orig=False), 50)


@pytest.mark.parametrize("levels", [0, 1, 6, 15, 40])
def test_tick_labels_do_not_overlap(levels):
    figure = plot_search(table(levels, replicates=1))
    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = [t.get_window_extent() for t in axes.get_xticklabels()]
        assert len(boxes) >= min(levels + 1, 5)
        for one, other in itertools.pairwise(boxes):
            assert one.x1 < other.x0
        assert not axes.get_xminorticklabels()


def test_ticks_keep_both_ends():
    densities = [100 * 0.8**level for level in range(16)]
    ticks = _ticks(densities)
    assert _ticks(densities[:8]) == densities[:8]
    assert (ticks[0], ticks[-1]) == (densities[0], densities[-1])
    assert 6 <= len(ticks) <= 9
    assert _ticks([100.0]) == [100.0]


@pytest.mark.parametrize(
    ("suffix", "start"), [("png", PNG), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
def test_file_is_written_by_its_suffix(tmp_path, suffix, start):
    path = tmp_path / "new" / f"figure.{suffix}"
    plot_search(table(), path)
    assert path.read_bytes().startswith(start)
    assert list(path.parent.iterdir()) == [path]


def test_failed_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "figure.png"
    old = b"\x89PNG\r\n\x1a\nold"
    path.write_bytes(old)

    def fail(self, file, **kwargs):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(OSError, match="No space left"):
        plot_search(table(), path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_unknown_kind_of_file_is_refused_with_the_choices(tmp_path):
    with pytest.raises(ValueError, match=r"\.png, \.svg, \.pdf.*figure\.xyz"):
        plot_search(table(), tmp_path / "figure.xyz")


def test_missing_columns_are_named():
    results = table().drop(columns=["density", "early_stop_step"])
    with pytest.raises(ValueError, match="without density, early_stop_step"):
        plot_search(results)


def test_nothing_to_plot_is_refused():
    with pytest.raises(ValueError, match="Received: 0 rows"):
        plot_search(table().iloc[:0])


def test_settings_and_figures_of_the_caller_are_left_alone():
    before = dict(matplotlib.rcParams)
    plot_search(table())
    assert dict(matplotlib.rcParams) == before


def test_a_notebook_shows_the_figure_once():
    """By this method where it knows no figures; pyplot does not know this one."""
    figure = plot_search(table())
    assert figure._repr_png_().startswith(PNG)
    assert not matplotlib.pyplot.get_fignums()
