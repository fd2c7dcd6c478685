"""Merges runs that were made separately."""

import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_lottery import checks
from keras_lottery.files import TEMPORARY, digest, write_atomically, write_sealed
from keras_lottery.search.records import Reader, Record
from keras_lottery.search.run import Run
from keras_lottery.search.settings import check_backend, differences
from keras_lottery.search.store import Store, TrainingId

MAY_DIFFER = ("replicates", "architecture", "versions")
"""Settings of runs that may be merged: architectures differ in automatic names."""
RUNS = "a list of the directories of runs, at least one"


def merge_runs(runs: Sequence[str | os.PathLike], directory: str | os.PathLike) -> Run:
    """Merges runs that were made separately, each of other replicates, into one run.

    If several runs have the same replicate, it is taken from the run that has most of
    it, provided that the results they have in common are equal, except for the seconds
    that they took. The runs themselves are not changed.

    Args:
        runs: their directories, made by searches that differ in `part` or `replicates`.
        directory: where the merged run goes; it must not exist, or be empty.

    Returns:
        The merged run. Replicates that no run has are missing from it: a search in the
        directory, with the same settings, trains them.

    Raises:
        FileNotFoundError: if a directory contains no run.
        CorruptedFileError: if a file is damaged.
        ValueError: if settings differ, or the same replicate has different results. The
            message names both values, and nothing is written.

    Example::

        kl.merge_runs(["runs/a", "runs/b"], "runs/all").verdict()
    """
    checks.sequence("runs", runs, RUNS, 1)
    target = checks.directory("directory", directory)
    found = [Run.load(checks.existing("runs", each)) for each in runs]
    if target.exists() and any(target.iterdir()):
        remedy = "Choose another directory, or empty it."
        checks.refuse("directory", "a new or empty directory", str(directory), remedy)
    first, *others = found
    for other in others:
        _check_settings(first, other)
    sources = _sources(found)
    target.parent.mkdir(parents=True, exist_ok=True)
    # It takes its place whole, or not at all.
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=target.parent) as folder:
        merged = Run(Path(folder, "run"))
        replicates = max(run.settings["replicates"] for run in found)
        for replicate, source in sources.items():
            _copy(source.store, merged.store, replicate)
        write_sealed(
            merged.store.settings, {**first.settings, "replicates": replicates}
        )
        cards = [run.store.card for run in found if run.store.card.exists()]
        if cards:
            shutil.copyfile(cards[0], merged.store.card)
        table = merged.results()
        write_atomically(
            merged.store.results, lambda file: table.to_csv(file, index=False)
        )
        if target.exists():
            target.rmdir()  # Windows puts nothing in the place of a folder.
        os.replace(merged.directory, target)
    return Run(target)


def _check_settings(one: Run, other: Run) -> None:
    """Raises ValueError that shows the differences, unless all of them are allowed.

    A warning says which versions differ.
    """
    settings, others = one.settings, other.settings
    check_backend(settings["versions"], others["versions"], one.directory)
    found = differences(settings["versions"], others["versions"])
    if versions := [f"{name} {here} and {there}" for name, here, there in found]:
        warnings.warn(
            f"'{one.directory}' and '{other.directory}' were begun with different "
            f"versions: {', '.join(versions)}. Replicates may differ by more than "
            "their seeds; each training keeps its versions on record.",
            stacklevel=3,
        )
    lines = [
        f"  {path}: {here!r} in '{one.directory}', {there!r} in '{other.directory}'"
        for path, here, there in differences(_fixed(settings), _fixed(others))
    ]
    if lines:
        raise ValueError(
            "Expected runs that differ in their replicates alone. Received:\n"
            + "\n".join(lines)
        )


def _fixed(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in settings.items() if k not in MAY_DIFFER}


def _sources(runs: Sequence[Run]) -> dict[int, Run]:
    """The run that each replicate is taken from: the one that has most of it."""
    held: dict[int, dict[int, list[TrainingId]]] = {}
    for number, run in enumerate(runs):
        for which in run.store.training_ids():
            held.setdefault(which.replicate, {}).setdefault(number, []).append(which)
    sources = {}
    for replicate, ids in sorted(held.items()):
        best = max(ids, key=lambda number: len(ids[number]))
        for number in ids:
            for which in set(ids[number]) & set(ids[best]):
                _check_equal(which, runs[best], runs[number])
        sources[replicate] = runs[best]
    # The others may have drawn on the weights of the first.
    return {0: runs[0]} | sources


def _check_equal(which: TrainingId, one: Run, other: Run) -> None:
    if one is other:
        return
    ours, theirs = (_result(Reader(run.store), which) for run in (one, other))
    for path, here, there in differences(ours, theirs):
        raise ValueError(
            f"Expected runs that agree where they have the same training, {which}. "
            f"Received: {path} is {here!r} in '{one.directory}', {there!r} in "
            f"'{other.directory}'. Leave one of the runs out."
        )


def _result(reader: Reader, which: TrainingId) -> dict[str, Any]:
    """The result of a training, except for the seconds that it took."""
    meta, states, masks = _whole(reader, which)
    metrics = {k: v for k, v in meta["metrics"].items() if k != "seconds"}
    rest = {k: v for k, v in meta.items() if k not in ("elsewhere", "versions")}
    return {
        **rest,
        "metrics": metrics,
        "weights": {name: digest(state) for name, state in states.items()},
        "masks": None if masks is None else digest(masks),
    }


def _whole(reader: Reader, which: TrainingId) -> Record:
    """A training with all its states, including those that are in other files."""
    elsewhere = reader.training_meta(which)["elsewhere"]
    return reader.training(which, *elsewhere)


def _copy(source: Store, target: Store, replicate: int) -> None:
    """Copies the files of a replicate, and reads the whole copy."""
    ids = [which for which in source.training_ids() if which.replicate == replicate]
    paths = [source.initial(replicate), *map(source.training, ids)]
    for path in paths:
        place = target.directory / path.relative_to(source.directory)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    reader = Reader(target)
    reader.initial(replicate)
    for which in ids:
        _whole(reader, which)
