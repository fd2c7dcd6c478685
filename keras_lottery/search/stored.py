"""Reading a search: its table, its verdict, its tickets."""

import warnings
from typing import TYPE_CHECKING

import numpy as np

from keras_lottery.engines.engine import Training
from keras_lottery.files import read_json, read_meta, read_record
from keras_lottery.keras_bridge.layers import State
from keras_lottery.masks import Masks
from keras_lottery.search import results
from keras_lottery.search.replicates import derive_seed
from keras_lottery.search.store import Store, Unit
from keras_lottery.search.trainings import read_training, row
from keras_lottery.tickets import Snapshot, Ticket
from keras_lottery.tickets.rewind import Rewind, Span

if TYPE_CHECKING:
    import pandas as pd


class StoredSearch:
    """What a directory holds of a search, finished or not.

    Args:
        store: the directory.
        rewind: what its levels start from.
    """

    def __init__(self, store: Store, rewind: Rewind) -> None:
        self.store = store
        self._rewind = rewind

    def units(self) -> list[Unit]:
        """The reported trainings that are stored so far."""
        return [unit for unit in self.store.units() if unit.variant != "trunk"]

    def results(self) -> "pd.DataFrame":
        """The table of what was trained so far: one row a training.

        Columns: level, sparsity, density, variant (`"ticket"` or a control's name),
        replicate, trial, seconds (of training alone), and accuracies (shares), losses
        and steps: at the early stop, the step of least validation loss, and at the end.
        """
        return results.tabulate(
            row(read_meta(self.store.training(unit), "training"))
            for unit in self.units()
        )

    def verdict(self, on: str | None = None, tolerance: float = 0.0) -> "pd.DataFrame":
        """By level: does the ticket win, and does it beat its controls?

        Arguments and columns see `kl.results.verdict`.
        """
        return results.verdict(self.results(), on, tolerance)

    def best_ticket(self, tolerance: float = 0.0) -> Ticket:
        """The sparsest winning level's best replicate, by validation accuracy.

        Early stops are compared; the ticket's `trained_model` is that of the end of
        training. Warns if no level wins, and gives the ticket that came closest.

        Args:
            tolerance: as of `verdict`.

        Raises:
            ValueError: if no ticket was trained yet.
        """
        if not any(unit.level and unit.variant == "ticket" for unit in self.units()):
            raise ValueError("There is no ticket: call `search` first.")
        table = self.verdict("validation", tolerance)
        winners = table[table["winning"]]
        if len(winners):
            level = int(winners["level"].max())
        else:
            level = int(table.loc[table["accuracy_difference"].idxmax(), "level"])
            warnings.warn(
                "No level wins on the validation data: level "
                f"{level} comes closest to the dense network's accuracy.",
                stacklevel=2,
            )
        rows = self.results().query("variant == 'ticket' and level == @level")
        best = rows["early_stop_val_accuracy"].idxmax()
        return self.ticket(level, int(rows.loc[best, "replicate"]))

    def ticket(self, level: int, replicate: int = 0) -> Ticket:
        """A ticket that was trained.

        Raises:
            FileNotFoundError: if it was not.
        """
        settings = read_json(self.store.settings)
        training, meta, masks = read_training(
            self.store.training(Unit(replicate, level, "ticket"))
        )
        assert masks is not None
        card = {
            "level": level,
            "replicate": replicate,
            "sparsity": masks.sparsity,
            "metrics": meta["metrics"],
            "settings": {k: v for k, v in settings.items() if k != "architecture"},
        }
        return Ticket(
            masks,
            self._start_weights(level, replicate),
            meta["step"],
            meta["steps"],
            meta["learning_rate"],
            training.final,
            settings["architecture"],
            card,
            derive_seed(settings["seed"], replicate, "initial"),
        )

    def curve(
        self, level: int, variant: str = "ticket", replicate: int = 0, trial: int = 0
    ) -> dict[str, list[float]]:
        """Validation loss and accuracy by step, of one training.

        Returns:
            Lists of equal length: `step`, `val_loss`, `val_accuracy`.
        """
        unit = Unit(replicate, level, variant, trial)
        return read_meta(self.store.training(unit), "training")["curve"]

    def _start_weights(self, level: int, replicate: int) -> State:
        initial = read_record(self.store.initial(replicate), "initial")[1]["weights"]
        if not level or read_json(self.store.settings).get("prune_at_init"):
            return initial
        training, masks = self._finder(level - 1, replicate)
        snapshot = Snapshot(
            masks,
            training.final,
            initial,
            self._finder(0, replicate)[0].rewind_point,
            np.random.default_rng(0),
            None,
        )
        return self._rewind.ticket(snapshot, masks, Span(0, 1)).weights

    def _finder(self, level: int, replicate: int) -> tuple[Training, Masks]:
        """The training that the masks of the next level were found in."""
        trunk = self.store.training(Unit(replicate, level, "trunk"))
        ticket = self.store.training(Unit(replicate, level, "ticket"))
        training, _, masks = read_training(trunk if trunk.exists() else ticket)
        assert masks is not None
        return training, masks
