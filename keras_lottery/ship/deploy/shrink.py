"""Prunes any Keras model, and finds its smallest or fastest file by measurement."""

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.engines.data import Data
from keras_lottery.engines.fits import check_fits
from keras_lottery.engines.objective import ACCURACY, Objective, named
from keras_lottery.in_fit.callbacks import GradualPruning
from keras_lottery.keras_bridge import checks as keras_checks
from keras_lottery.keras_bridge.layers import get_sparsity, mask_model, walk
from keras_lottery.keras_bridge.recalibrate import recalibrate
from keras_lottery.pruning import check_by_layer, chosen, prune, repairer
from keras_lottery.quiet import quiet
from keras_lottery.ship.deploy.candidates import Candidate, candidates
from keras_lottery.ship.deploy.choose import PREFER, choose, default_margin, pareto
from keras_lottery.ship.deploy.deployment import (
    Deployment,
    check_backend,
    check_target,
    hand_over,
    in_short,
    places,
    quality_of,
    table_of,
    tried_files,
)
from keras_lottery.ship.deploy.files import check_timing
from keras_lottery.ship.deploy.granularity import Choice, for_target
from keras_lottery.ship.deploy.losses import compiled
from keras_lottery.ship.deploy.material import Material, material
from keras_lottery.ship.deploy.show import as_records
from keras_lottery.ship.export.data import as_inputs
from keras_lottery.ship.export.errors import ExportError
from keras_lottery.ship.export.errors import in_short as one_line
from keras_lottery.ship.export.micro import to_c_array
from keras_lottery.ship.export.source import keras_model
from keras_lottery.ship.export.source import sparsity as zeros_of
from keras_lottery.structured import GreedyForward, filter_criteria
from keras_lottery.tickets import repair as repairs
from keras_lottery.tickets.allocation.layerwise import Sparsity
from keras_lottery.tickets.criteria import CRITERIA, CriterionLike
from keras_lottery.tickets.grouping import Granularity
from keras_lottery.tickets.repair import RepairLike

PRUNED_BY = 2 / 3
"""The share of the training after which the sparsity is reached."""

UPDATES = 50
"""How often the model is pruned until that time."""


def shrink(
    model: keras.Model,
    sparsity: Sparsity = 0.8,
    data: Any = None,
    target: str = "mobile",
    *,
    granularity: Granularity | None = None,
    criterion: CriterionLike = "magnitude",
    repair: RepairLike | None = None,
    epochs: int = 5,
    batch_size: int = 32,
    loss: Any = None,
    tolerance: float | None = None,
    objective: str | Objective | None = None,
    prefer: str | None = None,
    directory: str | os.PathLike[str] = "shrunk",
    threads: int = 1,
    seconds: float = 0.5,
    say: Callable[[str], object] = lambda line: None,
) -> Deployment:
    """Prunes a model, and writes the best file that can be made from it.

    With (x, y), the model is pruned gradually while it is fine-tuned, or, with a
    `repair`, all at once before fine-tuning. With inputs alone, or without any data, it
    is pruned at once and not trained: a warning says so, since its accuracy is then
    unknown. Next, the model as given and the pruned one are exported in every format
    that suits the target, as they are and compacted. Every file is run, compared with
    its Keras model and measured, as by `deploy`. The choice is made on validation data;
    results on test data are reported.

    Args:
        model: a built Keras model; it is left untouched.
        sparsity: the share of weights to prune, see `prune`; where whole filters are
            pruned, the share of filters.
        data: `None`; the name of a data set for `kl.data.load`; an .npz file with
            `x_train` and, for training, `y_train`; `kl.data.Splits`; (x, y); or inputs
            x alone, for calibration. Several inputs or outputs are dictionaries by
            name, in files `y_train/name`. If there is no validation or test part, a
            tenth of the examples is held out for each.
        target: `"mobile"`, `.tflite` files; `"server"`, SavedModels;
            `"microcontroller"`, dense `.tflite` files, and C source of the best;
            `"onnx"`, `.onnx` files; or `"openvino"`, directories for OpenVINO.
        granularity: what is pruned together, see `prune`. The default makes files for
            the target fast: 1x1 convolutions by weight where ARM runs them sparsely,
            dense layers in blocks of 1x4, or whole filters.
        criterion, repair: same as `prune`.
        epochs: epochs of fine-tuning; 0 prunes at once.
        batch_size: examples per step of fine-tuning.
        loss: the loss of a model that is not compiled: a name or an object, or a
            dictionary of them by output.
        tolerance: how much worse than the best file on the validation data the chosen
            one may be, see `margin` of `deploy`.
        objective: the metric by which files are compared, see `deploy`. By default the
            model's accuracy, else its only metric, else its loss.
        prefer: what is minimised, see `deploy`. By default `"latency"`, and `"size"`
            on microcontrollers.
        directory: where the file goes, as `mobile.tflite`, `server`,
            `microcontroller.tflite`, `onnx.onnx` or `openvino`, beside its card and
            `pruned.keras`, the masked model, whose training can be continued.
        threads, seconds: same as `benchmark`.
        say: called with a line about each step.

    Raises:
        ValueError: if an argument is out of range, the data do not fit the model, the
            model is not compiled and `loss` is missing, or the backend is not
            TensorFlow.
        ImportError: if the target's runtime is not installed.
        FileNotFoundError: if the data do not exist.
        ExportError: if no file works.

    Example::

        model = keras.saving.load_model("model.keras")
        result = kl.shrink(model, 0.9, data=(x, y), target="mobile")
        print(result)
        result.file
    """
    keras_checks.model("model", model)
    check_by_layer("sparsity", sparsity, None)
    check_target(target)
    if prefer is None:
        prefer = "size" if target == "microcontroller" else "latency"
    checks.choice("prefer", prefer, list(PREFER))
    checks.count("epochs", epochs)
    checks.count("batch_size", batch_size, 1)
    if tolerance is not None:
        checks.number("tolerance", tolerance, 0)
    asked = None if objective is None else named(objective)
    check_timing(threads, seconds)
    checks.function("say", say)
    file, card = places(checks.directory("directory", directory), target)
    of_filters = (
        isinstance(criterion, str)
        and criterion in filter_criteria.CRITERIA.names()
        and criterion not in CRITERIA.names()
    )
    if repair is not None:
        of_filters |= isinstance(repairs.get(repair), GreedyForward)
    if granularity is None and of_filters:
        granularity = "filter"
    score, _ = chosen(criterion, None, "weight" if granularity is None else granularity)
    mend = repairer(repair, score)
    check_backend("shrink")
    parts = material(data)
    if parts.train is None and (asked or tolerance is not None):
        name, value = ("objective", objective) if asked else ("tolerance", tolerance)
        remedy = "There is nothing to measure it on."
        checks.refuse(name, "None without `data` of (x, y)", value, remedy)
    dense = compiled(model, loss, parts)
    _check_data(dense, parts, batch_size)
    if granularity is not None:
        choice = Choice(granularity, None, "it was asked for")
    else:
        by_weight = mend is not None or score.within_outputs
        choice = for_target(model, target, filters=not by_weight)
    say(f"granularity {choice.granularity}: {choice.why}")
    pruned = mask_model(dense, choice.prunable)
    how = {"criterion": criterion, "granularity": choice.granularity}
    steps = _pruned(pruned, parts, sparsity, how, mend, epochs, batch_size, say)
    reached = get_sparsity(pruned)
    say(f"pruned: {reached:.1%} zeros, by {', then '.join(steps)}")

    validation = test = None
    if parts.validation is not None and parts.test is not None:
        validation = quality_of(dense, parts.validation, asked)
        test = quality_of(dense, parts.test, validation.objective)
    compare = validation.objective if validation else ACCURACY
    if tolerance is None:
        tolerance = default_margin(compare, validation.value if validation else None)
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        forms = _forms(dense, pruned, target, parts, steps, failed)
        tried = tried_files(
            forms, Path(folder), target, validation, threads, failed, say
        )
        failed = {name: in_short(reason) for name, reason in failed.items()}
        if not any("pruned" in each["report"].path.name for each in tried):
            raise ExportError(f"No file of the pruned model works: {failed}")
        say(f"measuring {len(tried)} files")
        metric = f"validation_{compare.metric}"
        table = table_of(tried, [metric] if validation else [], test, threads, seconds)
        # Without data, all pruned files count as equally good.
        judged = table if validation else table.assign(**{metric: 0.0})
        table["pareto"] = pareto(judged, compare)
        able = judged if validation else judged[table["file"].str.startswith("pruned")]
        row = choose(able, prefer, tolerance, compare)
        table["chosen"] = table.index == row
        records = as_records(table)
        rule = f"least {prefer} of the pruned model's files"
        if validation:
            rule = (
                f"least {prefer} within {compare.amount(tolerance)} of the best "
                f"validation {compare.words}"
            )
        note = {
            "made": {
                "model": model.name,
                "sparsity": reached,
                "granularity": str(choice.granularity),
                "why": choice.why,
                "steps": list(tried[row]["made"]),
            },
            "rule": rule,
            "data": parts.said,
            "threads": threads,
            "tried": records,
            "failed": failed,
        }
        hand_over(tried[row], records[row], file, card, note)
    with quiet():
        pruned.save(file.with_name("pruned.keras"))
    if target == "microcontroller":
        _write_c(file, failed)
    return Deployment(
        file=file, card=card, table=table, failed=failed, objective=compare
    )


def _check_data(model: keras.Model, parts: Material, batch_size: int) -> None:
    """Raises a ValueError of one line if the data do not fit the model."""
    try:
        if parts.examples is not None:
            as_inputs(keras_model(model), parts.examples, "data")
        if parts.train is not None:
            known = Data(parts.train, parts.validation, parts.test, batch_size)
            check_fits(model, known)
    except ValueError as error:
        raise ValueError(one_line(error)) from error


def _pruned(
    model: keras.Model,
    parts: Material,
    sparsity: Sparsity,
    how: Mapping[str, Any],
    repair: Any,
    epochs: int,
    batch_size: int,
    say: Callable[[str], object],
) -> list[str]:
    """Prunes a masked model in place; returns the steps in words."""
    said = f"{sparsity}, {how['criterion']!r}, granularity={how['granularity']!r}"
    trained = parts.train is not None and epochs > 0
    if trained and repair is None:
        rows = len(keras.tree.flatten(parts.train)[0])
        steps = epochs * -(-rows // batch_size)
        end = max(1, round(PRUNED_BY * steps)) - 1
        pruning = GradualPruning(
            sparsity,
            begin_step=0,
            end_step=end,
            frequency=max(1, end // UPDATES),
            data=parts.train,
            **how,
        )
        _fit(model, parts, epochs, batch_size, [pruning], say)
        return [f"GradualPruning({said})", f"fit(epochs={epochs})"]
    given = parts.train if parts.train is not None else parts.examples
    prune(model, sparsity, **how, data=given, repair=repair)
    said += "" if repair is None else f", repair={type(repair).__name__}"
    done = [f"prune({said})"]
    if trained:
        _fit(model, parts, epochs, batch_size, [], say)
        return [*done, f"fit(epochs={epochs})"]
    kind = keras.layers.BatchNormalization
    normalised = any(isinstance(layer, kind) for _, layer in walk(model))
    if parts.examples is not None and normalised:
        recalibrate(model, parts.examples)
        done.append("recalibrate()")
    if parts.train is None:
        warnings.warn(
            "Pruned at once and not fine-tuned, as there are no data with targets: the "
            "accuracy is not known, and mostly lower. Pass `data` of (x, y).",
            stacklevel=3,
        )
    return done


def _fit(
    model: keras.Model,
    parts: Material,
    epochs: int,
    batch_size: int,
    callbacks: list[keras.callbacks.Callback],
    say: Callable[[str], object],
) -> None:
    assert parts.train is not None

    def told(epoch: int, logs: Mapping[str, Any] | None) -> None:
        shown = ", ".join(f"{k} {float(v):.4g}" for k, v in (logs or {}).items())
        say(f"epoch {epoch + 1} of {epochs}: {shown}")

    telling = keras.callbacks.LambdaCallback(on_epoch_end=told)
    model.fit(
        *parts.train,
        batch_size=batch_size,
        epochs=epochs,
        validation_data=parts.validation,
        callbacks=[*callbacks, telling, keras.callbacks.TerminateOnNaN()],
        verbose=0,
    )
    if not all(
        np.isfinite(w).all() for w in model.get_weights() if w.dtype.kind == "f"
    ):
        raise ValueError(
            "The fine-tuning ended in weights that are not finite. Compile the model "
            "with a lower learning rate, or look for NaN in the data."
        )


def _forms(
    dense: keras.Model,
    pruned: keras.Model,
    target: str,
    parts: Material,
    steps: list[str],
    failed: dict[str, str],
) -> Iterator[Candidate]:
    """The files to try, of the model as given and of the pruned one."""
    made = candidates("pruned", pruned, target, parts.examples, failed)
    given = candidates("dense", dense, target, parts.examples, failed)
    if not zeros_of(dense):
        given = (each for each in given if not each.name.endswith("_sparse"))
    return chain(
        given,
        (
            Candidate(each.name, (*steps, *each.made), each.model, each.export)
            for each in made
        ),
    )


def _write_c(file: Path, failed: dict[str, str]) -> None:
    try:
        with quiet():
            to_c_array(file, file.with_suffix(".c"))
    except ExportError as error:
        failed[file.with_suffix(".c").name] = in_short(str(error))
