"""``plan``: one row a component, their totals, and the sentences that people want of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from tercet.config import TransformerConfig
from tercet.plan import flops, memory
from tercet.plan.parameters import count, shapes
from tercet.plan.workload import workload

MOMENTS = 2 * 4  # AdamW's two averages a parameter, float32
STEP = 4  # and its counter of steps a tensor


@dataclass(frozen=True)
class Row:
    """One component's cost. Sizes in bytes; FLOPs for the whole workload."""

    component: str
    parameters: int
    tensors: int
    forward_flops: int
    training_flops: int  # forward and backward
    weights: int
    gradients: int
    optimizer: int  # AdamW: two float32 moments a parameter, a counter a tensor
    activations: int  # kept from forward to backward
    cache: int  # keys and values after the workload was read


@dataclass(frozen=True)
class Plan:
    """What a configuration costs on a workload: ``rows`` by component, and derived totals."""

    rows: tuple[Row, ...]
    n_tokens: int  # of the last stack
    n_sequences: int
    dtype: str
    token_flops: int  # forward of the last token of the longest sequence, the rest in the cache

    @property
    def total(self) -> Row:
        sums = [sum(getattr(row, f.name) for row in self.rows) for f in fields(Row)[1:]]
        return Row("total", *sums)

    @property
    def parameters(self) -> int:
        return self.total.parameters

    @property
    def forward_flops_per_token(self) -> float:
        return self.total.forward_flops / self.n_tokens

    @property
    def training_flops_per_token(self) -> float:
        """Forward and backward, a token of the last stack."""
        return self.total.training_flops / self.n_tokens

    @property
    def training_bytes(self) -> int:
        """Weights, gradients, optimizer and activations: what a step on the workload keeps.

        A process peaks above it by what single operations need, most of all the logits and their
        gradient, each targets x V numbers: 1.3 to 1.4 times as much was measured for the tiny
        presets on 2,048 tokens.
        """
        total = self.total
        return total.weights + total.gradients + total.optimizer + total.activations

    @property
    def generation_bytes(self) -> int:
        """Weights and cache."""
        return self.total.weights + self.total.cache

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the rows, the total and the derived numbers."""
        return {
            "n_tokens": self.n_tokens,
            "n_sequences": self.n_sequences,
            "dtype": self.dtype,
            "components": [asdict(row) for row in self.rows],
            "total": asdict(self.total),
            "token_flops": self.token_flops,
            "forward_flops_per_token": self.forward_flops_per_token,
            "training_flops_per_token": self.training_flops_per_token,
            "training_bytes": self.training_bytes,
            "generation_bytes": self.generation_bytes,
        }

    def __str__(self) -> str:
        return "\n".join([*_table([*self.rows, self.total]), "", *_sentences(self)])


def plan(
    config: TransformerConfig,
    lengths: Sequence[int] | None = None,
    *,
    source_lengths: Sequence[int] | None = None,
    targets: int | None = None,
    dtype: str = "float32",
    fused: bool = True,
) -> Plan:
    """Parameters, FLOPs and bytes of a network, from its configuration alone.

    ``lengths``: tokens of each sequence of a batch (``[1024] * 8``); one full context when not
    told. ``source_lengths``: what an encoder-decoder's encoder reads; as ``lengths`` when not told.
    ``targets``: rows that become logits (masked positions); all when not told. ``dtype``: of
    weights, gradients, activations and cache: float64, float32, bfloat16 or float16. ``fused``:
    attention in one kernel wherever torch's CPU kernels can, as they run by default; False: scores
    are kept for the backward pass and not computed again. Raises InputError on what does not fit
    the configuration.
    """
    work = workload(config, lengths, source_lengths, targets, dtype, fused)
    tensors = shapes(config)
    costs, kept, held = flops.of_a_pass(work), memory.activations(work), memory.cache(work)
    rows = []
    for component in [*tensors, *(name for name in costs if name not in tensors)]:
        own = tensors.get(component, [])
        numbers, cost = count(own), costs.get(component, flops.Flops())
        row = Row(
            component,
            parameters=numbers,
            tensors=len(own),
            forward_flops=cost.forward,
            training_flops=cost.training,
            weights=numbers * work.itemsize,
            gradients=numbers * work.itemsize,
            optimizer=numbers * MOMENTS + len(own) * STEP,
            activations=kept.get(component, 0),
            cache=held.get(component, 0),
        )
        if any(getattr(row, f.name) for f in fields(Row)[1:]):
            rows.append(row)
    return Plan(
        tuple(rows),
        work.layout.n_tokens,
        work.layout.n_sequences,
        dtype,
        flops.of_a_token(work),
    )


# printed -----------------------------------------------------------------------------------------

COLUMNS = {
    "parameters": "parameters",
    "forward_flops": "forward FLOPs",
    "training_flops": "training FLOPs",
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "AdamW",
    "activations": "activations",
    "cache": "cache",
}


def _table(rows: list[Row]) -> list[str]:
    cells = [["component", *COLUMNS.values()]]
    for row in rows:
        cells.append([row.component, *(_cell(name, getattr(row, name)) for name in COLUMNS)])
    widths = [max(map(len, column)) for column in zip(*cells)]
    return [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in cells
    ]


def _cell(name: str, value: int) -> str:
    if name == "parameters":
        return f"{value:,}"
    return _scaled(value, 1000, "") if name.endswith("flops") else size(value)


def size(n_bytes: float) -> str:
    """1536 -> '1.5 KiB'."""
    return _scaled(n_bytes, 1024, "B")


def _scaled(value: float, base: int, unit: str) -> str:
    if not value:
        return "–"
    for prefix in ("", "K", "M", "G", "T", "P", "E"):
        if value < base or prefix == "E":
            break
        value /= base
    infix = "i" if base == 1024 and prefix else ""
    number = f"{value:.0f}" if not prefix else f"{value:.3g}" if value < 999.5 else f"{value:.0f}"
    return f"{number} {prefix}{infix}{unit}".rstrip()


def _sentences(made: Plan) -> list[str]:
    sequences = f"{made.n_sequences:,} sequence" + ("s" if made.n_sequences > 1 else "")
    lines = [
        f"{made.parameters:,} parameters; costs are for {made.n_tokens:,} tokens in {sequences}, "
        f"{made.dtype}",
        f"training step: {size(made.training_bytes)}; "
        f"{_scaled(made.training_flops_per_token, 1000, 'FLOPs')} a token",
    ]
    if made.total.cache:
        lines.append(
            f"generation: {size(made.generation_bytes)} with the cache full; "
            f"{_scaled(made.token_flops, 1000, 'FLOPs')} for the last token"
        )
    else:
        lines.append(
            f"reading: {size(made.total.weights)} of weights; "
            f"{_scaled(made.forward_flops_per_token, 1000, 'FLOPs')} a token"
        )
    return lines
