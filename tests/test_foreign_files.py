"""Files that the library did not write are never overwritten."""

from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

import keras_lottery as kl
from keras_lottery import checks, cli
from keras_lottery.files import write_sealed
from keras_lottery.papers.experiments.reproduce import README, _occupy
from keras_lottery.search.store import Store, TrainingId
from keras_lottery.ship.export import micro
from keras_lottery.study.report import write

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def model():
    layers = [keras.Input((4,)), keras.layers.Dense(3, name="output")]
    model = kl.mask_model(keras.Sequential(layers))
    kl.prune(model, 0.5)
    return model


def writers(model):
    """What writes a file, by its suffix."""
    ticket = kl.Ticket(kl.get_masks(model), kl.get_state(model))
    columns = {"bytes": [1], "gzip_bytes": [1], "p50_us": [1.0], "p90_us": [1.0]}
    table = pd.DataFrame({"file": ["a"], "format": ["litert"], **columns})
    page = Path(write.__file__).with_name("frame.html").read_text()
    report = micro.MicroReport(Path("net.c"), "net", 1, (), (), ())
    return {
        ".ticket": ticket.save,
        ".klc": lambda path: kl.save_compressed(model, path),
        **dict.fromkeys((".png", ".svg"), lambda path: kl.plot_files(table, path)),
        ".html": lambda path: Path(path).write_text(page),
        ".c": lambda path: Path(path).write_text(micro._source("net", b"")),
        ".h": lambda path: Path(path).write_text(micro._header(report, [], [])),
        ".json": lambda path: write_sealed(path, {"level": 1, "exports": []}),
    }


@pytest.mark.parametrize(
    "suffix", [".ticket", ".klc", ".png", ".svg", ".html", ".c", ".h", ".json"]
)
def test_what_the_library_wrote_is_replaced_and_nothing_else(tmp_path, model, suffix):
    path = tmp_path / f"net{suffix}"
    path.touch()  # as `tempfile` makes it: there is nothing to lose
    for _ in range(2):
        assert checks.path("path", path, (suffix,)) == path
        writers(model)[suffix](path)
    path.write_text("of the user")
    with pytest.raises(ValueError, match=r"`path` to be a new file.*something else"):
        checks.path("path", path, (suffix,))


def test_writers_look_at_what_is_there(tmp_path, model):
    calls = {
        ".ticket": writers(model)[".ticket"],
        ".klc": writers(model)[".klc"],
        ".png": writers(model)[".png"],
        ".keras": lambda path: kl.export.to_keras(model, path),
        ".tflite": lambda path: kl.export.to_litert(model, path),
        ".c": lambda path: kl.export.to_c_array(model, path),
        ".h": lambda path: kl.export.to_c_array(model, path.with_suffix(".c")),
    }
    for suffix, call in calls.items():
        path = tmp_path / suffix[1:] / f"net{suffix}"
        path.parent.mkdir()
        path.write_text("of the user")
        with pytest.raises(ValueError, match="`path` to be a new file"):
            call(path)
        assert path.read_text() == "of the user"
        assert list(path.parent.iterdir()) == [path]


def search(directory, **options):
    layers = [keras.Input((4,)), keras.layers.Dense(3, name="output")]
    model = keras.Sequential(layers)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    data = np.zeros((6, 4), "float32"), np.arange(6) % 3
    made = kl.LotteryTicketSearch(
        model, [0.5], directory=directory, engine="fit", workers=0, **options
    )
    made.search(*data, validation_data=data, epochs=1, batch_size=3, verbose=0)


@pytest.mark.parametrize("name", ["results.csv", "figure.png", "run.json"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_search_takes_no_directory_with_files_of_its_names(tmp_path, name, overwrite):
    (tmp_path / name).write_text("of the user")
    with pytest.raises(ValueError, match=rf"`directory` .*{name} no search wrote"):
        search(tmp_path, overwrite=overwrite)
    assert [path.read_text() for path in tmp_path.glob("*.*")] == ["of the user"]


def test_settings_of_something_else_are_not_overwritten(tmp_path):
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(ValueError, match=r"settings\.json no search wrote"):
        search(tmp_path, overwrite=True)
    assert (tmp_path / "settings.json").read_text() == "{}"


def test_a_search_whose_settings_are_lost_is_its_own(tmp_path):
    store = Store(tmp_path)
    store.results.write_text("")
    path = store.training(TrainingId(0, 0, "ticket"))
    path.parent.mkdir(parents=True)
    path.touch()
    store.check_own()


def test_find_looks_at_where_files_go_first(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    there = tmp_path / "saved_models" / "digits_lenet_300_100" / "reports.json"
    there.parent.mkdir(parents=True)
    there.write_text("[1]")
    assert cli.main(["find", "--data", "digits", "--export", "keras"]) == 2
    assert "reports.json" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_an_experiment_takes_no_directory_with_a_readme(tmp_path):
    (tmp_path / README).write_text("of the user")
    with pytest.raises(ValueError, match=r"README\.md of something else"):
        _occupy(tmp_path, "renda", "smoke")
