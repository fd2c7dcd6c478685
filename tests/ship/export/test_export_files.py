import gzip

import pytest

from keras_lottery.ship.export.files import (
    file_path,
    gzip_size_of,
    saved_model_path,
    size_of,
    staged,
)

pytestmark = pytest.mark.once


def saved_model(folder, text):
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_text(text)


def test_a_finished_file_is_moved_into_a_new_folder(tmp_path, left_over):
    path = tmp_path / "a" / "b" / "file.bin"
    with staged(path) as draft:
        draft.write_text("new")
        assert not path.exists()
        assert draft.name == path.name
    assert path.read_text() == "new"
    assert left_over(path.parent) == ["file.bin"]


def test_a_failure_leaves_no_file_and_no_folder(tmp_path, left_over):
    with pytest.raises(KeyError), staged(tmp_path / "a" / "b" / "file.bin") as draft:
        draft.write_text("half")
        raise KeyError
    assert left_over(tmp_path) == []


def test_a_failure_keeps_the_older_file(tmp_path, left_over):
    path = tmp_path / "file.bin"
    path.write_text("old")
    with pytest.raises(KeyError), staged(path) as draft:
        draft.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert left_over(tmp_path) == ["file.bin"]


def test_a_directory_is_replaced_whole(tmp_path, left_over):
    path = tmp_path / "model"
    saved_model(path, "old")
    (path / "variables").mkdir()
    with staged(path) as draft:
        saved_model(draft, "new")
    assert left_over(path) == ["saved_model.pb"]
    assert (path / "saved_model.pb").read_text() == "new"
    assert left_over(tmp_path) == ["model"]


def test_a_directory_survives_a_failed_replacement(tmp_path, left_over):
    path = tmp_path / "model"
    saved_model(path, "old")
    with pytest.raises(FileNotFoundError), staged(path):
        pass  # nothing was written, so nothing can be moved into place
    assert (path / "saved_model.pb").read_text() == "old"
    assert left_over(tmp_path) == ["model"]


def test_sizes_are_those_on_disk(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "a").write_bytes(bytes(1000))
    (tmp_path / "folder" / "b").write_bytes(bytes(234))
    assert size_of(tmp_path / "a") == 1000
    assert size_of(tmp_path) == 1234
    assert gzip_size_of(tmp_path) == sum(
        len(gzip.compress(bytes(n))) for n in (1000, 234)
    )


@pytest.mark.parametrize("name", ["model", "model.h5", "folder.keras", ""])
def test_a_path_that_no_file_can_have_is_refused(tmp_path, name):
    (tmp_path / "folder.keras").mkdir()
    with pytest.raises(ValueError, match="`path` to be a "):
        file_path(tmp_path / name, ".keras")


@pytest.mark.parametrize("name", ["model.tflite", "model.keras", "file", "pictures"])
def test_a_path_that_no_saved_model_can_have_is_refused(tmp_path, name):
    (tmp_path / "file").write_text("text")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "cat.jpg").write_text("cat")
    with pytest.raises(ValueError, match="`path` to be a directory for a SavedModel"):
        saved_model_path(tmp_path / name)


@pytest.mark.parametrize("name", ["new", "empty", "older", "v1.2"])
def test_a_path_for_a_saved_model_is_accepted(tmp_path, name):
    (tmp_path / "empty").mkdir()
    saved_model(tmp_path / "older", "old")
    assert saved_model_path(str(tmp_path / name)) == tmp_path / name
