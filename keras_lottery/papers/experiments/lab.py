"""Where an experiment runs: what it trains is kept, and done once."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from keras_lottery.engines import Engine, make
from keras_lottery.engines.data import Data
from keras_lottery.files import write_atomically
from keras_lottery.in_fit.callbacks.common import Configured
from keras_lottery.keras_bridge.layers import State, get_masks
from keras_lottery.masks import Masks
from keras_lottery.papers import data, models
from keras_lottery.papers.experiments.experiment import Scale
from keras_lottery.papers.experiments.figures import lines
from keras_lottery.papers.experiments.measures import ACCURACY, LABELS, join, summarise
from keras_lottery.papers.experiments.training import Trained, Training
from keras_lottery.papers.models import Recipe
from keras_lottery.search import LotteryTicketSearch
from keras_lottery.search.replicates import build
from keras_lottery.search.results import own_steps
from keras_lottery.search.settings import describe, describe_data, describe_model
from keras_lottery.study import plots
from keras_lottery.tickets import schedules
from keras_lottery.tickets.allocation import AllocationLike, Layerwise
from keras_lottery.tickets.schedules import Schedule

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Model = str | Callable[..., keras.Model]


@dataclass
class Lab:
    """Trains at a scale, in a directory.

    Args:
        scale: how large.
        directory: where everything is kept.
        verbose: 0 is silent; 1 shows progress on a terminal.

    Raises:
        FileNotFoundError: if the data are not on this machine.

    Attributes:
        splits: the data.
        tables: those that were made, by name.
        figures: names of those that were made.
        networks: names of those that were built, in this order.
        seconds: of the trainings in the tables, done now or before.
    """

    scale: Scale
    directory: Path
    verbose: int = 1
    tables: dict[str, "pd.DataFrame"] = field(default_factory=dict)
    figures: list[str] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)
    seconds: float = 0.0
    _last: tuple[str, Engine | None] = ("", None)

    @property
    def recipe(self) -> Recipe:
        """The scale's training."""
        return self.scale.recipe

    @property
    def replicates(self) -> range:
        """The replicates."""
        return range(self.scale.replicates)

    def __post_init__(self) -> None:
        # What is missing is named before anything is written.
        self.splits = data.load(self.scale.data)

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
        """Searches for tickets, or for those that are missing.

        Args:
            name: of the search, in the experiment.
            rate: share of what is left that each round prunes; the recipe's by default.
            levels: rounds of pruning; the scale's by default.
            schedule: the sparsities, instead of rate and levels.
            allocation: by default each layer at the recipe's rate, which `rate` scales.
            report_levels: the scale's by default, as far as there are such levels.
            recipe: another training than the scale's.
            model: another network than the scale's: a name, or a function
                `(input_shape, classes) -> model`.
            arguments: others of `LotteryTicketSearch`; no controls by default.

        Returns:
            The search, gone through.
        """
        recipe = recipe or self.recipe
        highest = max(recipe.rates.values())
        rate = rate or highest
        if schedule is None:
            levels = levels or self.scale.levels
            schedule = schedules.geometric(rate, levels)
            report = report_levels or self.scale.report
            report_levels = report and [*(k for k in report if k < levels), levels]
        scaled = {p: r * rate / highest for p, r in recipe.rates.items()}
        search = LotteryTicketSearch(
            self._source(recipe, model),
            schedule,
            allocation=allocation or Layerwise(scaled, rate),
            report_levels=report_levels,
            directory=self.directory / name,
            **{"controls": (), "replicates": self.scale.replicates, **arguments},
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
        self.seconds += float(table["seconds"].sum())
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
        """Trains one network outside of a search, unless that was done before.

        Args:
            name: of the training, in the experiment.
            start: the weights to start from; the replicate's initial ones by default,
                which are those of its searches.
            masks: the weights that are left; all by default.
            step: the step that the training starts at.
            checkpoints: steps whose states are kept, multiples of the recipe's
                `eval_freq`. Those of the start and the end are kept always.
            replicate: chooses the initial weights and the order of the data.
            order: chooses another order of the data.
            recipe, model: as of `search`.
            callbacks: the library's own; what they prune is zero at the end.
        """
        recipe = recipe or self.recipe
        built, initial = self.model(replicate, recipe, model)
        asked = {
            "steps": recipe.steps,
            "batch_size": recipe.batch_size,
            "eval_freq": recipe.eval_freq,
            "model": describe_model(built),
            **self._described_data,
        }
        if callbacks:
            asked["callbacks"] = [_describe(callback) for callback in callbacks]
        training = Training(
            self.directory / f"{name}.safetensors",
            replicate,
            order,
            step,
            tuple(checkpoints),
        )
        trained = training.run(
            asked,
            partial(self._engine, built, recipe, callbacks),
            recipe,
            start or initial,
            masks or get_masks(built),
        )
        self.seconds += trained.metrics["seconds"]
        return trained

    def model(
        self,
        replicate: int = 0,
        recipe: Recipe | None = None,
        model: Model | None = None,
    ) -> tuple[keras.Model, State]:
        """The masked model, compiled, and a replicate's initial weights."""
        return build(self._source(recipe or self.recipe, model), None, 0, replicate)

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
        """Keeps searches of the same network beside each other, in one drawing.

        Args:
            name: of the table and the figure.
            searches: by label.
            column: the accuracy to show, the one that claims are judged on:
                `measures.ACCURACY` or `measures.FINAL`.
            controls: whether controls are shown, too.

        Returns:
            Their results as `measures.join` makes them one table, early stops counted
            from where each training began. It is kept as
            `<name>_trainings.csv`, its means by level and variant as `<name>.csv`.
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
        """Keeps searches beside each other, each in a drawing of its own.

        Arguments and files are those of `compare`.

        Returns:
            Their results by label.
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
        networks = self.networks  # the laboratory itself would go to the workers

        def build_network() -> keras.Model:
            network = models.build(builder, recipe, shape, classes)
            if network.name not in networks:
                networks.append(network.name)
            return network

        return build_network

    def _engine(
        self, model: keras.Model, recipe: Recipe, callbacks: Sequence[Configured]
    ) -> Engine:
        """What trains a model. The last one is kept: it may train the next as well."""
        key = str((describe_model(model), recipe, [_describe(c) for c in callbacks]))
        if self._last[0] != key:
            parts = self.splits.train, self.splits.validation, self.splits.test
            engine = make(
                "auto",
                model,
                Data(*parts, recipe.batch_size),
                recipe.steps,
                eval_freq=recipe.eval_freq,
                trainings=self.scale.replicates,
                callbacks=callbacks,
            )
            self._last = key, engine
        assert self._last[1] is not None
        return self._last[1]


def _describe(callback: Configured) -> dict[str, Any]:
    """A callback's arguments, as JSON."""
    names = inspect.signature(type(callback)).parameters
    arguments = {name: describe(getattr(callback, name)) for name in names}
    return {"class": type(callback).__name__, **arguments}
