"""Runs the trainings of an experiment: each is done once, and its result kept."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from keras_lottery import data
from keras_lottery.data import Splits
from keras_lottery.engines import Engine
from keras_lottery.engines.data import Data
from keras_lottery.files import write_atomically
from keras_lottery.in_fit.callbacks.common import Configured
from keras_lottery.keras_bridge.layers import State
from keras_lottery.keras_bridge.layers.convert import Prunable
from keras_lottery.keras_bridge.layers.inside import class_of
from keras_lottery.keras_bridge.layers.kinds import is_multiplied
from keras_lottery.masks import Masks
from keras_lottery.papers import models
from keras_lottery.papers.experiments.experiment import Scale
from keras_lottery.papers.experiments.figures import lines
from keras_lottery.papers.experiments.measures import ACCURACY, LABELS, join, summarise
from keras_lottery.papers.experiments.training import Start, Trained, describe_task
from keras_lottery.papers.models import Recipe
from keras_lottery.search import LotteryTicketSearch
from keras_lottery.search.at_work import at_work
from keras_lottery.search.replicates import build
from keras_lottery.search.results import own_steps
from keras_lottery.search.settings import (
    describe,
    describe_data,
    describe_model,
    keep_settings,
)
from keras_lottery.search.setup import Options, Setup
from keras_lottery.search.store import Store
from keras_lottery.study import plots
from keras_lottery.tickets import Ticket, schedules
from keras_lottery.tickets.allocation import AllocationLike, Layerwise
from keras_lottery.tickets.schedules import Schedule

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Model = str | Callable[..., keras.Model]


def with_kernel(layer: keras.layers.Layer) -> bool:
    """Whether a layer has a kernel to mask; frozen and depthwise ones count, too."""
    return is_multiplied(class_of(layer))


def _prunable(recipe: Recipe) -> Prunable:
    return with_kernel if recipe.prunable is None else recipe.prunable


@dataclass
class Lab:
    """Trains at a scale, in a directory.

    Args:
        scale: the size of the experiment.
        directory: where everything is kept.
        verbose: 0 is silent; 1 shows progress.
        splits: the data; those of the scale by default.

    Raises:
        FileNotFoundError: if the data are not on this machine.

    Attributes:
        tables: the tables made so far, by name.
        figures: the names of the figures made so far.
        networks: the names of the networks built so far, in order.
    """

    scale: Scale
    directory: Path
    verbose: int = 1
    tables: dict[str, "pd.DataFrame"] = field(default_factory=dict)
    figures: list[str] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)
    splits: Splits = None  # type: ignore[assignment]
    _seconds: list[float] = field(default_factory=list)
    _last: tuple[str, Engine | None] = ("", None)

    @property
    def seconds(self) -> float:
        """The time of all trainings in the tables, done now or earlier."""
        return sum(self._seconds)

    @property
    def recipe(self) -> Recipe:
        """The recipe of the scale."""
        return self.scale.recipe

    @property
    def replicates(self) -> range:
        """The numbers of the replicates."""
        return range(self.scale.replicates)

    def __post_init__(self) -> None:
        # Missing data raise an error before anything is written.
        if self.splits is None:
            source = self.scale.data
            self.splits = source() if callable(source) else data.load(source)

    def with_data(self, splits: Splits, **changes: Any) -> "Lab":
        """A lab with other data, in the same directory.

        Its tables, figures and training times are part of this lab as well.

        Args:
            splits: the data.
            changes: changes to the scale, such as its recipe or its model.
        """
        scale = replace(self.scale, data=splits.name, **changes)
        return replace(self, scale=scale, splits=splits, _last=("", None))

    @cached_property
    def _described_data(self) -> dict[str, Any]:
        """Shapes and digests of the data."""
        names = ("train", "validation", "test")
        return {name: describe_data(getattr(self.splits, name)) for name in names}

    def search(
        self,
        name: str,
        *,
        rate: float | None = None,
        levels: int | None = None,
        schedule: Schedule | Sequence[float] | None = None,
        allocation: AllocationLike | None = None,
        report_levels: Sequence[int] | None = None,
        recipe: Recipe | None = None,
        model: Model | None = None,
        **arguments: Any,
    ) -> LotteryTicketSearch:
        """Runs a search for tickets, or the rest of it.

        Args:
            name: the name of the search within the experiment.
            rate: the share of the remaining weights that each round prunes; that of the
                recipe by default.
            levels: rounds of pruning; those of the scale by default.
            schedule: the sparsities, instead of rate and levels.
            allocation: by default, each layer is pruned at the rate of the recipe,
                scaled by `rate`.
            report_levels: those of the scale by default, up to the last level.
            recipe: another recipe than that of the scale.
            model: another network than that of the scale: a name, or a function
                `(input_shape, classes) -> model`.
            arguments: other arguments of `LotteryTicketSearch`; there are no controls
                by default.

        Returns:
            The finished search.
        """
        recipe = recipe or self.recipe
        highest = max(recipe.rates.values())
        rate = rate or highest
        if schedule is None:
            schedule = schedules.geometric(rate, levels or self.scale.levels)
        if report_levels is None and self.scale.report:
            last = len(schedule)
            report_levels = [*(k for k in self.scale.report if k < last), last]
        scaled = {p: r * rate / highest for p, r in recipe.rates.items()}
        search = LotteryTicketSearch(
            self._source(recipe, model),
            schedule,
            allocation=allocation or Layerwise(scaled, rate),
            report_levels=report_levels,
            directory=self.directory / name,
            **{
                "controls": (),
                "replicates": self.scale.replicates,
                "prunable": recipe.prunable,
                **arguments,
            },
        )
        table = search.search(
            *self.splits.train,
            validation_data=self.splits.validation,
            test_data=self.splits.test,
            batch_size=recipe.batch_size,
            steps=recipe.steps,
            eval_freq=recipe.eval_freq,
            verbose=self.verbose,
        )
        self._seconds.append(float(table["seconds"].sum()))
        return search

    def train(
        self,
        name: str,
        start: State | None = None,
        masks: Masks | None = None,
        step: int = 0,
        checkpoints: Sequence[int] = (),
        replicate: int = 0,
        order: int = 0,
        recipe: Recipe | None = None,
        model: Model | None = None,
        callbacks: Sequence[Configured] = (),
    ) -> Trained:
        """Trains one network outside a search, unless that was done before.

        Args:
            name: the name of the training within the experiment.
            start, masks, step, checkpoints, replicate, order: see `Start`.
            recipe, model: same as in `search`.
            callbacks: callbacks of this library. Weights that they prune are zero at
                the end.
        """
        one = Start(
            weights=start,
            masks=masks,
            step=step,
            checkpoints=checkpoints,
            replicate=replicate,
            order=order,
        )
        return self.train_all(name, {"training": one}, recipe, model, callbacks)[
            "training"
        ]

    def train_all(
        self,
        name: str,
        starts: Mapping[str, Start],
        recipe: Recipe | None = None,
        model: Model | None = None,
        callbacks: Sequence[Configured] = (),
    ) -> dict[str, Trained]:
        """Trains networks that do not depend on one another, side by side.

        Args:
            name: the name of all these trainings within the experiment.
            starts: the start of each training, by label.
            recipe, model, callbacks: same as in `train`, for all trainings.

        Returns:
            The result of each training, by its label.

        Raises:
            ValueError: if other trainings are kept under this name.
        """
        recipe = recipe or self.recipe
        replicates = sorted({start.replicate for start in starts.values()})
        built = {r: self.model(r, recipe, model) for r in replicates}
        network = built[replicates[0]][0]
        tasks = {
            label: start.task(label, recipe, *built[start.replicate])
            for label, start in starts.items()
        }
        first: Any = next(iter(tasks.values())).ticket
        work = at_work(
            Store(self.directory / name),
            self._setup(recipe, model, callbacks),
            lambda setup: self._engine(setup, network),
            ticket=first,
            counts=[len(tasks)],
            workers="auto",
            verbose=self.verbose,
        )
        with work as site:
            settings = site.settings(
                study="trainings",
                callbacks=[_describe(callback) for callback in callbacks],
                trainings={n: describe_task(task) for n, task in tasks.items()},
                **self._described_data,
            )
            with site.settling:
                site.locks.take_all(replicates)
                keep_settings(site.records.store, describe(settings))
            done = site.trainings.train(tasks.values())
        trained = {}
        for label, task in tasks.items():
            training, ticket = done[task.which], task.ticket
            assert isinstance(ticket, Ticket)
            ends = {ticket.step: ticket.weights, recipe.steps: training.final}
            trained[label] = Trained({**training.passed, **ends}, training.metrics)
            self._seconds.append(training.metrics["seconds"])
        return trained

    def model(
        self,
        replicate: int = 0,
        recipe: Recipe | None = None,
        model: Model | None = None,
    ) -> tuple[keras.Model, State]:
        """The masked, compiled model, and a replicate's initial weights."""
        source = self._source(recipe or self.recipe, model)
        return build(source, _prunable(recipe or self.recipe), 0, replicate)

    def table(self, name: str, table: "pd.DataFrame") -> None:
        """Keeps a table, as a .csv file."""
        self._keep_csv(name, table)
        self.tables[name] = table

    def figure(self, name: str, figure: "Figure") -> None:
        """Keeps a figure, as .png and .svg files."""
        for kind in ("png", "svg"):
            plots.write_figure(figure, self.directory / f"{name}.{kind}")
        self.figures.append(name)

    def compare(
        self,
        name: str,
        searches: Mapping[str, LotteryTicketSearch],
        column: str = ACCURACY,
        controls: bool = True,
    ) -> "pd.DataFrame":
        """Keeps the results of searches of the same network, in one plot.

        Args:
            name: the name of the table and the figure.
            searches: by label.
            column: the accuracy to show, which should be the one that claims are judged
                by: `measures.ACCURACY` or `measures.FINAL`.
            controls: whether to show controls, too.

        Returns:
            The results in one table, made by `measures.join`. Early stops are counted
            from the start of each training. The table is kept as
            `<name>_trainings.csv`, and its means by level and variant as `<name>.csv`.
        """
        tables = {label: own_steps(s.results()) for label, s in searches.items()}
        if not controls:
            tables = {n: t[t["variant"] == "ticket"] for n, t in tables.items()}
        table = join(tables)
        self._keep_csv(f"{name}_trainings", table)
        self.table(name, summarise(table, column=column))
        if column == ACCURACY:
            self.figure(name, plots.plot_search(table))
        else:
            self._draw(name, table, column)
        return table

    def panels(
        self,
        name: str,
        searches: Mapping[str, LotteryTicketSearch],
        column: str = ACCURACY,
    ) -> dict[str, "pd.DataFrame"]:
        """Keeps the results of searches, each in a plot of its own.

        Arguments and files are the same as in `compare`.

        Returns:
            The results by label.
        """
        import pandas as pd

        tables = {label: own_steps(s.results()) for label, s in searches.items()}
        table = pd.concat([t.assign(arm=label) for label, t in tables.items()])
        self._keep_csv(f"{name}_trainings", table)
        self.table(name, summarise(table, "arm", column))
        self._draw(name, table, column, "arm")
        return tables

    def _draw(
        self, name: str, table: "pd.DataFrame", column: str, panels: str | None = None
    ) -> None:
        """Keeps a figure of an accuracy against density."""
        drawn = table.assign(**{column: 100 * table[column]})
        label = LABELS[column]
        self.figure(name, lines(drawn, "density", column, label, "variant", panels))

    def _keep_csv(self, name: str, table: "pd.DataFrame") -> None:
        path = self.directory / f"{name}.csv"
        write_atomically(path, lambda file: table.to_csv(file, index=False))

    def _source(self, recipe: Recipe, model: Model | None) -> Callable[[], keras.Model]:
        builder = models.get(model or self.scale.model)
        shape, classes = self.splits.input_shape, self.splits.classes
        networks = self.networks  # so that the lab itself is not sent to workers

        def build_network() -> keras.Model:
            network = models.build(builder, recipe, shape, classes)
            if network.name not in networks:
                networks.append(network.name)
            return network

        return build_network

    def _setup(
        self,
        recipe: Recipe,
        model: Model | None,
        callbacks: Sequence[Configured],
    ) -> Setup:
        """The description from which every process builds its engine."""
        options = Options(
            steps=recipe.steps,
            eval_freq=recipe.eval_freq,
            callbacks=callbacks,
            trainings=self.scale.replicates,
        )
        parts = self.splits.train, self.splits.validation, self.splits.test
        data = Data(*parts, recipe.batch_size)
        source = self._source(recipe, model)
        return Setup(source, _prunable(recipe), 0, "auto", data, options)

    def _engine(self, setup: Setup, model: keras.Model) -> Engine:
        """The engine of a model. The last one is kept, as the next may be the same."""
        callbacks = [_describe(c) for c in setup.options.callbacks]
        options = {**vars(setup.options), "callbacks": callbacks}
        assert setup.data is not None
        key = str((describe_model(model), setup.engine, setup.data.batch_size, options))
        if self._last[0] != key:
            self._last = key, setup.make(model)
        assert self._last[1] is not None
        return self._last[1]


def _describe(callback: Configured) -> dict[str, Any]:
    """A callback's arguments, as JSON."""
    names = inspect.signature(type(callback)).parameters
    arguments = {name: describe(getattr(callback, name)) for name in names}
    return {"class": type(callback).__name__, **arguments}
