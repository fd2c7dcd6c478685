"""A granularity for each layer."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from keras_lottery import checks
from keras_lottery.tickets.allocation.names import check_patterns, matches
from keras_lottery.tickets.grouping.blocks import Blocks, Inside, InsideWeights


@dataclass(frozen=True)
class ByLayer(Inside):
    """Groups inside weights, with one kind of group for each layer.

    The allocation works as usual: `granularity={"conv*": "2:4"}` prunes at most half of
    the matching layers' weights, and the other layers make up the rest.

    Args:
        groupings: mapping from a pattern of weight or layer names to the grouping
            there; the first match counts. Weights that match no pattern are pruned one
            by one.

    Raises:
        ValueError: when called, if a pattern matches no weight.

    Example:

    >>> groupings = ByLayer({"conv*": Blocks(4, 1)})
    >>> list(groupings.within(["conv_1/kernel", "out/kernel"]).values())
    [Blocks(inputs=4, outputs=1), Blocks(inputs=1, outputs=1)]
    """

    groupings: Mapping[str, InsideWeights]

    def __post_init__(self) -> None:
        form = "groupings inside weights by pattern of names"
        checks.instance("groupings", self.groupings, Mapping, form)
        checks.names("groupings", self.groupings, form)
        for pattern, each in self.groupings.items():
            checks.instance(
                f"groupings[{pattern!r}]",
                each,
                InsideWeights,
                "a grouping inside weights, such as `Blocks`",
            )

    def within(self, names: Collection[str]) -> Mapping[str, InsideWeights]:
        check_patterns(self.groupings, names)
        found = {}
        for name in names:
            own = [inside for p, inside in self.groupings.items() if matches(name, p)]
            found[name] = [*own, Blocks(1, 1)][0]
        return found
