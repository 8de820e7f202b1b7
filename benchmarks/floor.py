"""The floor of a stage: its fewest operations and bytes at the rates of this machine."""

from dataclasses import dataclass

import torch

from benchmarks.common import alternate
from benchmarks.table import Line
from steering_core.models.language_model import LanguageModel


@dataclass(frozen=True)
class Rates:
    """Operations per second of a large matrix product, and bytes per second of a large copy."""

    flops: float
    bandwidth: float

    def __str__(self) -> str:
        return f"{self.flops / 1e9:.3g} GFLOP/s, {self.bandwidth / 1e9:.3g} GB/s"


@dataclass(frozen=True)
class Stage:
    """The measured time of a stage, and its two numbers from docs/performance.md."""

    name: str
    seconds: float
    operations: float
    moved: float
    rates: Rates


def rates(device: torch.device, dtype: torch.dtype, repeats: int) -> Rates:
    """Measure the rates of a device in one precision."""
    side = 8192 if device.type == "cuda" else 1024
    a = torch.randn(side, side, device=device).to(dtype)
    source = torch.randn(2**26 // 4, device=device)
    target = torch.empty_like(source)
    product, copy = alternate([lambda: a @ a, lambda: target.copy_(source)], 5 * repeats)
    return Rates(2 * side**3 / product, 2 * source.nbytes / copy)


def weights(lm: LanguageModel) -> tuple[int, int]:
    """Return the number of parameters of the blocks, and of the unembedding."""
    blocks = sum(p.numel() for p in lm.blocks.parameters())
    return blocks, lm.model.get_output_embeddings().weight.numel()


def attention(lm: LanguageModel, positions: int) -> int:
    """Return the operations of one token's attention to ``positions`` others, in all layers."""
    config = lm.model.config
    return 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * positions


def as_line(stage: Stage) -> Line:
    """Return the row of the table: seconds, the floor, and the ratio of the two."""
    computing = stage.operations / stage.rates.flops
    moving = stage.moved / stage.rates.bandwidth
    floor = max(computing, moving)
    bound = "operations" if computing >= moving else "bytes"
    note = f"{stage.operations / 1e9:.3g} GFLOP, {stage.moved / 1e9:.3g} GB; bound by {bound}"
    return Line(stage.name, stage.seconds, floor, stage.seconds / floor, note=note)
