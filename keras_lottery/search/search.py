"""The search for a winning ticket."""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import keras

from keras_lottery import checks, files
from keras_lottery.engines.as_in_fit import check_weights, gather
from keras_lottery.engines.choose import check_engine
from keras_lottery.engines.compacted import Compact, check_compact
from keras_lottery.engines.data import training_steps
from keras_lottery.engines.objective import Objective, named
from keras_lottery.keras_bridge.internals.randomness import seeded
from keras_lottery.keras_bridge.layers import State, get_masks
from keras_lottery.keras_bridge.layers.convert import Prunable, check_prunable
from keras_lottery.pruning import check_by_layer, default_allocation
from keras_lottery.search.arguments import (
    check_callbacks,
    check_model,
    check_repair,
    checkpoint_steps,
    read_part,
    reported,
)
from keras_lottery.search.as_settings import (
    arguments_to_store,
    stored_arguments,
    stored_margin,
    stored_model,
)
from keras_lottery.search.at_work import Site, at_work
from keras_lottery.search.levels import Replicate, count_trainings, levels
from keras_lottery.search.margin import check_margin
from keras_lottery.search.mask_finders import steps_to_find
from keras_lottery.search.plan import Choices, Plan
from keras_lottery.search.replicates import (
    Pretrained,
    begin,
    build,
    derive_seed,
    draw,
    read_pretrained,
    trained_before,
)
from keras_lottery.search.run import Run
from keras_lottery.search.settings import describe, describe_callback
from keras_lottery.search.setup import Options, Setup
from keras_lottery.search.workers import check_workers
from keras_lottery.tickets import Ticket, schedules
from keras_lottery.tickets import controls as control_registry
from keras_lottery.tickets import rewind as rewinds
from keras_lottery.tickets.allocation import AllocationLike
from keras_lottery.tickets.allocation.layerwise import Sparsity
from keras_lottery.tickets.controls import Control
from keras_lottery.tickets.criteria import CriterionLike
from keras_lottery.tickets.grouping import Granularity
from keras_lottery.tickets.repair import RepairLike
from keras_lottery.tickets.rewind import Rewind, Span
from keras_lottery.tickets.schedules import Schedule

if TYPE_CHECKING:
    import pandas as pd


DEFAULT_SCHEDULE = schedules.geometric()


class LotteryTicketSearch(Run):
    """Finds winning tickets: train, prune, rewind, repeat, and train the controls.

    Inside the scope of a `tf.distribute.MirroredStrategy`, or of a
    `keras.distribution.DataParallel` on JAX, each training takes all of its devices.

    Args:
        model: a compiled Keras model, whose weights replicate 0 starts from (further
            replicates draw theirs from its initialisers), or a function that builds
            and compiles one. It is not changed.
        pretrained: the layers with pre-trained weights, from which every replicate
            starts as replicate 0 does: `True` for all, or names or
            patterns such as `"backbone"`, including the layers inside them. The other
            layers, such as a new head, are initialised again for each replicate.
            Rewinding to step 0 returns to the pre-trained weights; controls that draw
            new weights replace these as well.
        schedule: the sparsities of the levels: `schedules.geometric`,
            `schedules.one_shot`, or a list, either for the whole network or by layer:
            `[{"conv*": 0.5, "out": 0.2}, {"conv*": 0.8, "out": 0.5}]`, where layers
            that match no pattern stay as they are. (For a pruning rate of each layer,
            use `allocation.Layerwise`.)
        criterion: how weights are scored: a name of `criteria` or a function. With
            `granularity="filter"`, a name of a criterion of filters as well.
        allocation: how sparse each layer becomes: a name of `allocation`, one of its
            classes, or a function. By default `"global"`, and `"uniform"` for filters.
        granularity: what is pruned together, see `prune`. With `"filter"` and
            `"channel"`, the schedule's sparsities are shares of the filters.
        rewind: what the next level starts from: `"weights"`, `"learning_rate"`,
            `"fine_tune"`, `"continue"`, or a `rewind.Rewind`.
        rewind_to: the rewind point k: a step, or epochs such as `"2ep"`.
        repair: how the remaining weights are changed before training continues, see
            `prune`; for rewinds that continue from trained weights.
        controls: names of `controls`, each trained once at every level, or with the
            number of trials of each: `{"reinit": 3}`. A function of your own is given
            as `{"name": (function, trials)}`.
        objective: the metric by which trainings are compared, on the validation data:
            `"val_accuracy"`, `"val_mae"`, `"val_loss"`, or `"val_<output>_<metric>"`
            for a model with several outputs. A metric of your own needs its direction:
            `Objective("val_mine", "min")`. By default the accuracy that the model
            reports. The early stop is always the step with the lowest validation loss.
        replicates: how often everything is repeated, with other initial weights and
            another order of the data.
        seed: seed of everything that is random.
        directory: where the search is stored; run again with the same settings, it
            continues where it stopped. Functions of your own are recognised by name:
            after changing one, choose another directory. By default a temporary
            directory.
        prunable: which layers are pruned, see `mask_model`.
        report_levels: the levels whose tickets and controls are trained; all by
            default. (A ticket from whose training the next masks come is always
            trained.)
        engine: how tickets are trained: `"fit"`, `"fused"`, `"vectorized"`, or
            `"auto"`, see `engines.make`. A vectorized search that was killed
            resumes to the last few bits, as its stacks then hold other trainings.
        workers: the number of processes that train, each on a core of its own; 0 trains
            in this process, on all cores; `"auto"` chooses; `"ray"` uses a Ray cluster.
        compact: whether tickets of filters are trained as the smaller networks that
            they are, and inserted into the whole one afterwards, so that a step costs
            only what is left. `"auto"`: where results are the same up to rounding, and
            the trainings are long enough; a warning says why not, as for dropout, which
            would draw other numbers. `True`: wherever possible. Not with
            `engine="vectorized"`.
        resources: what each training needs of a Ray cluster, in Ray's words:
            `{"num_gpus": 0.25, "num_cpus": 2, "max_retries": 5}`; by default one CPU.
            They change no result: each training has one thread.
        prune_at_init: finds the tickets before any training: at each level the
            criterion (`"snip"`, `"grasp"`, `"synflow"`, …) sees the initial weights of
            the dense network, from which its ticket is then trained.
        overwrite: whether the first `search` removes the one that the directory holds,
            once all arguments have been checked, instead of continuing it.

    Raises:
        ValueError: if an argument is not one of its choices.

    Reference:
        Frankle & Carbin 2019, "The lottery ticket hypothesis: finding sparse, trainable
        neural networks".

    Example::

        digits = kl.data.load("digits")

        def build():
            model = kl.models.lenet_300_100(digits.input_shape)
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile("adam", loss, metrics=["accuracy"])
            return model

        search = kl.LotteryTicketSearch(build, directory="runs/digits", replicates=3)
        data = {"validation_data": digits.validation, "test_data": digits.test}
        table = search.search(*digits.train, **data, epochs=8)
        search.verdict()
        search.best_ticket().save("winner.ticket")
    """

    # Why a stored search can only be read, if so.
    _lacking: Exception | None = None

    def __init__(
        self,
        model: keras.Model | Callable[[], keras.Model],
        schedule: Schedule | Sequence[Sparsity] | Sparsity = DEFAULT_SCHEDULE,
        criterion: CriterionLike = "magnitude",
        allocation: AllocationLike | None = None,
        granularity: Granularity = "weight",
        rewind: str | Rewind = "weights",
        rewind_to: int | str = 0,
        repair: RepairLike | None = None,
        controls: Mapping[str, int | tuple[Control, int]] | Sequence[str] | None = (
            "reinit",
        ),
        objective: str | Objective | None = None,
        replicates: int = 1,
        seed: int = 0,
        directory: str | os.PathLike | None = None,
        prunable: Prunable = None,
        report_levels: Sequence[int] | None = None,
        engine: str = "auto",
        workers: int | str = "auto",
        compact: Compact = "auto",
        resources: Mapping[str, Any] | None = None,
        prune_at_init: bool = False,
        pretrained: Pretrained = False,
        overwrite: bool = False,
    ) -> None:
        check_model(model)
        check_prunable(prunable)
        check_engine(engine)
        check_compact(compact)
        check_workers(workers, resources)
        checks.count("replicates", replicates, 1)
        checks.seed("seed", seed)
        checks.flag("prune_at_init", prune_at_init)
        checks.flag("overwrite", overwrite)
        if directory is not None:
            checks.directory("directory", directory)
        rewinds.check_rewind_to(rewind_to)
        self.schedule = schedules.get(schedule)
        self.criterion = criterion
        if self.schedule.by_layer:
            check_by_layer("schedule", self.schedule[0], allocation)
        elif allocation is None:
            allocation = default_allocation(criterion, granularity)
        self.allocation = allocation
        self.granularity = granularity
        self.rewind = rewind
        self.rewind_to = rewind_to
        self.controls = control_registry.trials(controls)
        self._objective = None if objective is None else named(objective)
        self.replicates = replicates
        self.seed = seed
        self.prunable = prunable
        self.engine = engine
        self.workers = workers
        # Other tickets have whole filters left.
        self.compact = compact is True or (
            compact if granularity in ("filter", "channel") else False
        )
        self.resources = resources
        self.prune_at_init = prune_at_init
        self.pretrained = read_pretrained(pretrained)
        self.overwrite = overwrite
        self.report_levels = reported(report_levels, len(self.schedule))
        self._source = model
        if directory is None:
            # It is removed with the search.
            self._temporary = tempfile.TemporaryDirectory(prefix="keras_lottery-")
            directory = self._temporary.name
        super().__init__(directory)
        self.repair = repair
        self._choices = Choices.of(self)
        check_repair(self._choices.repair, self._choices.rewind)

    @classmethod
    def load(
        cls, directory: str | os.PathLike, **changes: Any
    ) -> "LotteryTicketSearch":
        """Opens a stored search, to read it or to continue it.

        Only continuing it needs the functions and layers of your own that it used.

        Args:
            directory: where it is stored.
            changes: arguments that replace the stored ones: more `replicates`, other
                `controls`, and functions that were given as arguments, since these
                are not stored.

        Raises:
            FileNotFoundError: if there is no search in the directory.
            CorruptedFileError: if its settings are damaged.
        """
        run = Run(directory)
        settings = run.settings
        try:
            arguments = stored_arguments(settings)
            model = stored_model(settings, run.store)
            return cls(model, directory=directory, **(arguments | changes))
        except (ValueError, TypeError) as error:
            if changes:
                raise
            found = cls.__new__(cls)
            Run.__init__(found, directory)
            found._lacking = error
            return found

    def search(
        self,
        x: Any,
        y: Any = None,
        *,
        validation_data: Any = None,
        validation_split: float = 0.0,
        test_data: Any = None,
        batch_size: int = 32,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        epochs: int | None = None,
        steps: int | None = None,
        eval_freq: int | str = "epoch",
        mask_epochs: float | str | None = None,
        mask_steps: int | None = None,
        sample_weight: Any = None,
        class_weight: dict[int, float] | None = None,
        margin: float | str | None = None,
        shuffle: bool = True,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        checkpoint: int | str | None = None,
        part: Sequence[int] | None = None,
        verbose: int = 1,
    ) -> "pd.DataFrame":
        """Runs the search, or the rest of it.

        Several processes may run a search in one directory, on machines that share it.
        Each one takes replicates that no other process has. In the end it waits for
        the others, and takes over the replicates of those that were killed.

        Args:
            x: training inputs, as in `fit`: an array, a tensor or a pandas table, or a
                list or dictionary of them; or a `keras.utils.PyDataset`, a
                `tf.data.Dataset` or a Python generator of batches (inputs, targets) or
                (inputs, targets, sample weights). A search on a data set that
                reshuffles itself does not resume to the bit. A generator cannot be
                rewound: `steps_per_epoch` batches of it are read once, kept in memory,
                and then used like arrays.
            y: targets, for arrays; a list or dictionary for several outputs.
            validation_data: (x, y), (x, y, sample_weight), a data set or a generator;
                it determines the early stop and the best ticket.
            validation_split: the share of the arrays, taken from their end, to use for
                validation instead.
            test_data: (x, y), (x, y, sample_weight) or a data set; results on it are
                reported, and nothing is chosen by them.
            batch_size: examples per step, for arrays; the last, incomplete batch of an
                epoch is dropped.
            steps_per_epoch: batches per epoch, for a generator, or for a data set of
                unknown length, whose next epoch continues from there.
            validation_steps: batches per validation, for a generator or a
                `tf.data.Dataset` without a known end.
            epochs: length of the dense training.
            steps: the same in optimizer steps, instead of `epochs`.
            eval_freq: steps from one validation to the next, or `"epoch"`. With
                `steps_per_execution` in `compile`, validation comes at the end of the
                execution that the step falls into.
            mask_epochs: finds the masks in shorter trainings than the tickets' own: the
                number of epochs at each level, from the rewind point on, or `"auto"`:
                until pruning would remove nearly the same weights as an epoch earlier.
            mask_steps: the same in optimizer steps.
            sample_weight: weights of the training examples, for arrays.
            class_weight: same as in `fit`.
            margin: how much worse than the dense network a ticket may be and still
                match it, in the objective's unit: for an accuracy, 0.002 is 0.2
                percentage points. By default the margin that was declared when the
                search began, or else `"auto"`, see `kl.results.verdict`. It may be
                changed later.
            shuffle: whether arrays, and the batches of a `PyDataset`, are shuffled in
                every epoch.
            callbacks: Keras callbacks, copied for each training. At the end of an epoch
                they see the loss and the objective of the last validation.
            checkpoint: how often the state of a training is stored: in steps, or in
                epochs such as `"1ep"`. An interrupted training then continues from its
                last state, to the bit; by default, it starts again. The state of
                callbacks cannot be stored, so `callbacks` must be empty.
            part: the replicates that this process trains before it ends, such as `[3]`
                or `range(0, 10)`, for one of several jobs on a cluster. It leaves
                replicates that another process is training to that process, with a
                warning. All replicates by default.
            verbose: 0 is silent; 1 shows progress: bars on a terminal, elsewhere a line
                for each training.

        Returns:
            The table of `results()`: of all trainings that are stored, by any process.

        Raises:
            ValueError: if arguments or data do not fit, or the directory holds a search
                with other settings. Nothing has been trained then.
            FloatingPointError: if a loss is not a number.
            OSError: if a result cannot be written. What was finished is kept: run the
                search again.
            BlockingIOError: if `overwrite` would remove what another process trains, or
                if another process writes settings for ten minutes.
        """
        if self._lacking is not None:
            raise ValueError(
                f"The search in '{self.directory}' was made with something of your "
                "own, which is not stored. Register its layers with Keras, and give "
                "its functions to `load`, such as `load(directory, criterion=…)`. "
                f"{self._lacking}"
            ) from self._lacking
        checks.verbose("verbose", verbose)
        if margin is not None:
            check_margin(margin)
        numbers = read_part(part, self.replicates, self.overwrite)
        check_callbacks(callbacks)
        check_weights(y, sample_weight, class_weight)
        data = gather(
            x,
            y,
            sample_weight,
            validation_data=validation_data,
            validation_split=validation_split,
            test_data=test_data,
            batch_size=batch_size,
            shuffle=shuffle,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
        )
        length = training_steps(data, epochs, steps, eval_freq)
        k = rewinds.rewind_step(self.rewind_to, data.steps_per_epoch, length)
        every = checkpoint_steps(checkpoint, data.steps_per_epoch, callbacks)
        model, initial = build(self._source, self.prunable, self.seed, 0)
        trained_before(model, initial, self.pretrained)
        per_epoch = data.steps_per_epoch
        span = Span(k, length)
        find = steps_to_find(
            self._choices.rewind, span, per_epoch, mask_epochs, mask_steps
        )
        validations = 1 if isinstance(eval_freq, str) else per_epoch // eval_freq
        plan = Plan.for_model(self._choices, model, span, find, max(1, validations))
        counts = count_trainings(Replicate(plan, 0, initial, model, data.examples))
        # All parts of a search make the same choice, whatever their size.
        whole = [self.replicates * count for count in counts]
        options = Options(
            steps=length,
            rewind_step=k,
            eval_freq=eval_freq,
            callbacks=list(callbacks),
            class_weight=class_weight,
            objective=self._objective,
            compact=self.compact,
            trainings=sum(whole),
        )
        work = at_work(
            self.store,
            Setup(self._source, self.prunable, self.seed, self.engine, data, options),
            lambda setup: setup.make(model),
            ticket=Ticket(get_masks(model), initial, 0, length),
            counts=whole,
            here=len(numbers) * sum(counts),
            workers=self.workers,
            resources=self.resources,
            checkpoint=every,
            verbose=verbose,
            overwrite=self.overwrite,
        )
        # Layers that draw without a seed of their own repeat their draws, too.
        with seeded(derive_seed(self.seed, 0, "process")), work as site:
            if margin is None:
                margin = "auto" if self.overwrite else stored_margin(self.store)
            own = arguments_to_store(self, self._choices.allocation, model)
            settings = own | site.settings(
                mask_steps=find,
                steps_per_epoch=data.steps_per_epoch,
                shuffle=shuffle,
                class_weight=class_weight,
                callbacks=[describe_callback(callback) for callback in callbacks],
                objective=site.objective,
                margin=margin,
                initial=files.digest(initial),
            )
            starts = self._begin(site, settings, initial, numbers)
            replicates = {
                n: Replicate(plan, n, starts[n], model, data.examples) for n in numbers
            }
            site.train_free(
                lambda number: levels(replicates[number]),
                numbers,
                lambda: {which.replicate for which in self.missing()},
                waits=part is None,
            )
        with self.store.alone():
            table = self.results()
            files.write_atomically(
                self.store.results, lambda file: table.to_csv(file, index=False)
            )
        return table

    def _begin(
        self,
        site: Site,
        settings: Mapping[str, Any],
        initial: State,
        numbers: Sequence[int],
    ) -> dict[int, State]:
        """Stores the settings, and the initial weights of replicates.

        Args:
            site: where they are stored.
            settings: of the whole search.
            initial: the weights of replicate 0.
            numbers: the replicates that this process trains.

        Returns:
            The initial weights of each of them.
        """
        how = self._source, self.prunable, self.seed, self.pretrained
        with site.settling:
            # While a replicate is held, no other process overwrites the search.
            first = next(filter(site.locks.take, numbers), None)
            begun = describe(settings), initial, partial(draw, *how), numbers
            starts = begin(site.records, *begun, self.overwrite)
            site.locks.give_back(set(site.locks.held) - {first})
        self.overwrite = False  # From here on, the search is continued.
        return starts
