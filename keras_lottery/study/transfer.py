"""Trains tickets in another training than the one in which they were found."""

import contextlib
import itertools
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.engines.as_in_fit import gather
from keras_lottery.engines.choose import check_engine
from keras_lottery.engines.data import Data, Examples, training_steps
from keras_lottery.engines.objective import Objective, named
from keras_lottery.files import digest
from keras_lottery.keras_bridge import checks as keras_checks
from keras_lottery.keras_bridge.checks import optimizer as optimizer_of
from keras_lottery.keras_bridge.internals.models import compile_arguments
from keras_lottery.keras_bridge.layers import State, get_masks, get_state, redraw
from keras_lottery.keras_bridge.layers.convert import fresh_optimizer
from keras_lottery.masks import Masks
from keras_lottery.search import results
from keras_lottery.search.arguments import checkpoint_steps
from keras_lottery.search.at_work import at_work
from keras_lottery.search.levels import ControlTicket
from keras_lottery.search.replicates import (
    Pretrained,
    begin,
    derive_seed,
    read_pretrained,
    trained_before,
)
from keras_lottery.search.settings import describe
from keras_lottery.search.setup import Options, Setup
from keras_lottery.search.store import Store, TrainingId
from keras_lottery.search.tasks import StoredTask
from keras_lottery.search.workers import check_workers
from keras_lottery.tickets import Snapshot, Ticket, grouping
from keras_lottery.tickets import controls as control_registry
from keras_lottery.tickets.carry_over import Carried, Replace, carry_over
from keras_lottery.tickets.controls import Control
from keras_lottery.tickets.grouping import Grouping
from keras_lottery.tickets.ticket import tickets_of

if TYPE_CHECKING:
    import pandas as pd


def compare_transfer(
    ticket: Ticket | Sequence[Ticket],
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    validation_data: Any,
    test_data: Any = None,
    optimizer: str | keras.optimizers.Optimizer | None = None,
    replace: Replace = (),
    controls: Mapping[str, int | tuple[Control, int]] | Sequence[str] | None = (
        "reinit",
        "random",
    ),
    objective: str | Objective | None = None,
    replicates: int | None = None,
    pretrained: Pretrained = False,
    seed: int = 0,
    batch_size: int = 32,
    epochs: int | None = None,
    steps: int | None = None,
    eval_freq: int | str = "epoch",
    checkpoint: int | str | None = None,
    engine: str = "auto",
    workers: int | str = "auto",
    resources: Mapping[str, Any] | None = None,
    directory: str | os.PathLike | None = None,
    overwrite: bool = False,
    verbose: int = 1,
) -> "pd.DataFrame":
    """Trains a ticket in another training, along with controls and the dense network.

    Args:
        ticket: the ticket, or one for each replicate.
        model: a compiled model, to which `Ticket.transfer` transfers the ticket. In
            replicate 0, its weights are those of the dense network and of the layers
            that do not come from the ticket; further replicates draw these weights from
            its initialisers. It is not changed.
        x, y: training data, same as in `LotteryTicketSearch.search`.
        validation_data: (x, y) or a data set; it determines the early stop.
        test_data: (x, y) or a data set; results on it are reported.
        optimizer: an optimizer to use instead of the model's own.
        replace: same as in `Ticket.transfer`.
        controls: same as in `LotteryTicketSearch`. Controls draw from the model's
            initialisers; their masks have the ticket's granularity.
        objective: same as in `LotteryTicketSearch`.
        replicates: how often everything is repeated, with other weights of the dense
            network and another order of the data. By default once for each ticket.
        pretrained: the layers of the dense network whose weights were trained before,
            same as in `LotteryTicketSearch`: they have the model's weights in every
            replicate.
        seed: the seed of everything that is random.
        batch_size, epochs, steps, eval_freq, checkpoint, verbose: same as in
            `LotteryTicketSearch.search`. All trainings have the same length, and begin
            at the start of the model's learning-rate schedule.
        engine, workers, resources: same as in `LotteryTicketSearch`.
        directory: where the trainings are stored; called again with the same arguments,
            they continue where they stopped. More `replicates` and `controls` may be
            added later. By default a temporary directory.
        overwrite: whether to remove the contents of the directory instead of continuing
            them; this happens after all arguments have been checked.

    Returns:
        A table like that of `LotteryTicketSearch.results`: at level 0 the dense
        network, at level 1 the ticket and its controls. `results.verdict` reads it.

    Raises:
        ValueError: if an argument is out of range, the ticket does not fit the model,
            a control needs something that the ticket lacks, such as scores, or starting
            weights that its file left out, or the directory holds other trainings;
            nothing has been trained then.
        FloatingPointError: if a loss of the dense network or of the ticket is not a
            number; a control's results are NaN then.
        BlockingIOError: if another process is training in this directory.

    Reference:
        Morcos et al. 2019, "One ticket to win them all: generalizing lottery ticket
        initializations across datasets and optimizers", section 3.

    Example::

        ticket = kl.load_ticket("winner.ticket")
        table = kl.compare_transfer(
            ticket, model, x, y, validation_data=validation, epochs=8, replicates=5
        )
        kl.results.verdict(table)
    """
    tickets = tickets_of("ticket", ticket)
    replicates = len(tickets) if replicates is None else replicates
    checks.count("replicates", replicates, 1)
    if len(tickets) not in (1, replicates):
        raise ValueError(
            "Expected `ticket` to be one ticket, or one for each replicate. Received: "
            f"replicates={replicates} and {len(tickets)} tickets"
        )
    keras_checks.compiled("model", model)
    checks.seed("seed", seed)
    pretrained = read_pretrained(pretrained)
    checks.flag("overwrite", overwrite)
    checks.verbose("verbose", verbose)
    if directory is not None:
        checks.directory("directory", directory)
    if objective is not None:
        named(objective)
    check_engine(engine)
    check_workers(workers, resources)
    trials = control_registry.trials(controls)
    resolved = control_registry.resolve(trials)
    data = gather(
        x,
        y,
        validation_data=validation_data,
        test_data=test_data,
        batch_size=batch_size,
    )
    length = training_steps(data, epochs, steps, eval_freq)
    every = checkpoint_steps(checkpoint, data.steps_per_epoch)
    carried = [
        carry_over(each.masks, each.weights, each.architecture, model, replace)
        for each in tickets
    ] * (replicates // len(tickets))
    if len({frozenset(each.masks) for each in carried}) > 1:
        raise ValueError("Expected tickets of one network. Received: several")
    masked = carried[0].model
    if optimizer is not None:
        given = fresh_optimizer(optimizer_of("optimizer", optimizer))
        masked.compile(**{**compile_arguments(masked), "optimizer": given})
    transfer = _Transfer(
        carried=carried,
        # Only controls need to follow the graph of a network with pruned filters.
        groupings=[
            grouping.get(each.granularity).of(masked, get_masks(masked))
            for each in tickets
            if resolved
        ]
        * (replicates // len(tickets)),
        controls=resolved,
        model=masked,
        data=data,
        steps=length,
        seed=seed,
        shared=trained_before(masked, get_state(masked), pretrained),
    )
    own = get_state(masked)
    for task in transfer.tasks(0, own):
        if not task.which.trial:
            # A control that cannot be made raises before any training.
            task.make(masked, data.examples)
    count = replicates * (2 + len(resolved))
    with contextlib.ExitStack() as stack:
        if directory is None:
            folder = tempfile.TemporaryDirectory(prefix="keras_lottery-")
            directory = stack.enter_context(folder)
        options = Options(
            steps=length, eval_freq=eval_freq, objective=objective, trainings=count
        )
        work = at_work(
            Store(directory),
            Setup(masked, None, seed, engine, data, options),
            lambda setup: setup.make(masked),
            ticket=transfer.dense_ticket(own),
            counts=[count],
            workers=workers,
            resources=resources,
            checkpoint=every,
            verbose=verbose,
            overwrite=overwrite,
        )
        site = stack.enter_context(work)
        settings = site.settings(
            study="compare_transfer",
            tickets=[
                {"masks": digest(each.masks), "weights": digest(each.weights)}
                for each in tickets
            ],
            replace=[replace] if isinstance(replace, str) else list(replace),
            pretrained=pretrained,
            seed=seed,
            objective=site.objective,
            initial=digest(own),
            replicates=replicates,
            controls=trials,
            report_levels=[1],
        )
        with site.settling:
            site.locks.take_all(range(replicates))
            how = describe(settings), own, transfer.draw, range(replicates), overwrite
            starts = begin(site.records, *how)
        tasks = [transfer.tasks(number, start) for number, start in starts.items()]
        site.trainings.train_and_store(itertools.chain.from_iterable(tasks))
    return results.tabulate(site.trainings.rows.values(), site.objective)


@dataclass(frozen=True, kw_only=True)
class _Transfer:
    """The trainings of a transfer: tickets, controls and dense networks.

    Args:
        carried: the part of each replicate's ticket that fits the model.
        groupings: the grouping of each replicate's ticket; empty without controls.
        controls: (name, control, trial) of all controls.
        model: the masked model.
        data: the data to train and evaluate on.
        steps: the length of each training.
        seed: the seed of everything that is random.
        shared: the pretrained weights, which the dense networks of all replicates
            share.
    """

    carried: Sequence[Carried]
    groupings: Sequence[Grouping]
    controls: Sequence[tuple[str, Control, int]]
    model: keras.Model
    data: Data
    steps: int
    seed: int
    shared: State

    def draw(self, first: State, replicate: int) -> State:
        """Draws the weights of the dense network of a replicate after the first."""
        drawn = redraw(self.model, derive_seed(self.seed, replicate, "initial"))
        return {**drawn, **{name: first[name] for name in self.shared}}

    def dense_ticket(self, own: State) -> Ticket:
        """The dense network as a ticket that keeps all weights."""
        shapes = {name: mask.shape for name, mask in self.carried[0].masks.items()}
        return Ticket(Masks.dense(shapes), own, steps=self.steps)

    def tasks(self, replicate: int, own: State) -> list[StoredTask]:
        """The trainings of a replicate, whose dense network starts from `own`."""
        carried, seed = self.carried[replicate], partial(derive_seed, self.seed)
        start = {**own, **carried.weights}
        ticket = Ticket(carried.masks, start, steps=self.steps)

        def task(
            level: int, variant: str, ticket: Any, *trial: int, **how: Any
        ) -> StoredTask:
            which, order = TrainingId(replicate, level, variant, *trial), "order"
            return StoredTask(
                which=which, ticket=ticket, seed=seed(replicate, order), **how
            )

        keep = ("start", "final")
        tasks = [
            task(0, "ticket", self.dense_ticket(own), keep=keep),
            task(1, "ticket", ticket, keep=keep),
        ]
        for name, control, trial in self.controls:
            snapshot = Snapshot.untrained(
                carried.masks,
                start,
                rng=np.random.default_rng(seed(replicate, name, 1, trial)),
                shared_model=None,
                grouping=self.groupings[replicate],
            )
            made = partial(_control, name, ControlTicket(control, ticket, snapshot))
            tasks.append(task(1, name, made, trial, may_diverge=True))
        return tasks


def _control(
    name: str, control: ControlTicket, model: keras.Model, data: Examples
) -> Ticket:
    made = control(model, data)
    for weight, mask in made.masks.items():
        if np.isnan(made.weights[weight][mask].astype("float64")).any():
            raise ValueError(
                f"The control '{name}' trains starting weights of `{weight}` that the "
                "ticket's file left out. Save the ticket with weights='all'."
            )
    return made
