"""Tickets: masks, and the weights and step that training starts from."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_lottery import checks
from keras_lottery.keras_bridge import architecture
from keras_lottery.keras_bridge import checks as keras_checks
from keras_lottery.keras_bridge.layers import State, get_state, set_state
from keras_lottery.masks import Masks
from keras_lottery.tickets import file
from keras_lottery.tickets.carry_over import Replace, carry_over
from keras_lottery.tickets.grouping import Granularity


@dataclass(frozen=True)
class Ticket:
    """Masks, and the weights and step that training starts from.

    Args:
        masks: the weights that are left.
        weights: the state of all variables to start from.
        step: the step of the training at which the ticket starts, for the order of the
            data and for the learning-rate schedule.
        steps: how many steps to train.
        learning_rate: a constant learning rate; `None` for that of the schedule.
        trained: the state after training, if the ticket was trained.
        architecture: the masked model, as Keras serialises it.
        card: where the ticket comes from and how well it did: data, settings,
            accuracies, versions.
        seed: the seed of the architecture's initialisers, if it is known. When a file
            is to hold the seed instead of `weights`, `save` checks that it draws them.
    """

    masks: Masks
    weights: State = field(repr=False)
    step: int = 0
    steps: int = 0
    learning_rate: float | None = None
    trained: State | None = field(default=None, repr=False)
    architecture: str | None = field(default=None, repr=False)
    card: Mapping[str, Any] = field(default_factory=dict, repr=False)
    seed: int | None = None

    def __post_init__(self) -> None:
        keras_checks.masks("masks", self.masks)
        keras_checks.state("weights", self.weights)
        checks.count("step", self.step)
        checks.count("steps", self.steps)
        if self.learning_rate is not None:
            checks.number("learning_rate", self.learning_rate, 0)
        if self.trained is not None:
            keras_checks.state("trained", self.trained)
        if self.architecture is not None:
            checks.text("architecture", self.architecture)
        checks.instance("card", self.card, Mapping, "a mapping")
        if self.seed is not None:
            checks.seed("seed", self.seed)

    @property
    def granularity(self) -> Granularity:
        """The granularity of pruning, see `prune`; `"weight"` if the card does not say.

        >>> card = {"settings": {"granularity": "block_1x4"}}
        >>> Ticket(Masks.dense({}), {}, card=card).granularity
        'block_1x4'
        """
        card = self.card
        while "source" in card:  # It was carried over from another network.
            card = card["source"]
        found = card.get("settings", {}).get("granularity", "weight")
        # JSON turned pairs into lists, which does not matter within a mapping.
        return tuple(found) if isinstance(found, list) else found

    def initial_model(self) -> keras.Model:
        """Returns the masked model with the weights that training starts from."""
        return self._model(self.weights)

    def trained_model(self) -> keras.Model:
        """Returns the masked model with the weights at the end of training.

        Raises:
            ValueError: if the ticket was not trained.
        """
        if self.trained is None:
            raise ValueError("This ticket was not trained. Train its `initial_model()`")
        return self._model(self.trained)

    def save(
        self, path: str | os.PathLike, weights: str = "kept", trained: bool = True
    ) -> None:
        """Writes the ticket to one file, which `load_ticket` reads.

        Args:
            path: the path of the file; it ends in `.ticket`.
            weights: the starting weights that the file holds:

                - `"kept"`: those that the masks keep. The pruned ones, which the
                  ticket's training does not use, come back as NaN.
                - `"all"`: the pruned ones too, for the controls that train them
                  (`shuffle`, say) and for comparisons with the dense network.
                - `"seed"`: no weights, only the ticket's seed, from which loading draws
                  them all again. This makes the smallest file. Seeds draw the same
                  numbers on the same backend and version of Keras only; elsewhere
                  loading fails.
            trained: whether the file also holds the trained weights, if there are any.
                Only the kept ones are stored, as the others are zero.

        Raises:
            ValueError: if `path` does not end in `.ticket`, or the seed does not draw
                the starting weights.
            OSError: if the file cannot be written; an older file is then left as it is.
        """
        checks.flag("trained", trained)
        ticket = self if trained else dataclasses.replace(self, trained=None)
        names = [field.name for field in dataclasses.fields(ticket)]
        file.write(path, {name: getattr(ticket, name) for name in names}, weights)

    def transfer(self, model: keras.Model, replace: Replace = ()) -> "Ticket":
        """Returns a ticket for another model, with these masks and starting weights.

        A layer of `model` whose variables have the ticket's names and shapes takes the
        ticket's starting weights and masks. A layer with another number of units (a
        head for other classes), or one that is not in the ticket, keeps the model's own
        weights, without a mask unless the model has one. So do layers that were adapted
        to data, such as `Normalization`, and the states of random generators.
        `compare_transfer` trains the ticket beside its controls.

        Args:
            model: a built model; it is not changed. If it is compiled, so are the
                ticket's models.
            replace: layers that keep the model's own weights although they match the
                ticket: names or paths, with wildcards, such as `"output"`.

        Returns:
            A ticket whose `card["transfer"]` lists the layers that are `carried`, those
            that are `own`, with the reason, and those of the ticket that are `left`;
            `card["source"]` is this ticket's card.

        Raises:
            ValueError: if a layer differs in more than its number of units, as it does
                if the inputs differ; if a pattern matches no layer; or if no layer
                matches.

        Reference:
            Morcos et al. 2019, "One ticket to win them all: generalizing lottery ticket
            initializations across datasets and optimizers", section 3.

        Example:

        >>> import keras_lottery as kl
        >>> digits = kl.mask_model(kl.models.lenet_300_100((8, 8, 1)))
        >>> kl.prune(digits, 0.9)
        >>> ticket = Ticket(kl.get_masks(digits), kl.get_state(digits))
        >>> letters = kl.models.lenet_300_100((8, 8, 1), classes=26)
        >>> ticket = ticket.transfer(letters)
        >>> ticket.card["transfer"]["carried"]
        ['hidden_1', 'hidden_2']
        >>> print(ticket.card["transfer"]["own"]["output"])
        kernel (100, 10), bias (10,) there, kernel (100, 26), bias (26,) here
        """
        keras_checks.model("model", model)
        carried = carry_over(
            self.masks, self.weights, self.architecture, model, replace
        )
        return Ticket(
            carried.masks,
            {**get_state(carried.model), **carried.weights},
            architecture=architecture.to_text(carried.model),
            card={
                "sparsity": carried.masks.sparsity,
                "transfer": carried.report,
                "source": dict(self.card),
            },
        )

    def _model(self, state: State) -> keras.Model:
        if self.architecture is None:
            raise ValueError("This ticket has no architecture to build a model of")
        model = architecture.from_text(self.architecture)
        set_state(model, state, self.masks)
        return model


def tickets_of(argument: str, tickets: Any) -> list[Ticket]:
    """Returns one ticket or several as a list.

    Raises:
        ValueError: if it is anything else.
    """
    given = [tickets] if isinstance(tickets, Ticket) else tickets
    known = isinstance(given, Sequence) and all(isinstance(t, Ticket) for t in given)
    if not known or not given:
        checks.refuse(argument, "a Ticket, or a list of some", tickets)
    return list(given)


def load_ticket(path: str | os.PathLike) -> Ticket:
    """Reads a ticket that `Ticket.save` wrote.

    The file's checksum is verified, and nothing is unpickled. If the file holds a seed
    instead of weights, the weights are drawn from it.

    Raises:
        FileNotFoundError: if there is no such file.
        CorruptedFileError: if the file is not a whole ticket.
        ValueError: if the file's seed draws other weights on this backend or version
            of Keras than on those it was saved with.
    """
    return Ticket(**file.read(path))
