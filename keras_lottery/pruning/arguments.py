"""Interpretation of the arguments of `prune`."""

from collections.abc import Mapping

from keras_lottery import checks
from keras_lottery.masks import Masks
from keras_lottery.tickets import allocation as allocations
from keras_lottery.tickets import criteria, grouping
from keras_lottery.tickets import repair as repairs
from keras_lottery.tickets.allocation import (
    Allocation,
    AllocationLike,
)
from keras_lottery.tickets.allocation.counts import check_sparsity
from keras_lottery.tickets.allocation.layerwise import (
    LayerSparsities,
    Sparsity,
    check_shares,
)
from keras_lottery.tickets.criteria import Criterion, CriterionLike
from keras_lottery.tickets.grouping import Granularity
from keras_lottery.tickets.repair import Repair, RepairLike


def of_network(
    sparsity: Sparsity, allocation: AllocationLike | None, masks: Masks
) -> tuple[float, AllocationLike | None]:
    """Returns the network's sparsity, and the allocation that distributes it.

    Args:
        sparsity: the network's sparsity, or the layers' sparsities by name pattern.
        allocation: the allocation that the user passed.
        masks: the masks that the sparsity refers to.

    Raises:
        ValueError: if a pattern matches no layer.
    """
    check_by_layer("sparsity", sparsity, allocation)
    if not isinstance(sparsity, Mapping):
        return sparsity, allocation
    by_layer = LayerSparsities.of(sparsity, masks)
    return by_layer.sparsity(masks), by_layer


def check_by_layer(
    argument: str, sparsity: Sparsity, allocation: AllocationLike | None
) -> None:
    """Raises ValueError unless `sparsity` is one sparsity, or one for each layer."""
    if not isinstance(sparsity, Mapping):
        check_sparsity(sparsity, argument)
        return
    check_shares(argument, sparsity)
    if allocation is not None:
        checks.refuse(
            "allocation",
            f"left out where `{argument}` is given by layer, which already decides it",
            allocation,
        )


def chosen(
    criterion: CriterionLike,
    allocation: AllocationLike | None,
    granularity: Granularity,
) -> tuple[Criterion, Allocation]:
    """Returns the criterion and the allocation that names stand for at a granularity.

    Raises:
        ValueError: if one of the three is unknown.
    """
    kind = grouping.get(granularity)
    if allocation is None:
        allocation = default_allocation(criterion, granularity)
    allocate = allocations.get(allocation)
    if isinstance(criterion, str) and criterion in kind.criteria:
        return kind.criteria[criterion], allocate
    return criteria.get(criterion), allocate


def default_allocation(criterion: CriterionLike, granularity: Granularity) -> str:
    """Returns the name of the default allocation.

    Raises:
        ValueError: if the criterion or the granularity is unknown.
    """
    kind = grouping.get(granularity)
    if isinstance(criterion, str) and criterion in kind.criteria:
        return kind.default_allocation
    return criteria.get(criterion).allocation or kind.default_allocation


def repairer(repair: RepairLike | None, criterion: Criterion) -> Repair | None:
    """Returns the requested repair, or else the criterion's own, if it has one."""
    if repair is None or (isinstance(repair, str) and repair == criterion.repair):
        return repairs.OF_CRITERIA.get(criterion.repair or "")
    return repairs.get(repair)
