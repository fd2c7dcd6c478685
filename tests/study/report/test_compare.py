"""Several runs on one page."""

import shutil
import subprocess

import keras
import numpy as np
import pytest

import keras_lottery as kl
from keras_lottery.study.report import compare_runs, write_report
from keras_lottery.study.report.content import read_content
from keras_lottery.study.report.write import headline
from tests.study.report.test_report_page import Page, compile, search

pytestmark = pytest.mark.once

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def network():
    return compile(keras.Input((5,)), keras.layers.Dense(3, "softmax", name="output"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    model = network()
    return [
        search(folder / "<one>", model, (5,), schedule=[0.5], controls=None),
        search(
            folder / "two",
            model,
            (5,),
            schedule=[0.4, 0.8],
            criterion="random",
            controls=["reinit"],
        ),
    ]


def test_the_page_has_both_runs_and_what_differs(runs, tmp_path):
    path = compare_runs(runs, tmp_path / "page.html", tmp_path / "figures")
    page = Page(path)
    assert "2 searches for winning tickets" in page.words
    for name in ("<one>", "two"):
        assert name in page.words
    # Settings that differ are there, others are not.
    assert "criterion magnitude random" in page.words
    assert "rewind_to" not in page.words
    # Three levels of tickets and two dense networks.
    levels = page.words.partition("Level by level")[2]
    assert levels.count("<one>") == 2 and levels.count("two") == 3
    drawn = "".join(page.drawings)
    assert "two (n = 1)" in drawn and "&lt;one&gt; (n = 1)" in drawn
    assert "reinit" not in drawn
    assert len(list((tmp_path / "figures").glob("*.svg"))) == len(page.drawings) == 3


def test_runs_of_one_name_are_told_by_their_folders(runs, tmp_path):
    shutil.copytree(runs[1], tmp_path / "a" / "run")
    shutil.copytree(runs[1], tmp_path / "b" / "run")
    page = compare_runs([tmp_path / "a/run", tmp_path / "b/run"], tmp_path / "c.html")
    assert "All their settings are the same" in Page(page).words
    assert "a/run" in Page(page).words and "b/run" in Page(page).words


def test_what_cannot_be_compared_is_refused(runs, tmp_path):
    with pytest.raises(ValueError, match="at least two"):
        compare_runs(runs[:1], tmp_path / "page.html")
    with pytest.raises(ValueError, match="directories of searches"):
        compare_runs([runs[0], 1], tmp_path / "page.html")
    with pytest.raises(ValueError, match="each run once"):
        compare_runs([runs[0], runs[0]], tmp_path / "page.html")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        compare_runs([runs[0], tmp_path / "nowhere"], tmp_path / "page.html")
    loss = search(
        tmp_path / "loss", network(), (5,), schedule=[0.5], objective="val_loss"
    )
    with pytest.raises(ValueError, match=r"one objective.*val_loss"):
        compare_runs([runs[0], loss], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def results_of(difference, stops):
    """Three replicates whose tickets are so much better, and stop at such steps."""
    rows = []
    for replicate in range(3):
        for level, (gain, stop) in enumerate(zip((0, difference), stops, strict=True)):
            value = 0.9 + gain + 0.001 * replicate * (level + 1)
            rows.append(
                {
                    "level": level,
                    "density": 1.0 - 0.93 * level,
                    "sparsity": 0.93 * level,
                    "variant": "ticket",
                    "replicate": replicate,
                    "early_stop_val_accuracy": value,
                    "early_stop_test_accuracy": np.nan,
                    "early_stop_step": stop,
                    "start_step": 0,
                }
            )
    return rows


@pytest.mark.parametrize(
    ("difference", "stops", "words"),
    [
        (0.02, (100, 60), "more accurate than the dense one and stops training 40 %"),
        (0.0, (100, 98), "With 7 % of its weights the network is as accurate as the"),
        (0.0, (100, 120), "as accurate as the dense one and trains 20 % longer"),
        (-0.05, (100, 100), "No ticket is shown to match the dense network"),
    ],
)
def test_the_headline_says_what_was_found(runs, difference, stops, words):
    import dataclasses

    import pandas as pd

    from keras_lottery.search.best import best_of

    content = read_content(runs[0])
    table = pd.DataFrame(results_of(difference, stops))
    terms = {"margin": 0.01}
    verdict = kl.results.verdict(table, **terms)
    best = best_of(table, **terms)
    content = dataclasses.replace(content, results=table, verdict=verdict, best=best)
    assert words in headline(content)


def test_nothing_to_compare_is_said(runs):
    import dataclasses

    content = dataclasses.replace(read_content(runs[0]), best=None)
    assert headline(content) == "Nothing to compare yet"


def browse(page, *options):
    subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu"),
            *("--hide-scrollbars", *options, page.as_uri()),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )


def screenshot(page, width, height):
    from matplotlib.image import imread

    picture = page.with_suffix(".png")
    browse(page, f"--window-size={width},{height}", f"--screenshot={picture}")
    return imread(picture)[..., :3]


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")
@pytest.mark.parametrize("width", [1400, 500])
def test_a_browser_draws_both_pages_within_their_width(runs, width, tmp_path):
    pages = [
        write_report(runs[1], tmp_path / "report.html"),
        compare_runs(runs, tmp_path / "comparison.html"),
    ]
    for page in pages:
        pixels = screenshot(page, width, 2000)
        assert pixels.shape[1] == width
        # Text and figures are there, and nothing reaches to the edges.
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
        assert (pixels[:, [0, -1]] == pixels[0, 0]).all()


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")
def test_a_browser_shows_the_chosen_replicate_and_prints_all(tmp_path):
    arguments = {"schedule": [0.5], "controls": None, "replicates": 2}
    page = write_report(search(tmp_path / "run", network(), (5,), **arguments))
    text = page.read_text("utf-8")
    whole = tmp_path / "whole.html"
    whole.write_text(text.replace(".replicate-", ".no-"), "utf-8")

    def height(page):
        """The last row of pixels that is not blank."""
        pixels = screenshot(page, 1000, 6000)
        return np.flatnonzero((pixels != pixels[0, 0]).any(axis=(1, 2)))[-1]

    assert height(page) < height(whole)
    browse(page, f"--print-to-pdf={tmp_path / 'page.pdf'}")
    printed = (tmp_path / "page.pdf").read_bytes()
    # The figures' alternative texts are in the file, in UTF-16.
    for number in (0, 1):
        words = f"Replicate\xa0{number}, output: ".encode("utf-16-be")
        assert words.hex().upper().encode() in printed
