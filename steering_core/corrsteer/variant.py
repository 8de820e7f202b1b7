"""What is accumulated: which numbers, of which positions, pooled how."""

from dataclasses import dataclass
from typing import Literal

Space = Literal["features", "raw"]
Mask = Literal["generation", "all"]
Pooling = Literal["max", "mean"]


@dataclass(frozen=True, order=True)
class Variant:
    """One set of numbers per sample.

    Attributes:
        space: activations of SAE features, or the dimensions of the residual stream.
        mask: ``generation`` are the positions that produce a token: the last of the prompt and
            every generated one that was fed back. ``all`` adds the rest of the prompt, without
            padding and without BOS.
        pooling: over those positions.
    """

    space: Space = "features"
    mask: Mask = "generation"
    pooling: Pooling = "max"

    def __str__(self) -> str:
        return f"{self.space}-{self.mask}-{self.pooling}"

    @classmethod
    def parse(cls, text: str) -> "Variant":
        """Return the variant that was written as ``text``."""
        space, mask, pooling = text.split("-")
        return cls(space, mask, pooling)  # type: ignore[arg-type]
