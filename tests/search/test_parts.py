"""One search by several processes, or in several directories that are merged."""

import itertools
import random
import shutil
import subprocess
import sys
import time
import warnings
from contextlib import closing, contextmanager
from pathlib import Path

import pandas as pd
import pytest

import keras_lottery as kl
from keras_lottery.engines.fit import FitEngine
from keras_lottery.files import CorruptedFileError, read_sealed, write_sealed
from keras_lottery.search import LotteryTicketSearch, at_work
from keras_lottery.search.locks import Locks
from keras_lottery.search.store import Store, TrainingId
from tests.search.small_search import FIT, make, numbers, pretend

SMALL = {"schedule": [0.5], "controls": {"shuffle": 1}, "replicates": 4}
HOW = {"engine": "fit", "workers": 0}
ONCE = FIT | {"epochs": 1}


def small(directory, **changes):
    return make(directory, **{**SMALL, **HOW, **changes})


def written(directory):
    """The table in the file."""
    return pd.read_csv(Path(directory, "results.csv")).drop(columns="seconds")


def assert_same(one, other):
    pd.testing.assert_frame_equal(one, other, check_exact=True)


@contextmanager
def held(directory, *replicates):
    """Another process trains replicates meanwhile."""
    with closing(Locks(Store(directory))) as locks:
        locks.take_all(replicates)
        yield locks


@pytest.mark.once
@pytest.mark.parametrize("number", range(4))
def test_any_division_gives_the_table_of_one_process(tmp_path, pretended, number):
    """Over processes, over directories, in any order."""
    small(tmp_path / "whole").search(**ONCE)
    rng = random.Random(number)
    order = rng.sample(range(4), 4)
    cuts = sorted(rng.sample(range(1, 4), 1 + number % 3))
    bounds = [0, *cuts, 4]
    parts = [order[a:b] for a, b in itertools.pairwise(bounds)]
    folders = [tmp_path / f"run_{rng.randrange(1 + number % 2)}" for _ in parts]
    for part, folder in zip(parts, folders, strict=True):
        # Each process knows of as many replicates as it needs, or of all.
        total = rng.choice([4, max(part) + 1])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'.*' holds more than is asked for")
            small(folder, replicates=total).search(**ONCE, part=part)
    run = kl.merge_runs(rng.sample(folders, len(folders)), tmp_path / "merged")
    assert not run.missing()
    assert_same(numbers(run), numbers(kl.Run.load(tmp_path / "whole")))
    assert_same(written(run.directory), written(tmp_path / "whole"))
    if len(set(folders)) == 1:
        assert_same(written(folders[0]), written(tmp_path / "whole"))
    # It is a search as others are, which has nothing left to do.
    before = {p: p.stat().st_mtime_ns for p in run.directory.rglob("*.safetensors")}
    small(run.directory).search(**ONCE)
    assert before == {
        p: p.stat().st_mtime_ns for p in run.directory.rglob("*.safetensors")
    }


@pytest.mark.once
def test_parts_are_those_of_the_whole_search(tmp_path, finished):
    for replicate in (1, 0):
        table = make(tmp_path, replicates=2).search(**FIT, part=[replicate])
    assert_same(table.drop(columns="seconds"), numbers(finished))


@pytest.mark.once
def test_what_is_missing_is_said(tmp_path, pretended):
    search = small(tmp_path)
    search.search(**ONCE, part=[1, 2])
    store = search.store
    store.training(TrainingId(1, 1, "shuffle")).unlink()
    run = kl.Run.load(tmp_path)
    assert repr(run) == f"<Run '{tmp_path}', 5 of 12 trainings>"
    assert len(run.missing()) == 7
    words = (
        "7 of 12 trainings are missing: all of replicates 0, 3; 1 of replicate 1, from "
        "level 1 on"
    )
    for read in (run.verdict, run.best):
        with pytest.warns(UserWarning, match=words):
            read()
    page = kl.report.write_report(tmp_path, tmp_path / "report.html").read_text("utf-8")
    # Numbers stay on the line of their words.
    assert words in page.replace("\N{NO-BREAK SPACE}", " ")
    # Only its own initial weights were drawn, beside those of the first.
    assert [r for r in range(4) if store.initial(r).exists()] == [0, 1, 2]


@pytest.mark.once
def test_a_part_leaves_to_others_what_they_have(tmp_path, pretended):
    with (
        held(tmp_path, 1),
        pytest.warns(UserWarning, match=r"replicate 1 is trained by .*It is left"),
    ):
        table = small(tmp_path).search(**ONCE, part=[0, 1])
    assert set(table["replicate"]) == {0}
    # Once the other one is gone, however it went, the replicate is free.
    table = small(tmp_path).search(**ONCE, part=[0, 1])
    assert set(table["replicate"]) == {0, 1}


@pytest.mark.once
def test_a_search_waits_for_others_and_takes_up_what_they_left(
    tmp_path, pretended, monkeypatch
):
    """Of two that others have, one is finished there, the other given back."""
    small(tmp_path / "other").search(**ONCE)
    looks = []
    with held(tmp_path / "run", 1) as one, held(tmp_path / "run", 3):

        def sleep(seconds):
            looks.append(seconds)
            # What this process has done is not held: others may wait for it.
            with held(tmp_path / "run", 0, 2):
                pass
            if len(looks) == 2:
                finished, here = (
                    tmp_path / run / "replicate_3" for run in ("other", "run")
                )
                shutil.copytree(finished, here, dirs_exist_ok=True)
            if len(looks) == 4:
                one.close()
            assert len(looks) < 9

        monkeypatch.setattr(at_work.time, "sleep", sleep)
        with pytest.warns(UserWarning, match="replicate 1 is .*; replicate 3 .* waits"):
            small(tmp_path / "run").search(**ONCE)
    assert looks
    assert_same(written(tmp_path / "run"), written(tmp_path / "other"))


@pytest.mark.once
def test_parts_choose_as_the_whole_search_does(tmp_path, pretended, monkeypatch):
    asked = []

    def employ(workers, engine, setup, ticket, at_once, steps, *rest):
        asked.append((at_once, steps, setup.options.trainings))
        return real(workers, engine, setup, ticket, at_once, steps, *rest)

    real = at_work.employ
    monkeypatch.setattr(at_work, "employ", employ)
    small(tmp_path / "whole").search(**ONCE)
    small(tmp_path / "part").search(**ONCE, part=[3])
    assert asked[0] == asked[1]


@pytest.mark.once
def test_two_processes_never_take_the_same(tmp_path, pretended, monkeypatch):
    """Each takes a replicate only once it has nothing else to do."""
    taken = []
    real = pretend

    def train(self, ticket, *how):
        if not taken:
            taken.append("other")
            with pytest.warns(
                UserWarning, match="replicate 0 is trained by .*It is left"
            ):
                small(tmp_path).search(**ONCE, part=range(4))
            taken.append(len(Store(tmp_path).training_ids()))
        return real(self, ticket, *how)

    monkeypatch.setattr(FitEngine, "train", train)
    table = small(tmp_path).search(**ONCE)
    # The second one did all but the first replicate, which the first one had.
    assert taken == ["other", 9] and len(table) == 12


@pytest.mark.once
def test_the_first_process_chooses_the_engine_for_all(tmp_path, pretended, monkeypatch):
    """Also for one that waits for it as it writes the settings."""
    small(tmp_path / "first").search(**ONCE)
    real = Store.alone

    @contextmanager
    def alone(self, *patience):
        with real(self, *patience):
            if not self.settings.exists():
                shutil.copy(tmp_path / "first/settings.json", self.settings)
            yield

    monkeypatch.setattr(Store, "alone", alone)
    asked = []

    def as_before(store, engine, workers):
        asked.append(store)
        return real_as_before(store, engine, workers)

    real_as_before = at_work.as_before
    monkeypatch.setattr(at_work, "as_before", as_before)
    small(tmp_path / "second", engine="auto", workers="auto").search(**ONCE)
    assert asked
    assert_same(written(tmp_path / "second"), written(tmp_path / "first"))


@pytest.mark.once
def test_the_table_is_read_under_its_lock(tmp_path, pretended, monkeypatch):
    """Otherwise an older table could go over the newer one of another process."""
    real, read = LotteryTicketSearch.results, []

    def results(self):
        with pytest.raises(BlockingIOError), Store(tmp_path).alone(patience=0):
            pass
        read.append(self)
        return real(self)

    monkeypatch.setattr(LotteryTicketSearch, "results", results)
    search = small(tmp_path)
    search.search(**ONCE)
    assert read == [search]


@pytest.mark.once
def test_what_others_train_is_not_overwritten(tmp_path, pretended):
    small(tmp_path).search(**ONCE)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.safetensors")}
    with held(tmp_path, 3), pytest.raises(BlockingIOError, match="Replicate 3 in"):
        small(tmp_path, overwrite=True).search(**ONCE)
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*.safetensors")}
    small(tmp_path, overwrite=True, replicates=1).search(**ONCE)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 4


@pytest.mark.once
@pytest.mark.parametrize("part", [[4], [-1], [], [1.0], "1", [True], 3])
def test_parts_that_are_none_are_refused(tmp_path, part):
    with pytest.raises(ValueError, match="`part`"):
        small(tmp_path / "run").search(**ONCE, part=part)
    with pytest.raises(ValueError, match="`overwrite`"):
        small(tmp_path / "run", overwrite=True).search(**ONCE, part=[1])
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """Two runs, of replicates 0 and 1, and 1 and 2."""
    root = tmp_path_factory.mktemp("apart")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FitEngine, "train", pretend)
        for name, part in (("a", [0, 1]), ("b", [1, 2])):
            small(root / name, replicates=3).search(**ONCE, part=part)
    return root


def assert_refused(runs, target, error, match):
    """Nothing is written."""
    beside = sorted(target.parent.iterdir())
    with pytest.raises(error, match=match):
        kl.merge_runs(runs, target)
    assert sorted(target.parent.iterdir()) == beside


@pytest.mark.once
def test_merged_runs(apart, tmp_path):
    run = kl.merge_runs([apart / "b", apart / "a"], tmp_path / "all")
    assert not run.missing() and len(run.results()) == 9
    of_a = kl.Run.load(apart / "a")
    first, alone = (
        numbers(each).query("replicate == 0").reset_index(drop=True)
        for each in (run, of_a)
    )
    assert_same(first, alone)
    assert {p.name for p in tmp_path.iterdir()} == {"all"}
    one = kl.merge_runs([apart / "b"], tmp_path / "one")
    assert {which.replicate for which in one.missing()} == {0}
    taken = "a new or empty directory"
    assert_refused([apart / "a"], tmp_path / "all", ValueError, taken)


@pytest.mark.once
def test_runs_of_other_settings_are_not_merged(apart, tmp_path, pretended):
    small(tmp_path / "c", seed=3).search(**ONCE, part=[3])
    words = rf"seed: 0 in '{apart / 'a'}', 3 in '{tmp_path / 'c'}'"
    assert_refused([apart / "a", tmp_path / "c"], tmp_path / "all", ValueError, words)


@pytest.mark.once
def test_runs_of_other_versions_are_merged_with_a_warning(apart, tmp_path):
    other = Path(shutil.copytree(apart / "b", tmp_path / "b"))
    settings = Store(other).settings
    changed = read_sealed(settings)
    keras = changed["versions"]["keras"]
    changed["versions"]["keras"] = "3.0.0"
    write_sealed(settings, changed)
    words = (
        f"a' and '{other}' were begun with different versions: keras {keras} and 3.0.0"
    )
    with pytest.warns(UserWarning, match=words):
        run = kl.merge_runs([apart / "a", other], tmp_path / "all")
    assert not run.missing() and run.settings["versions"]["keras"] == keras


@pytest.mark.once
def test_one_replicate_of_two_results_is_not_merged(apart, tmp_path, monkeypatch):
    def other(self, ticket, seed, *how):
        return pretend(self, ticket, seed + (ticket.masks.sparsity > 0), *how)

    monkeypatch.setattr(FitEngine, "train", other)
    small(tmp_path / "c", replicates=3).search(**ONCE, part=[1])
    words = "replicate 1, level 1: (ticket|shuffle).*is .* in .*c'"
    assert_refused([apart / "a", tmp_path / "c"], tmp_path / "all", ValueError, words)


@pytest.mark.once
def test_the_fuller_of_two_is_taken_and_damage_is_refused(apart, tmp_path):
    cut = Path(shutil.copytree(apart / "a", tmp_path / "cut"))
    path = Store(cut).training(TrainingId(1, 1, "ticket"))
    path.unlink()
    run = kl.merge_runs([cut, apart / "b"], tmp_path / "all")
    assert not run.missing()
    path = Store(cut).training(TrainingId(0, 1, "ticket"))
    path.write_bytes(path.read_bytes()[:-9])
    assert_refused(
        [cut, apart / "b"], tmp_path / "more", CorruptedFileError, "level_01"
    )


PROCESS = """
import sys
from tests.search.test_parts import FIT, HOW, make

make(sys.argv[1], replicates=3, **HOW).search(**FIT | {"epochs": 4})
"""


@pytest.mark.once
@pytest.mark.slow
def test_processes_in_one_directory(tmp_path):
    """Three at once, one of which is killed: the others end what it began."""
    make(tmp_path / "whole", replicates=3, **HOW).search(**FIT | {"epochs": 4})
    run = tmp_path / "run"
    processes = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(run)]) for _ in range(3)
    ]
    try:
        while len(list(run.glob(".locks/*.holder"))) < 2:
            assert processes[0].poll() is None or processes[1].poll() is None
            time.sleep(0.1)
        processes[0].kill()
        assert [process.wait(600) for process in processes] == [-9, 0, 0]
    finally:
        for process in processes:
            process.kill()
    assert_same(written(run), written(tmp_path / "whole"))
    assert LotteryTicketSearch.load(run).missing() == []
