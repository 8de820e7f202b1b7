"""One strength of one method."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GridPoint:
    """One strength of one method. ``strength_index`` counts within the method."""

    method: str
    strength_index: int
    strength_name: str
    strength: float
    tau: float | None = None
    lam: float | None = None
    epsilon: float | None = None
