"""The search for a winning ticket."""

import dataclasses
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_lottery import allocation as allocations
from keras_lottery import architecture, criteria, results, schedules
from keras_lottery import controls as control_registry
from keras_lottery import rewind as rewinds
from keras_lottery.allocation import Allocation
from keras_lottery.controls import Control
from keras_lottery.criteria import Criterion
from keras_lottery.engines.data import Data, is_tf_dataset, training_steps
from keras_lottery.engines.fit import FitEngine
from keras_lottery.layers import State, get_masks, set_state
from keras_lottery.layers.convert import Prunable
from keras_lottery.masks import Masks
from keras_lottery.progress import Progress
from keras_lottery.replicates import build, derive_seed, initial_weights
from keras_lottery.rewind import FineTune, Rewind, Span
from keras_lottery.schedules import Schedule
from keras_lottery.settings import (
    describe,
    describe_data,
    describe_model,
    describe_state,
    open_store,
    restore,
    versions,
)
from keras_lottery.store import Store, Unit, read_json, read_record, write_atomically
from keras_lottery.ticket import Snapshot, Ticket
from keras_lottery.trainings import Trainings, read_training, row

if TYPE_CHECKING:
    import pandas as pd


DEFAULT_SCHEDULE = schedules.geometric()


class LotteryTicketSearch:
    """Finds winning tickets: train, prune, rewind, repeat, and train the controls.

    Args:
        model: a compiled Keras model, whose weights replicate 0 starts from (further
            replicates draw theirs from its initialisers), or a function that builds
            and compiles one. It is not changed.
        schedule: the sparsities of the levels: `schedules.geometric`,
            `schedules.one_shot`, or a list.
        criterion: what a weight is worth; a name of `criteria` or a function.
        allocation: which layers are pruned how much; a name of `allocation`, one of its
            classes, or a function.
        rewind: what the next level starts from: `"weights"`, `"learning_rate"`,
            `"fine_tune"`, `"continue"`, or a `rewind.Rewind`.
        rewind_to: the rewind point k: a step, or epochs such as `"2ep"`.
        controls: names of `controls`, each trained once at every level, or with the
            number of trials of each: `{"reinit": 3}`. A function of one's own is given
            as `{"name": (function, trials)}`.
        replicates: how many times all is repeated from other weights, in another order
            of the data.
        seed: of everything that is random.
        directory: where the search is stored; run again with the same settings, it goes
            on where it stopped. By default a temporary directory.
        prunable: which layers are pruned, as of `mask_model`.

    Raises:
        ValueError: if an argument is not one of its choices.

    Reference:
        Frankle & Carbin 2019, "The lottery ticket hypothesis: finding sparse, trainable
        neural networks".

    Example:

    >>> import keras_lottery as kl
    >>> splits = kl.data.load("digits")
    >>> def build():
    ...     model = kl.models.lenet_300_100(splits.input_shape)
    ...     model.compile("adam", keras.losses.SparseCategoricalCrossentropy(True),
    ...                   metrics=["accuracy"])
    ...     return model
    >>> search = LotteryTicketSearch(build, schedule=[0.5], controls={})
    >>> table = search.search(*splits.train, validation_data=splits.validation,
    ...                       test_data=splits.test, epochs=1)
    >>> list(table["density"])
    [1.0, 0.5]
    """

    def __init__(
        self,
        model: keras.Model | Callable[[], keras.Model],
        schedule: Schedule | Sequence[float] | float = DEFAULT_SCHEDULE,
        criterion: str | Criterion = "magnitude",
        allocation: str | Allocation = "global",
        rewind: str | Rewind = "weights",
        rewind_to: int | str = 0,
        controls: Mapping[str, int | tuple[Control, int]] | Sequence[str] | None = (
            "reinit",
        ),
        replicates: int = 1,
        seed: int = 0,
        directory: str | os.PathLike | None = None,
        prunable: Prunable = None,
    ) -> None:
        if replicates < 1:
            raise ValueError(
                f"Expected at least 1 replicate. Received: replicates={replicates}"
            )
        if seed < 0:
            raise ValueError(f"Expected a seed of at least 0. Received: seed={seed}")
        self.schedule = schedules.get(schedule)
        self.criterion = criterion
        self.allocation = allocation
        self.rewind = rewind
        self.rewind_to = rewind_to
        self.controls = control_registry.trials(controls)
        self.replicates = replicates
        self.seed = seed
        self.prunable = prunable
        self._criterion = criteria.get(criterion)
        self._allocation = allocations.get(allocation)
        self._rewind = rewinds.get(rewind)
        self._controls = control_registry.resolve(self.controls)
        self._source = model
        self.store = Store(directory or tempfile.mkdtemp(prefix="keras_lottery-"))

    @classmethod
    def load(
        cls, directory: str | os.PathLike, **changes: Any
    ) -> "LotteryTicketSearch":
        """Opens a stored search, to read it or to go on with it.

        Args:
            directory: where it is stored.
            changes: arguments to replace the stored ones: more `replicates`, other
                `controls`, and the functions that were given as such, which are not
                stored.

        Raises:
            FileNotFoundError: if there is no search in the directory.
            CorruptedFileError: if its settings are damaged.
        """
        settings = read_json(Store(directory).settings)
        arguments = {
            "schedule": restore(settings["schedule"], Schedule),
            "criterion": settings["criterion"],
            "allocation": restore(settings["allocation"], *allocations.classes()),
            "rewind": restore(settings["rewind"], Rewind, FineTune),
            "rewind_to": settings["rewind_to"],
            "controls": settings["controls"],
            "replicates": settings["replicates"],
            "seed": settings["seed"],
        }
        model = architecture.from_text(settings["architecture"])
        return cls(model, directory=directory, **(arguments | changes))

    def search(
        self,
        x: Any,
        y: Any = None,
        *,
        validation_data: Any = None,
        test_data: Any = None,
        batch_size: int = 32,
        epochs: int | None = None,
        steps: int | None = None,
        eval_freq: int | str = "epoch",
        sample_weight: Any = None,
        class_weight: dict[int, float] | None = None,
        shuffle: bool = True,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        verbose: int = 1,
        resume: bool = True,
    ) -> "pd.DataFrame":
        """Runs the search, or what is left of it.

        Args:
            x: training inputs: an array, a structure of arrays, or a batched
                `tf.data.Dataset` of (inputs, targets). A data set keeps its own order:
                only one that does not shuffle itself anew resumes to the bit.
            y: targets, for arrays.
            validation_data: (x, y) or a data set; finds the early stop and the best
                ticket.
            test_data: (x, y) or a data set; is reported, and never chooses.
            batch_size: examples in a step, for arrays; what is left over in an epoch is
                dropped.
            epochs: length of the dense training.
            steps: the same in optimizer steps, instead of `epochs`.
            eval_freq: steps from one validation to the next, or `"epoch"`. With
                `steps_per_execution` in `compile`, validation comes at the end of the
                execution that the step falls into.
            sample_weight: weights of the training examples, for arrays.
            class_weight: as of `fit`.
            shuffle: whether arrays are shuffled in every epoch.
            callbacks: Keras callbacks, copied for each training. At the end of an epoch
                they see `val_loss` and `val_accuracy` of the last validation.
            verbose: 0 is silent; 1 shows progress on a terminal.
            resume: whether to go on with what the directory holds; otherwise the search
                in it is removed, once all arguments have been checked.

        Returns:
            The table of `results()`.

        Raises:
            ValueError: if arguments or data do not fit, or the directory holds a search
                with other settings; nothing has been trained then.
            FloatingPointError: if a loss is not a number.
            OSError: if a result cannot be written. What was finished stays: run again.
        """
        train = x
        if not is_tf_dataset(x):
            train = (x, y) if sample_weight is None else (x, y, sample_weight)
        data = Data(train, validation_data, test_data, batch_size, shuffle)
        length = training_steps(data, epochs, steps, eval_freq)
        k = rewinds.rewind_step(self.rewind_to, data.steps_per_epoch, length)
        model, initial = build(self._source, self.prunable, self.seed, 0)
        self._rehearse(get_masks(model))
        settings = {
            "schedule": self.schedule,
            "criterion": self.criterion,
            # Of a function, the name that it was asked for by.
            "allocation": self._allocation
            if dataclasses.is_dataclass(self._allocation)
            else self.allocation,
            "rewind": self.rewind,
            "rewind_to": self.rewind_to,
            "seed": self.seed,
            "steps": length,
            "batch_size": batch_size,
            "eval_freq": eval_freq,
            "shuffle": shuffle,
            "class_weight": class_weight,
            "callbacks": [type(callback).__name__ for callback in callbacks],
            "train": describe_data(data.train),
            "validation": describe_data(data.validation),
            "test": describe_data(data.test),
            "model": describe_model(model),
            "replicates": self.replicates,
            "controls": self.controls,
            "initial": describe_state(initial),
            "versions": versions(),
            "architecture": architecture.to_text(model),
        }
        settings = describe(settings)
        engine = FitEngine(model, data, length, k, eval_freq, callbacks, class_weight)
        if not resume:
            self.store.clear()
        open_store(self.store, settings)
        by_level = 1 + bool(self._rewind.trunk) + len(self._controls)
        total = self.replicates * (1 + len(self.schedule) * by_level)
        with Progress(total, verbose) as progress:
            trainings = Trainings(self.store, engine, progress)
            # All are drawn before the first training, in case one cannot be.
            starts = []
            for replicate in range(self.replicates):
                draw = partial(build, self._source, self.prunable, self.seed, replicate)
                starts.append(
                    initial_weights(self.store, replicate, model, initial, draw)
                )
            for replicate, weights in enumerate(starts):
                self._search(trainings, replicate, weights, Span(k, length))
        return self.results()

    def _search(
        self, trainings: Trainings, replicate: int, initial: State, span: Span
    ) -> None:
        """The algorithm, for one replicate."""
        model, data = trainings.engine.model, trainings.engine.data
        seed = partial(derive_seed, self.seed, replicate)
        order = seed("order")
        masks = Masks.dense(
            {name: mask.shape for name, mask in get_masks(model).items()}
        )
        ticket = Ticket(masks, initial, 0, span.steps)
        dense = training = trainings.train(
            Unit(replicate, 0, "ticket"), ticket, order, ("rewind_point", "final")
        )
        self._write_results(trainings.rows)
        for level, sparsity in enumerate(self._sparsities(masks), start=1):
            set_state(model, training.final, masks)
            snapshot = Snapshot(
                masks,
                training.final,
                initial,
                dense.rewind_point,
                np.random.default_rng(seed("prune", level)),
                model,
                data.arrays,
            )
            scores = self._criterion(snapshot)
            masks = self._allocation(scores, masks, sparsity)
            ticket = self._rewind.ticket(snapshot, masks, span)
            training = trainings.train(
                Unit(replicate, level, "ticket"), ticket, order, ("final",)
            )
            for name, control, trial in self._controls:
                rng = np.random.default_rng(seed(name, level, trial))
                drawn = dataclasses.replace(snapshot, rng=rng, scores=scores)
                trainings.train(
                    Unit(replicate, level, name, trial),
                    partial(control_registry.apply, control, ticket, drawn),
                    order,
                )
            if self._rewind.trunk and level < len(self.schedule):
                trunk = self._rewind.trunk(snapshot, masks, span)
                training = trainings.train(
                    Unit(replicate, level, "trunk"), trunk, order, ("final",)
                )
            self._write_results(trainings.rows)

    def results(self) -> "pd.DataFrame":
        """The table of what was trained so far: one row a training.

        Columns: level, sparsity, density, variant (`"ticket"` or a control's name),
        replicate, trial, seconds (of training alone), and accuracies (shares), losses
        and steps: at the early stop, the step of least validation loss, and at the end.
        """
        return results.tabulate(row(self._read(unit)[1]) for unit in self.units())

    def verdict(self, on: str | None = None, tolerance: float = 0.0) -> "pd.DataFrame":
        """By level: does the ticket win, and does it beat its controls?

        Arguments and columns as of `keras_lottery.results.verdict`.
        """
        return results.verdict(self.results(), on, tolerance)

    def best_ticket(self) -> Ticket:
        """The sparsest winning level's best replicate, by validation accuracy.

        Early stops are compared; the ticket's `trained_model` is that of the end of
        training. Warns if no level wins, and gives the ticket that came closest.

        Raises:
            ValueError: if no ticket was trained yet.
        """
        if not any(unit.level and unit.variant == "ticket" for unit in self.units()):
            raise ValueError("There is no ticket: call `search` first.")
        table = self.verdict(on="validation")
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
        training, meta, masks = self._read(Unit(replicate, level, "ticket"))
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
            derive_seed(self.seed, replicate, "initial"),
        )

    def curve(
        self, level: int, variant: str = "ticket", replicate: int = 0, trial: int = 0
    ) -> dict[str, list[float]]:
        """Validation loss and accuracy by step, of one training.

        Returns:
            Lists of equal length: `step`, `val_loss`, `val_accuracy`.
        """
        return self._read(Unit(replicate, level, variant, trial))[0].curve

    def _start_weights(self, level: int, replicate: int) -> State:
        initial = read_record(self.store.initial(replicate), "initial")[1]["weights"]
        if not level:
            return initial
        dense = self._read(Unit(replicate, 0, "ticket"))[0]
        found_by = "trunk" if self._rewind.trunk and level > 1 else "ticket"
        training, _, masks = self._read(Unit(replicate, level - 1, found_by))
        snapshot = Snapshot(
            masks,
            training.final,
            initial,
            dense.rewind_point,
            np.random.default_rng(0),
            None,
        )
        return self._rewind.ticket(snapshot, masks, Span(0, 1)).weights

    def _read(self, unit: Unit) -> Any:
        return read_training(self.store.training(unit))

    def units(self) -> list[Unit]:
        """The reported trainings that are stored so far."""
        variants = [("ticket", 0)] + [
            (name, trial) for name, _, trial in self._controls
        ]
        units = [
            Unit(replicate, level, variant, trial)
            for replicate in range(self.replicates)
            for level in range(len(self.schedule) + 1)
            for variant, trial in variants
        ]
        return [unit for unit in units if self.store.training(unit).exists()]

    def _write_results(self, rows: list[dict[str, Any]]) -> None:
        table = results.tabulate(r for r in rows if r["variant"] != "trunk")
        write_atomically(
            self.store.results, lambda file: table.to_csv(file, index=False)
        )

    def _sparsities(self, masks: Masks) -> list[float]:
        total = getattr(self._allocation, "total_sparsity", None)
        if total is None or not self.schedule.by_rate:
            return list(self.schedule)
        return [total(sparsity, masks) for sparsity in self.schedule]

    def _rehearse(self, masks: Masks) -> None:
        """Allocates every level, so that what cannot be pruned is known before."""
        scores = {name: np.zeros(mask.shape) for name, mask in masks.items()}
        for sparsity in self._sparsities(masks):
            masks = self._allocation(scores, masks, sparsity)
