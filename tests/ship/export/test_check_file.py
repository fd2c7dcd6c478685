"""Exported files are compared with the checksums in the reports beside them."""

import pytest

import keras_lottery as kl
from keras_lottery.files import CorruptedFileError, write_json, write_sealed
from keras_lottery.ship.export.files import digests_of

pytestmark = pytest.mark.once
FILES = ("ticket.keras", "ticket.tflite", "saved_model", "mobile.tflite")


@pytest.fixture
def folder(tmp_path):
    """Files as `find` and `deploy` write them, with their reports."""
    folder = tmp_path / "digits"
    for name in (*FILES[:2], "mobile.tflite", "saved_model/saved_model.pb"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"TFL3" + name.encode())
    *exports, deployed = ({"sha256": digests_of(folder / name)} for name in FILES)
    write_sealed(folder / "reports.json", {"exports": exports})
    write_sealed(folder / "mobile.json", {"report": deployed})
    return folder


def damage(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_another_is_refused(folder, name, monkeypatch):
    kl.export.check_file(folder / name)
    monkeypatch.chdir(folder)
    kl.export.check_file(name)
    damage(folder / ("saved_model/saved_model.pb" if name == "saved_model" else name))
    with pytest.raises(CorruptedFileError, match=rf"{name}' is not the file .*delete"):
        kl.export.check_file(folder / name)
    for other in set(FILES) - {name}:
        kl.export.check_file(other)


def test_a_saved_model_of_more_files_is_refused(folder):
    (folder / "saved_model" / "further").write_bytes(b"")
    with pytest.raises(CorruptedFileError, match=r"saved_model' is not the file"):
        kl.export.check_file(folder / "saved_model")


def test_what_reads_files_compares_them(folder):
    damage(folder / "ticket.tflite")
    damage(folder / "saved_model" / "saved_model.pb")
    for name in ("ticket.tflite", "saved_model"):
        with pytest.raises(CorruptedFileError, match=rf"{name}' is not the file"):
            kl.benchmark(folder / name)
    with pytest.raises(CorruptedFileError, match=r"ticket\.tflite' is not the file"):
        kl.export.to_c_array(folder / "ticket.tflite", folder / "a.c")
    assert not (folder / "a.c").exists()


def test_a_damaged_report_is_named(folder):
    damage(folder / "reports.json")
    with pytest.raises(CorruptedFileError, match=r"reports\.json'"):
        kl.export.check_file(folder / "ticket.keras")


def test_reports_of_other_files_are_none(folder):
    (folder / "other.tflite").write_bytes(b"TFL3")
    for value in ({"layers": []}, [1]):  # A file of somebody else's.
        write_json(folder / "other.json", value)
        with pytest.raises(FileNotFoundError, match=r"No report .*other\.json"):
            kl.export.check_file(folder / "other.tflite")
    with pytest.raises(FileNotFoundError, match=r"no file .*none\.keras"):
        kl.export.check_file(folder / "none.keras")
