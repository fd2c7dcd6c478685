"""Reads a stored run: its settings, its tables and its tickets."""

import contextlib
import os
import re
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from keras_lottery import checks
from keras_lottery.checks import did_you_mean
from keras_lottery.engines.objective import ACCURACY, Objective
from keras_lottery.files import REMEDY, CorruptedFileError
from keras_lottery.keras_bridge.layers import State
from keras_lottery.masks import Masks
from keras_lottery.search import results, stored
from keras_lottery.search.best import Best, best_of
from keras_lottery.search.records import Reader
from keras_lottery.search.replicates import derive_seed
from keras_lottery.search.settings import stored_objective
from keras_lottery.search.store import MASK_FINDING, Store, TrainingId, explain_missing
from keras_lottery.search.stored import read_checked
from keras_lottery.search.trainings import row
from keras_lottery.startup import no_run
from keras_lottery.tickets import Ticket

if TYPE_CHECKING:
    import pandas as pd


def check_run(name: str, value: Any) -> None:
    """Raises ValueError unless it is a search, or a `Run`."""
    form = "a LotteryTicketSearch or a Run"
    remedy = "Open a stored one with `kl.Run.load(directory)`."
    checks.instance(name, value, Run, form, remedy)


class Run:
    """A stored search, finished or not.

    A run reads files when it is asked, builds no Keras model, and needs none of the
    functions that the search used.

    Args:
        directory: that of a `LotteryTicketSearch`. `Run.load` checks that it is one.

    Example:

    >>> Run.load("no/such/directory")
    Traceback (most recent call last):
    ...
    FileNotFoundError: Expected the directory of a search. Received: 'no/such/dir...
    """

    def __init__(self, directory: str | os.PathLike) -> None:
        self.store = Store(directory)
        self._reader = Reader(self.store)

    def __repr__(self) -> str:
        """The directory, and how many of its trainings are stored.

        >>> Run("no/such/directory")
        <Run 'no/such/directory', not begun>
        """
        done = "not begun"
        if self.store.settings.is_file():
            done = f"{len(self.training_ids())} of {len(self.expected())} trainings"
        return f"<{type(self).__name__} '{self.directory}', {done}>"

    @classmethod
    def load(cls, directory: str | os.PathLike) -> Self:
        """Opens a stored search for reading.

        Raises:
            FileNotFoundError: if there is no search in the directory.
            CorruptedFileError: if its settings are damaged.
        """
        run = cls(directory)
        run.settings  # noqa: B018
        return run

    @property
    def directory(self) -> Path:
        """Where the run is stored."""
        return self.store.directory

    @property
    def name(self) -> str:
        """The name of the directory."""
        return self.directory.resolve().name

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the search.

        Raises:
            FileNotFoundError: if there is no search in the directory.
            CorruptedFileError: if the settings are damaged.
        """
        try:
            return read_checked(self.store.settings, stored.Settings)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(no_run(self.directory)) from error

    @property
    def objective(self) -> Objective:
        """The metric by which trainings are compared; the accuracy if there are none.

        Raises:
            CorruptedFileError: if the settings are damaged.
        """
        try:
            return stored_objective(self.settings)
        except FileNotFoundError:
            return ACCURACY

    @property
    def margin(self) -> float | str:
        """The margin of the search: how much worse a ticket may be and still match."""
        return self.settings["margin"]

    @property
    def examples(self) -> int | None:
        """The number of validation examples; unknown for a data set."""
        # Of arrays: ["(540, 8, 8, 1) float32 …", …].
        found = re.match(r"\['\((\d+)", str(self.settings["validation"]))
        return int(found[1]) if found else None

    @property
    def data(self) -> str | None:
        """The name of the data set, if `keras-lottery find` noted it."""
        with contextlib.suppress(FileNotFoundError):
            return read_checked(self.store.card, stored.Card)["data"]
        return None

    @property
    def command(self) -> str | None:
        """The command that ran the search, if it was `keras-lottery find`."""
        with contextlib.suppress(FileNotFoundError):
            return read_checked(self.store.card, stored.Card).get("command")
        return None

    @property
    def exports(self) -> dict[str, Any] | None:
        """The measurements that `keras-lottery find` made on the files it exported."""
        with contextlib.suppress(FileNotFoundError):
            return read_checked(self.store.exports, stored.Exports)
        return None

    def training_ids(self) -> list[TrainingId]:
        """The reported trainings that are stored so far."""
        return [
            which
            for which in self.store.training_ids()
            if which.variant != MASK_FINDING
        ]

    def expected(self) -> set[TrainingId]:
        """The trainings that a finished search reports."""
        settings = self.settings
        variants = {"ticket": 1}
        for name, given in settings["controls"].items():
            # Of a function of the user's own, [its name, trials].
            variants[name] = given if isinstance(given, int) else given[1]
        ids = {(0, "ticket", 0)} | {
            (level, variant, trial)
            for level in settings["report_levels"]
            for variant, trials in variants.items()
            for trial in range(trials)
        }
        return {
            TrainingId(r, *which)
            for r in range(settings["replicates"])
            for which in ids
        }

    def missing(self) -> list[TrainingId]:
        """The reported trainings that are still to be done."""
        return sorted(self.expected() - set(self.training_ids()))

    def explain_missing(self, missing: Collection[TrainingId]) -> str:
        """Says in words which trainings are missing; there must be at least one."""
        return explain_missing(missing, self.expected())

    def _warn_of_missing(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # nothing was searched yet
            if missing := self.missing():
                what = f"'{self.directory}': {self.explain_missing(missing)}."
                warnings.warn(what, stacklevel=3)

    def trainings(
        self, damaged: list[str] | None = None
    ) -> dict[TrainingId, dict[str, Any]]:
        """The metrics and the learning curve of each training, without weights.

        Args:
            damaged: a list to which the problem with each unreadable file is added. By
                default, the first one raises.

        Raises:
            CorruptedFileError: if a file is damaged.
        """
        found = {}
        for which in self.training_ids():
            try:
                found[which] = self._reader.training_meta(which)
            except CorruptedFileError as error:
                if damaged is None:
                    raise
                damaged.append(str(error))
        return found

    def results(self) -> "pd.DataFrame":
        """The table of what was trained so far, with one row per training.

        Columns: level, sparsity, density, variant (`"ticket"` or a control's name),
        replicate, trial, seconds (of training alone), and the objective, losses and
        steps: at the early stop, the step with the lowest validation loss, and at the
        end.
        """
        return results.tabulate(map(row, self.trainings().values()), self.objective)

    @property
    def terms(self) -> dict[str, Any]:
        """How its trainings are compared: arguments of `kl.results.verdict`."""
        try:
            margin, examples = self.margin, self.examples
        except FileNotFoundError:  # nothing was searched yet
            margin, examples = "auto", None
        return {"margin": margin, "objective": self.objective, "examples": examples}

    def verdict(
        self, on: str = "validation", margin: float | str | None = None
    ) -> "pd.DataFrame":
        """By level: does the ticket match the dense network, and beat its controls?

        Warns if trainings are missing.

        Args:
            on: the data to compare on: `"validation"` or `"test"`.
            margin: same as in `kl.results.verdict`, which also describes the columns.
                By default, the margin of the search.
        """
        self._warn_of_missing()
        return results.verdict(self.results(), on, **self._terms(margin))

    def best(self, margin: float | str | None = None) -> Best:
        """Chooses the best ticket: the median one of the sparsest level shown to match.

        It is chosen by the objective at the early stop, on the validation data. If no
        level is shown to match the dense network, the choice is a guess. Warns if
        trainings are missing.

        Args:
            margin: same as in `verdict`.

        Raises:
            ValueError: if no ticket was trained yet.
        """
        self._warn_of_missing()
        return best_of(self.results(), **self._terms(margin))

    def _terms(self, margin: float | str | None) -> dict[str, Any]:
        return self.terms if margin is None else self.terms | {"margin": margin}

    def best_ticket(self, margin: float | str | None = None) -> Ticket:
        """The ticket that `best` chooses.

        Its `trained_model` has the weights at the end of training. Warns if no level is
        shown to match the dense network.

        Arguments and errors are the same as in `best`.
        """
        best = self.best(margin)
        if not best.matches:
            warnings.warn(str(best), stacklevel=2)
        return self.ticket(best.level, best.replicate)

    def ticket(self, level: int, replicate: int = 0) -> Ticket:
        """A ticket that was trained.

        Raises:
            FileNotFoundError: if it was not trained.
        """
        settings = self.settings
        meta, states, masks = self._read(level, replicate, "start", "final")
        card = {
            "level": level,
            "replicate": replicate,
            "sparsity": masks.sparsity,
            "metrics": meta["metrics"],
            "settings": {k: v for k, v in settings.items() if k != "architecture"},
        }
        return Ticket(
            masks,
            states["start"],
            meta["step"],
            meta["steps"],
            meta["learning_rate"],
            states["final"],
            settings["architecture"],
            card,
            derive_seed(settings["seed"], replicate, "initial"),
        )

    def masks(self, level: int, replicate: int = 0) -> Masks:
        """The masks of a ticket that was trained.

        Raises:
            FileNotFoundError: if it was not trained.
        """
        return self._read(level, replicate)[2]

    def trained(self, level: int, replicate: int = 0) -> State:
        """The weights at the end of a ticket's training.

        Raises:
            FileNotFoundError: if it was not trained.
        """
        return self._read(level, replicate, "final")[1]["final"]

    def initial(self, replicate: int = 0) -> State:
        """The weights of a replicate before any training."""
        return self._reader.initial(replicate)

    def curve(
        self, level: int, variant: str = "ticket", replicate: int = 0, trial: int = 0
    ) -> dict[str, list[float]]:
        """Validation loss and objective of one training, by step.

        Returns:
            Lists of equal length: `step`, `val_loss`, and the objective, such as
            `val_accuracy`. They are empty for a training that diverged.
        """
        which = TrainingId(replicate, level, variant, trial)
        self._check_stored(which)
        return self._reader.training_meta(which)["curve"]

    def _read(
        self, level: int, replicate: int, *states: str
    ) -> tuple[dict[str, Any], dict[str, State], Masks]:
        which = TrainingId(replicate, level, "ticket")
        self._check_stored(which)
        meta, found, masks = self._reader.training(which, *states)
        if masks is None:
            raise CorruptedFileError(
                f"'{self.store.training(which)}' was not written by a search: it holds "
                f"no masks. {REMEDY}"
            )
        return meta, found, masks

    def _check_stored(self, which: TrainingId) -> None:
        """Raises FileNotFoundError for a missing training; lists the stored ones."""
        if self.store.training(which).is_file():
            return
        ids = self.training_ids()
        found = {each.variant: set[int]() for each in ids}
        for each in ids:
            found[each.variant].add(each.level)
        listed = [f"{name} at levels {sorted(at)}" for name, at in found.items()]
        hint = "" if which.variant in found else did_you_mean(which.variant, found)
        raise FileNotFoundError(
            f"Expected a training that is stored in '{self.directory}': "
            f"{'; '.join(listed) or 'none so far'}, of replicates "
            f"{sorted({each.replicate for each in ids})}. Received: {which}. {hint}"
        )
