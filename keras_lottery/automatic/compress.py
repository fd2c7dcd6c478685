"""`auto_compress`: a smaller model within a budget, with layers' rates by annealing."""

import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import numpy as np

from keras_lottery import checks, files
from keras_lottery.automatic.pruner import Pruner
from keras_lottery.automatic.rates import anneal, draw
from keras_lottery.automatic.rounds import Rounds
from keras_lottery.engines.as_in_fit import gather
from keras_lottery.engines.data import Data
from keras_lottery.engines.evaluation import evaluate
from keras_lottery.engines.fits import check_fits
from keras_lottery.in_fit.callbacks import ADMMPruning
from keras_lottery.keras_bridge import checks as keras_checks
from keras_lottery.keras_bridge.layers import get_state, is_masked, mask_model
from keras_lottery.pruning import chosen, of_network, prune
from keras_lottery.quiet import quiet
from keras_lottery.search.settings import describe, describe_data, describe_model
from keras_lottery.structured import compact, multiply_adds
from keras_lottery.structured.smaller import Cost
from keras_lottery.structured.units import NoFilters
from keras_lottery.tickets.criteria import CriterionLike

Of = Literal["multiply_adds", "parameters", "latency"]
By = Literal["annealing", "random"]

SEARCHES = {"annealing": anneal, "random": draw}
TRIES = 8
"""How often the multiply-adds are lowered until a file is fast enough."""


@dataclass(frozen=True)
class Compressed:
    """The result of `auto_compress`; `str()` formats it as readable lines.

    Attributes:
        model: the smaller model, compiled in the same way as the given one.
        filters: the number of filters before and after, by layer.
        before, after: the costs of the two models.
        latency: the smaller model's share of the latency of a `.tflite` file, if that
            was the budget.
        losses: the validation losses: `"before"` of the given model;
            `"round 1, pruned"` and `"round 1"` of each round, after pruning and after
            fine-tuning; and `"after"` of the result.
        evaluations: the number of candidates that were evaluated.
    """

    model: keras.Model
    filters: Mapping[str, tuple[int, int]]
    before: Cost
    after: Cost
    latency: float | None
    losses: Mapping[str, float]
    evaluations: int

    def __str__(self) -> str:
        lines = [
            f"{name:14} {old:,} -> {new:,} ({new / max(old, 1):.1%})"
            for name, old, new in (
                ("parameters", self.before.parameters, self.after.parameters),
                ("multiply-adds", self.before.multiply_adds, self.after.multiply_adds),
            )
        ]
        if self.latency is not None:
            lines.append(f"latency        {self.latency:.1%}")
        lines += [f"  {n}: {a} -> {b} filters" for n, (a, b) in self.filters.items()]
        lines += [f"loss {name}: {loss:.4g}" for name, loss in self.losses.items()]
        return "\n".join(lines)


def auto_compress(
    model: keras.Model,
    target: float,
    data: Any,
    validation_data: Any,
    *,
    of: Of = "multiply_adds",
    criterion: CriterionLike = "l1",
    by: By = "annealing",
    evaluations: int = 100,
    rounds: int = 1,
    epochs: int = 3,
    admm_epochs: int = 0,
    purify: float = 0.01,
    batch_size: int = 32,
    directory: str | os.PathLike | None = None,
    seed: int = 0,
    verbose: int = 1,
) -> Compressed:
    """Removes filters until a budget is met, where this raises the loss least.

    Each round searches for the pruning rates of the layers: candidates are pruned by
    the criterion without training, and evaluated by the validation loss. All candidates
    meet the budget, because the rates of each one are raised together until it does.
    The best candidate is pruned, compacted and fine-tuned, and the next round starts
    from the resulting model. At the end the network is purified: filters are removed
    whose removal raises the loss by almost nothing.

    Args:
        model: a compiled Sequential or Functional model, which is left untouched.
        target: the largest share of the cost that the result may have.
        data: (x, y) or a data set for fine-tuning, and for criteria that need data.
        validation_data: (x, y) or a data set that chooses among the candidates. Because
            it chooses among many, evaluate the result on other data.
        of: the cost that `target` refers to: `"multiply_adds"` of a forward pass,
            `"parameters"`, or the `"latency"` of a `.tflite` file. The latency is
            measured (with TensorFlow), and the multiply-adds are lowered until it meets
            the target.
        criterion: how filters are scored, see `prune`. With `admm_epochs` it serves to
            find the rates and to purify, but ADMM chooses the filters that a round
            prunes, by the mean of their squared weights.
        by: the search method for the rates: `"annealing"`, or `"random"` as a baseline.
        evaluations: the number of candidates that each round evaluates.
        rounds: the number of rounds; each removes the same share of the remaining cost.
        epochs: the number of epochs of fine-tuning after each round.
        admm_epochs: the number of epochs of training before each pruning, in which ADMM
            draws the filters that will be pruned towards zero.
        purify: the share by which purifying may raise the validation loss. A network
            that is not fine-tuned (`epochs=0`) is not purified: until it is, its loss
            does not tell which filters are useless.
        batch_size: the batch size of training.
        directory: where the rounds are stored. A second run with the same arguments
            continues where the first one stopped. By default nothing is stored.
        seed: the seed of all random numbers.
        verbose: 0 is silent; 1 reports each round.

    Raises:
        ValueError: if an argument is not one of its choices, the data do not fit, the
            model cannot be pruned, the target cannot be met, or the directory holds
            the results of something else.
        BlockingIOError: if another compression is running in the directory.

    Reference:
        Liu et al. 2020, "AutoCompress: an automatic DNN structured pruning framework
        for ultra-high compression rates". The paper prunes columns as well, which makes
        no Keras layer smaller.

    Example:

    ```python
    found = kl.automatic.auto_compress(model, 0.3, train, validation, epochs=10)
    print(found)
    kl.export.to_litert(found.model, "small.tflite")
    ```
    """
    keras_checks.compiled("model", model)
    checks.number("target", target, above=0, most=1)
    checks.choice("of", of, get_args(Of))
    chosen(criterion, None, "filter")
    checks.choice("by", by, get_args(By))
    for name, value, least in (
        ("evaluations", evaluations, 1),
        ("rounds", rounds, 1),
        ("epochs", epochs, 0),
        ("admm_epochs", admm_epochs, 0),
        ("batch_size", batch_size, 1),
    ):
        checks.count(name, value, least)
    checks.number("purify", purify, 0)
    checks.seed("seed", seed)
    checks.verbose("verbose", verbose)
    if directory is not None:
        checks.directory("directory", directory)
    whole = model if is_masked(model) else mask_model(model)
    given = gather(
        *(data if isinstance(data, tuple | list) and len(data) in (2, 3) else (data,)),
        validation_data=validation_data,
        batch_size=batch_size,
    )
    check_fits(whole, given)
    settings = {
        "target": target,
        "of": of,
        "criterion": describe(criterion),
        "by": by,
        "evaluations": evaluations,
        "rounds": rounds,
        "epochs": epochs,
        "admm_epochs": admm_epochs,
        "purify": purify,
        "batch_size": batch_size,
        "seed": seed,
        "model": describe_model(whole),
        "weights": files.digest(get_state(whole)),
        "train": describe_data(given.train),
        "validation": describe_data(given.validation),
    }
    with (
        tempfile.TemporaryDirectory(prefix="keras_lottery-") as temporary,
        files.alone(
            place := Path(temporary if directory is None else directory), "compression"
        ),
    ):
        steps = Rounds(place, settings, verbose)
        first = Pruner(whole, given.validation)
        search = partial(SEARCHES[by], evaluations=evaluations, seed=seed)
        work = _Work(given, criterion, search, epochs, admm_epochs, seed, steps)
        if of != "latency":
            return work.compress(first, of, target, rounds, purify, timed=False)
        share = steps.share(partial(work.within_latency, first, target))
        return work.compress(first, "multiply_adds", share, rounds, purify, timed=True)


@dataclass
class _Work:
    """The rounds of `auto_compress`, with the same arguments."""

    data: Data
    criterion: CriterionLike
    search: Any
    epochs: int
    admm_epochs: int
    seed: int
    steps: Rounds

    def compress(
        self,
        first: Pruner,
        of: str,
        target: float,
        rounds: int,
        purify: float,
        timed: bool,
    ) -> Compressed:
        """Runs all rounds and returns the result."""
        whole = first.cost(first.sizes)
        pruner: Pruner | None = first
        losses = {"before": first.loss(first.masks)}
        model = compact(first.model)
        for number in range(1, rounds + 1):
            if pruner is None:
                break
            budget = getattr(whole, of) * target ** (number / rounds)
            counts = self.rates(pruner, budget, of, f"round {number}")
            scores = pruner.scores(self.criterion, self.data.train, self.seed)
            name = f"round {number}"
            losses[f"{name}, pruned"] = pruner.loss(pruner.pruned(scores, counts))
            make = partial(self.pruned, pruner, counts)
            model = self.steps.model(name, counts, model, make)
            pruner = self.pruner(model)
            losses[name] = self.loss(model)
            self.steps.say(f"{name}: {cost_of(model)}, loss {losses[name]:.4g}")
        if purify and self.epochs and pruner is not None:
            model = self.purified(pruner, purify)
        losses["after"] = self.loss(model)
        left = getattr(self.pruner(model), "sizes", {})
        latency = self.latencies([compact(first.model), model]) if timed else [1, 1]
        return Compressed(
            model,
            {name: (n, left.get(name, 1)) for name, n in first.sizes.items()},
            whole,
            cost_of(model),
            latency[1] / latency[0] if timed else None,
            losses,
            self.steps.evaluations,
        )

    def rates(
        self, pruner: Pruner, budget: float, of: str, name: str
    ) -> dict[str, int]:
        """Returns how many filters each layer keeps in the candidate of lowest loss."""
        scores = pruner.scores(self.criterion, self.data.train, self.seed)

        def energy(point: np.ndarray) -> float:
            counts = pruner.within(point, budget, of)
            judge = lambda: pruner.loss(pruner.pruned(scores, counts))  # noqa: E731
            return self.steps.loss(name, counts, judge)

        best = self.search(energy, len(pruner.sizes))
        return pruner.within(best, budget, of)

    def pruner(self, model: keras.Model) -> Pruner | None:
        """Returns a pruner of a model, or None if it has no filters to prune."""
        try:
            return Pruner(model, self.data.validation)
        except NoFilters:
            return None

    def loss(self, model: keras.Model) -> float:
        """Returns the validation loss."""
        return float(evaluate(model, self.data.validation)["loss"])

    def pruned(self, pruner: Pruner, counts: Mapping[str, int]) -> keras.Model:
        """Returns the model with these numbers of filters, compacted and fine-tuned."""
        rates = pruner.rates(counts)
        masked = mask_model(pruner.model)
        if self.admm_epochs:
            left = pruner.units.left(pruner.masks)
            sparsity, allocation = of_network(rates, None, left)
            how = {"allocation": allocation, "granularity": "filter"}
            admm = ADMMPruning(sparsity, **how)  # type: ignore[arg-type]
            self.fit(masked, self.admm_epochs, [admm])
        else:
            prune(
                masked,
                rates,
                self.criterion,
                granularity="filter",
                data=self.data.train,
                seed=self.seed,
            )
        small = compact(masked)
        self.fit(small, self.epochs, [])
        return small

    def fit(self, model: keras.Model, epochs: int, callbacks: list[Any]) -> None:
        """Trains on batches in an order given by the seed, all epochs in one `fit`."""
        if not epochs:
            return
        per_epoch = self.data.steps_per_epoch
        batches = self.data.batches(0, 0, per_epoch, self.seed)
        if isinstance(batches, keras.utils.PyDataset):
            shuffle = lambda epoch, _: batches.set_epoch(epoch)  # noqa: E731
            callbacks = [
                keras.callbacks.LambdaCallback(on_epoch_begin=shuffle),
                *callbacks,
            ]
        model.fit(
            batches,
            epochs=epochs,
            steps_per_epoch=self.data.steps and per_epoch,
            callbacks=callbacks,
            shuffle=False,
            verbose=0,
        )

    def purified(self, pruner: Pruner, share: float) -> keras.Model:
        """Returns the model without filters whose removal costs almost nothing.

        Layer by layer, the filters with the lowest scores are removed as long as the
        loss stays within the limit: twice as many at each try, until a try fails and is
        undone.
        """
        scores = pruner.scores(self.criterion, self.data.train, self.seed)
        limit = pruner.loss(pruner.masks)
        limit += share * abs(limit)
        counts = dict(pruner.sizes)
        for name in counts:
            fewer = 1
            while counts[name] > fewer:
                tried = {**counts, name: counts[name] - fewer}
                if pruner.loss(pruner.pruned(scores, tried)) > limit:
                    break
                counts, fewer = tried, 2 * fewer
        masked = mask_model(pruner.model)
        prune(
            masked,
            pruner.rates(counts),
            self.criterion,
            granularity="filter",
            data=self.data.train,
            seed=self.seed,
        )
        return compact(masked)

    def within_latency(self, pruner: Pruner, target: float) -> float:
        """Returns the share of multiply-adds at which a file is fast enough."""
        whole, share = pruner.cost(pruner.sizes).multiply_adds, target
        for _ in range(TRIES):
            # The first round prunes the same model, so it shares these losses.
            counts = self.rates(pruner, share * whole, "multiply_adds", "round 1")
            masked = mask_model(pruner.model)
            rates = pruner.rates(counts)
            prune(masked, rates, "l1", granularity="filter")
            dense, small = self.latencies([compact(pruner.model), compact(masked)])
            self.steps.say(f"{share:.1%} of the multiply-adds: {small / dense:.1%}")
            if small <= target * dense:
                return share
            share *= 0.95 * (target * dense / small) ** 1.5
        raise ValueError(
            f"Expected a target that filters can meet. Received: target={target} of "
            f"the latency, {small / dense:.3f} of which was reached after {TRIES} "
            "tries. Choose a larger one."
        )

    def latencies(self, models: list[keras.Model]) -> list[float]:
        """Returns microseconds of the models' `.tflite` files, timed side by side."""
        from keras_lottery.ship.deploy.files import measured
        from keras_lottery.ship.export import to_litert

        with tempfile.TemporaryDirectory(prefix="keras_lottery-") as folder:
            paths = [Path(folder, f"{i}.tflite") for i in range(len(models))]
            for model, path in zip(models, paths, strict=True):
                with quiet():
                    to_litert(model, path, sparse=False)
            return measured(paths)["p50_us"].tolist()


def cost_of(model: keras.Model) -> Cost:
    """Returns the cost of a model without masks."""
    with warnings.catch_warnings(action="ignore"):  # about layers that stay whole
        return Cost(model.count_params(), multiply_adds(model))
