"""The report on the sizes of a compressed model."""

import textwrap
from dataclasses import dataclass
from pathlib import Path

from keras_lottery.tables import text_table


@dataclass(frozen=True)
class CompressionReport:
    """Sizes of a compressed model by stage; `str()` gives them as readable lines.

    Sizes of stages are those of whole files in one format, including the architecture.

    Attributes:
        path: the file.
        dense_bytes: the size with every variable as it is, without compression.
        pruned_bytes: the size with live weights only, and their positions as gaps with
            a fixed number of bits.
        quantized_bytes: the size with shared values, and each weight's index among them
            with a fixed number of bits.
        bytes: the size of the file on disk: indices and gaps in as few bits as their
            frequencies allow, and everything else deflated.
        sparsity: the share of prunable weights that are pruned.
        values: the number of distinct values of each kernel; `None` for a kernel whose
            weights are written as they are.
        data_bytes: the bytes of the remaining weights alone, as some papers count them:
            each weight takes a whole number of bits, enough to tell its kernel's values
            apart.
        index_bytes: the bytes of the positions, as gaps with a fixed number of bits.
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
