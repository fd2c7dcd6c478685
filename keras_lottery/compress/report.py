"""What saving a compressed model measured."""

import textwrap
from dataclasses import dataclass
from pathlib import Path

from keras_lottery.tables import text_table


@dataclass(frozen=True)
class CompressionReport:
    """Sizes of a compressed model by stage; `str()` gives them as readable lines.

    All are sizes of whole files of one format, the architecture included.

    Attributes:
        path: the file.
        dense_bytes: every variable as it is, without compression.
        pruned_bytes: live weights alone; their positions as gaps of a fixed number of
            bits.
        quantized_bytes: shared weights as numbers of a fixed number of bits, and their
            values.
        bytes: the file on disk: numbers and gaps in as few bits as their frequencies
            allow, everything else deflated.
        sparsity: the share of prunable weights that are pruned.
        values: how many values each kernel has; `None` for one whose weights are
            written as they are.
        data_bytes: what papers count that leave out everything but the weights that
            are left: a whole number of bits for each, as many as tell its kernel's
            values apart.
        index_bytes: those of the positions, as gaps of a fixed number of bits.
    """

    path: Path
    dense_bytes: int
    pruned_bytes: int
    quantized_bytes: int
    bytes: int
    sparsity: float
    values: dict[str, int | None]
    data_bytes: int
    index_bytes: int

    def __str__(self) -> str:
        def size(size: int) -> str:
            return f"{size:,} bytes, 1/{self.dense_bytes / size:.1f} of dense"

        shared = ", ".join(f"{name} {n}" for name, n in self.values.items() if n)
        rows = [
            ["dense", size(self.dense_bytes)],
            ["pruned", size(self.pruned_bytes)],
            ["quantized", size(self.quantized_bytes)],
            ["coded", size(self.bytes)],
            [
                "weights alone",
                f"{self.data_bytes:,} bytes, without their positions, which "
                f"take {self.index_bytes:,} more, biases and architecture",
            ],
            ["sparsity", f"{self.sparsity:.2%}"],
            ["shared values", shared or "none: call `share_weights(model)` before"],
        ]
        return f"{self.path} (compressed)\n{textwrap.indent(text_table(rows), '  ')}"
