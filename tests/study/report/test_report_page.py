"""The page of a run: whole, escaped, legible in both modes, of any search."""

import base64
import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_lottery as kl
from keras_lottery.files import read_sealed, write_sealed
from keras_lottery.keras_bridge import architecture
from keras_lottery.search import results
from keras_lottery.study.report import figures, pixels, tables, write, write_report
from keras_lottery.study.report.content import read_content
from keras_lottery.study.report.figures import MUTED, SEQUENCE

pytestmark = pytest.mark.once

rng = np.random.default_rng(0)
SVG = "data:image/svg+xml;base64,"
FRAME = Path(kl.__file__).parent / "study/report/frame.html"
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """What a page holds; fails where a tag does not close what is open."""

    def __init__(self, path):
        super().__init__()
        self.open, self.tags, self.text, self.classes = [], [], [], []
        self.source = Path(path).read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(set(names)) == len(names), (tag, names)
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "title"):
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())

    @property
    def drawings(self):
        """The figures, as SVG."""
        sources = [figure["src"] for figure in self.all("img")]
        assert all(source.startswith(SVG) for source in sources)
        return [base64.b64decode(source[len(SVG) :]).decode() for source in sources]

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def compile(*layers):
    model = keras.Sequential(layers)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def search(directory, model, shape, test=True, **arguments):
    x = rng.random((48, *shape), dtype="float32")
    y = rng.integers(0, 3, 48)
    found = kl.LotteryTicketSearch(
        model, **({"directory": directory, "workers": 0, "engine": "fused"} | arguments)
    )
    test_data = (x[36:], y[36:]) if test else None
    found.search(
        *(x[:24], y[:24]),
        validation_data=(x[24:36], y[24:36]),
        test_data=test_data,
        batch_size=12,
        epochs=3,
        verbose=0,
    )
    return directory


NAMES = {"hidden": "hid>den", "control": "my_reinit"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Dense layers over images, with names that a page has to escape."""
    directory = tmp_path_factory.mktemp("runs") / "<b>&amp;'run'"
    dense = keras.layers.Dense
    model = compile(
        keras.Input((6, 5)),
        keras.layers.Flatten(),
        dense(8, "relu", name=NAMES["hidden"]),
        dense(3, "softmax", name="output"),
    )
    return search(
        directory,
        model,
        (6, 5),
        schedule=[0.5, 0.8],
        replicates=2,
        controls={NAMES["control"]: (kl.controls.reinit, 1), "shuffle": 2},
    )


@pytest.fixture
def copy(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture(scope="module")
def folder(finished, tmp_path_factory):
    """The page and the files of its figures, written where no model can be built."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(keras.layers.Layer, "__init__")
        patch.delattr(architecture, "from_text")
        write_report(finished, folder / "page.html", folder / "figures")
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return Page(folder / "page.html")


@pytest.fixture
def no_figures(monkeypatch):
    """Leaves out what takes the most time."""
    monkeypatch.setattr(write, "panels", lambda content: [])


def test_the_page_has_every_section(page):
    assert [tag for tag, _ in page.tags].count("h1") == 1
    for title in (
        *(
            "Does the ticket match the dense network?",
            "Learning curves",
            "What is left",
            "Weights",
        ),
        *("Settings", "Trainings"),
    ):
        assert title in page.words
    # Three by density, three of curves; for each replicate two, and one a layer.
    assert len(page.all("img")) == 6 + 2 * (2 + 2)


def test_the_page_needs_no_other_file(page):
    assert not re.search(r"(https?:)?//|@import|<script", page.source)
    for tag, attributes in page.tags:
        for name in ("href", "src"):
            if name in attributes:
                assert attributes[name].startswith(("data:", "#")), tag
    policy = next(a for a in page.all("meta") if "http-equiv" in a)
    assert policy["content"].startswith("default-src 'none'")


def test_names_are_escaped(page, finished):
    assert finished.name in page.words
    assert NAMES["hidden"] in page.words
    assert NAMES["control"] in page.words
    assert not page.all("b")


def test_settings_are_escaped(copy, no_figures):
    path = copy / "settings.json"
    text = '<script>"&'
    write_sealed(path, read_sealed(path) | {"callbacks": [text]})
    page = Page(write_report(copy))
    assert text in page.words
    assert not page.all("script")


def test_settings_that_are_one_are_told():
    layer = {"class": "Conv2D", "groups": 1, "scale": 1.0, "use_bias": False}
    told = list(tables._layer({**layer, "trainable": True, "dtype": "float32"}))
    assert told == ["Conv2D", "groups 1", "scale 1.0", "use_bias False"]


def test_figures_and_tables_speak(page):
    for figure in page.all("img"):
        assert len(figure["alt"]) > 40
    parts = [tag for tag, _ in page.tags if tag in ("table", "caption")]
    assert parts == ["table", "caption"] * (len(parts) // 2)
    assert {a["scope"] for a in page.all("th")} == {"row", "col"}
    regions = [a for a in page.all("div") if a.get("class") == "scroll"]
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in regions)


def test_values_are_told_where_their_markers_are(page, finished):
    """Of the two charts by density and that of layers: each mean, at its place."""
    drawings = dict(
        zip((f["alt"] for f in page.all("img")), page.drawings, strict=True)
    )
    spots, drawing = {}, ""
    for tag, attributes in page.tags:
        if tag == "img":
            drawing = drawings[attributes["alt"]]
        elif "data-words" in attributes:
            place = re.fullmatch(r"left:(.*)%;top:(.*)%", attributes["style"])
            spots.setdefault(drawing, []).append((place, attributes["data-words"]))
    assert [len(each) for each in spots.values()] == [7, 7, 7, 6, 6]
    for drawing, several in spots.items():
        size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawing)
        markers = re.findall(r'<use [^>]*x="([\d.-]+)" y="([\d.-]+)"', drawing)
        shares = np.array(markers, float) / np.array([size[1], size[2]], float)
        for place, words in several:
            away = np.abs(shares - np.array([place[1], place[2]], float) / 100)
            assert away.max(axis=1).min() < 2e-3, words
    content = read_content(finished)
    means = content.results.groupby(["level", "variant"])["early_stop_test_accuracy"]
    told = [words for several in spots.values() for _, words in several]
    for (_, variant), accuracies in means:
        end = f"of the weights: {100 * accuracies.mean():.4g}"
        assert any(w.startswith(variant) and w.endswith(end) for w in told), end


def test_the_numbers_are_those_of_the_results(page, finished):
    content = read_content(finished)
    assert not content.missing
    assert len(content.results) == 2 * (1 + 2 * (1 + 1 + 2))
    for row in content.results.to_dict("records"):
        assert f"{100 * row['early_stop_test_accuracy']:.2f} %" in page.words
        assert f"{row['final_val_loss']:,.4g}" in page.words
    means = content.results.groupby(["level", "variant"])["early_stop_test_accuracy"]
    for _, accuracies in means:
        mean = f"{100 * accuracies.mean():.2f} ± {100 * accuracies.std():.2f} %"
        assert mean in page.words
    assert [replicate.number for replicate in content.replicates] == [
        content.best.replicate,
        1 - content.best.replicate,
    ]
    for replicate in content.replicates:
        layers = replicate.layers
        assert layers[2]["output/kernel"] != layers[1]["output/kernel"]
        for densities in layers.values():
            for density in densities.values():
                assert f"{100 * density:.2f} %" in page.words
    for version in json.loads((finished / "settings.json").read_text())["versions"]:
        assert f"versions.{version}" in page.words


def test_trainings_on_other_versions_are_counted(copy, monkeypatch):
    began = json.loads((copy / "settings.json").read_text())["versions"]
    other = {**began, "keras": "3.12.4"}
    read = kl.Run.trainings

    def trainings(run, damaged=None):
        found = read(run, damaged)
        two = list(found)[1:3]
        return {
            u: {**t, "versions": other} if u in two else t for u, t in found.items()
        }

    monkeypatch.setattr(kl.Run, "trainings", trainings)
    content = read_content(copy)
    assert content.versions == {"keras 3.12.4": 2}
    rows = tables.settings_table(content).rows
    assert ["versions of 2 trainings", "keras 3.12.4"] in rows


def test_the_first_layer_shows_what_is_seen(page, finished):
    content = read_content(finished)
    assert "".join(page.drawings).count("<image") == 2 * 3
    for replicate in content.replicates:
        assert pixels._image_shape(content, replicate) == (6, 5, 1)
        seen = replicate.first[2].any(axis=1).sum()
        assert f"Replicate\xa0{replicate.number}. By level: " in page.source
        assert f"level 2: {seen} of 30" in page.source


def test_one_replicate_of_several_can_be_chosen(page, finished):
    best = read_content(finished).best
    choices = [a for a in page.all("input") if a["type"] == "radio"]
    assert [choice["id"] for choice in choices] == ["replicate-0", "replicate-1"]
    assert len({choice["name"] for choice in choices}) == 1
    chosen = [choice["id"] for choice in choices if "checked" in choice]
    assert chosen == [f"replicate-{best.replicate}"]
    assert [tag for tag, _ in page.tags].count("label") == 2
    assert "Show replicate 0 1" in page.words
    # Each has its masks and its weights.
    parts = [a.get("class") for a in page.all("div")]
    assert [parts.count(f"replicate-{number}") for number in (0, 1)] == [2, 2]


def test_a_page_shows_some_of_many_replicates(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_lottery.study.report.content.MOST", 1)
    monkeypatch.setattr(write, "panels", lambda content: [])
    content = read_content(finished)
    assert [r.number for r in content.replicates] == [content.best.replicate]
    page = Page(write_report(finished, tmp_path / "page.html"))
    assert not page.all("input")  # there is nothing to choose


def colors(media):
    style = FRAME.read_text(encoding="utf-8")
    block = style.split("(prefers-color-scheme: dark)")[media == "dark"]
    block = block.split("@media print")[0]
    found = re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)
    return dict(found)


def luminance(color):
    channels = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [
        c / 12.92 if c <= 0.04 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    ]
    return np.dot(linear, [0.2126, 0.7152, 0.0722])


def contrast(one, other):
    pair = sorted([luminance(one), luminance(other)])
    return (pair[1] + 0.05) / (pair[0] + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_texts_contrast(mode):
    palette = colors(mode)
    for name in ("ink", "quiet", "link", "good"):
        assert contrast(palette[name], palette["paper"]) >= 4.5, name


@pytest.mark.parametrize("color", [*kl.plots.COLORS, *SEQUENCE, MUTED])
def test_lines_contrast(color):
    assert contrast(color, "#ffffff") >= 3


def test_figures_become_files(folder):
    written = {path.name for path in (folder / "figures").iterdir()}
    assert {
        "early_stop_val_accuracy.png",
        "early_stop.svg",
        "first_layer_0.png",
        "weights_1_01.svg",
    } <= written
    assert len(written) == 2 * 14


def test_an_unfinished_search_is_reported_as_such(copy, no_figures):
    shutil.rmtree(copy / "replicate_1")
    (copy / "replicate_0" / "level_02" / "ticket_0.safetensors").unlink()
    page = Page(write_report(copy))
    assert page.source == (copy / "report.html").read_text()
    assert "not finished: 10 of 18 trainings are missing: " in page.words
    assert "Does the ticket match" in page.words


@pytest.mark.parametrize("left", ["dense", "nothing"])
def test_a_search_that_has_just_begun_is_reported(copy, left):
    for path in copy.glob("replicate_*/level_*/*.safetensors"):
        if left == "nothing" or path.parent.name != "level_00":
            path.unlink()
    page = Page(write_report(copy))
    assert "not finished" in page.words
    assert bool(page.all("img")) == (left == "dense")


@pytest.mark.parametrize("level", ["level_00", "level_02"])
def test_damaged_files_are_left_out_and_named(copy, level, no_figures):
    path = copy / "replicate_0" / level / "ticket_0.safetensors"
    path.write_bytes(path.read_bytes()[:-200])
    page = Page(write_report(copy))
    assert f"{level}/ticket_0.safetensors' is damaged" in page.words


def test_exports_are_listed_as_measured(copy, no_figures):
    export = {"format": "litert", "path": "a<b.tflite", "bytes": 1234, "notes": []}
    export |= {"gzip_bytes": 600, "dense_bytes": 4936, "max_difference": 1e-7}
    export |= {"accuracy": 0.875, "keras_accuracy": None}
    reports = {"level": 1, "density": 0.5, "exports": [export]}
    write_sealed(copy / "reports.json", reports)
    page = Page(write_report(copy))
    for words in ("a<b.tflite", "1,234", "25.00 %", "87.50 %", "Exports"):
        assert words in page.words


def test_convolutions_one_replicate_and_no_test_data(tmp_path):
    model = compile(
        keras.Input((6, 6, 2)),
        keras.layers.Conv2D(5, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(3, "softmax"),
    )
    arguments = {"schedule": [0.5], "controls": {}, "test": False}
    page = Page(write_report(search(tmp_path, model, (6, 6, 2), **arguments)))
    assert "Validation accuracy" in page.words
    assert "of 5 filters" in page.source or "The filters of conv2d" in page.words
    assert "".join(page.drawings).count("<image") == 2
    assert len(set(page.drawings)) == len(page.drawings)  # no figure twice
    assert "its controls" not in page.words


def test_page_table_tiles_and_run_name_one_ticket(page, finished):
    content = read_content(finished)
    best = content.run.best()
    assert content.best == best
    assert str(best) in page.words
    assert content.verdict.equals(content.run.verdict())
    title, density, what = next(write._tiles(content))
    assert title == ("Sparsest ticket that matches" if best.matches else "Best guess")
    assert density == f"{100 * best.density:.2f} %"
    assert f"level {best.level} of 2" in what
    assert content.objective.amount(best.margin) in what


def test_the_tiles_have_intervals(finished):
    content = read_content(finished)
    test = content.run.verdict("test").set_index("level").loc[content.best.level]
    tiles = {what: (figure, more) for what, figure, more in write._tiles(content)}
    for part, row in (("validation", vars(content.best)), ("test", test)):
        figure, more = tiles[f"Its {part} accuracy"]
        assert figure == content.objective.signed(row["difference"])
        assert content.objective.signed(row["high"]) in more and "n = 2" in more


def test_the_table_by_level_tells_what_its_words_mean(finished):
    content = read_content(finished)
    table = tables.verdict_table(content.results, content.verdict, content.objective)
    margin = content.objective.amount(content.best.margin)
    for words in ("paired by replicate", "Holm's correction for 2 levels", "shuffle: "):
        assert words in table.caption
    assert content.objective.signed(-content.best.margin) in table.caption, margin
    # The scientific columns come first.
    assert table.header[2:5] == [
        "verdict",
        "ticket minus dense (pp)",
        "95 % interval (pp)",
    ]
    assert [row[2] for row in table.rows[1:]] == [
        results.in_words(content.verdict)[level] for level in (1, 2)
    ]


def test_the_page_says_when_and_by_which_command(copy, no_figures):
    page = Page(write_report(copy))
    assert re.search(r"Trained by \d{4}-\d\d-\d\d \d\d:\d\d UTC", page.words)
    assert not page.all("code")
    command = "keras-lottery find --seed 7"
    write_sealed(copy / "run.json", {"data": "digits", "command": command})
    assert command in Page(write_report(copy)).words


def test_the_settings_are_folded(page):
    after = page.source.partition("<h2>Settings</h2>")[2]
    assert after.lstrip().startswith("<details>")
    assert re.search(r"All \d+ settings", page.words)


@pytest.mark.parametrize("beyond", [False, True])
def test_a_caption_says_what_is_beyond_the_axis(finished, beyond):
    content = read_content(finished)
    steps = list(range(1, 13))
    losses = [5.0 if beyond else 0.5, *[0.5] * 10, 0.4]
    wide = {"step": steps, "val_loss": [2.0 * x for x in losses]}
    curves = {
        which: {**wide, "val_loss": losses} if which.replicate else wide
        for which in content.curves
    }
    content = dataclasses.replace(content, curves=curves)
    panel = figures._curves(content, [("ticket", 1)], "val_loss", "loss", "One")
    low, high = panel.figure.axes[0].get_ylim()
    # All of the band but the first sixth lies inside.
    assert low <= 0.4 and high >= 1.0
    assert ("beyond the axis" in panel.caption) == beyond
    assert (high < 10) or not beyond


def test_early_stops_count_from_where_a_training_began(finished):
    content = read_content(finished)
    is_ticket = content.results["level"] > 0
    table = content.results.assign(early_stop_step=7777, start_step=7000 * is_ticket)
    content = dataclasses.replace(content, results=table)
    text = str(
        tables.verdict_table(content.results, content.verdict, content.objective)
    )
    assert "7,777" in text  # the dense network's
    assert text.count("777") > text.count("7,777")
    # So does the figure.
    own = results.own_steps(content.results)
    own = {name: own[own["variant"] == name] for name in content.variants}
    panel = figures.by_density(own, "early_stop_step", "early stop", 1)
    ticket, *_ = panel.figure.axes[0].containers
    assert list(ticket.lines[0].get_ydata()) == [7777, 777, 777]


def test_inputs_without_pixels_are_not_drawn(finished):
    content = read_content(finished)
    settings = content.settings | {"train": ["(24, 30) float32", "(24,) int64"]}
    content = dataclasses.replace(content, settings=settings)
    assert pixels.first_layer(content, content.replicates[0]) is None


def test_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)Received: '.*keras-lottery find"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()
