"""One colour and one marker per method, the same in every picture.

The colours come from Okabe and Ito and from Tol's muted scheme. People with the common forms of
colour blindness can tell them apart. Markers tell methods apart in print without colour.
"""

from collections.abc import Iterable
from dataclasses import dataclass

_STAR = (
    "M0,-1.1L0.26,-0.36L1.05,-0.34L0.42,0.14L0.65,0.89L0,0.45"
    "L-0.65,0.89L-0.42,0.14L-1.05,-0.34L-0.26,-0.36Z"
)
_PENTAGON = "M0,-1L0.95,-0.31L0.59,0.81L-0.59,0.81L-0.95,-0.31Z"


@dataclass(frozen=True)
class Style:
    """How a method is drawn: hex colour, Vega marker name or SVG path, marker area in pixels."""

    colour: str
    shape: str
    size: int = 80


#: The styles of the registered methods, in the order in which legends list them.
# The two programs often reach the same point. The circle stays visible on the larger square.
PALETTE: dict[str, Style] = {
    "qp_optimal": Style("#0072B2", "circle", 60),
    "convex_optimal": Style("#D55E00", "square", 130),
    "qp_adaptive": Style("#56A0D3", "circle", 60),
    "socp_adaptive": Style("#F0A070", "square", 130),
    "qp_shared": Style("#003B5C", "circle", 60),
    "socp_shared": Style("#7A3600", "square", 130),
    "topk_features": Style("#009E73", "triangle-up"),
    "single_feature": Style("#CC79A7", "diamond"),
    "caa_mean_diff": Style("#E69F00", "cross"),
    "caa_contrastive": Style("#56B4E9", "triangle-down"),
    "caa_repe": Style("#882255", "triangle-left"),
    "random_direction": Style("#8C8C8C", "triangle-right"),
    "prompting": Style("#B8860B", _PENTAGON),
    "lora": Style("#7F3FBF", "square", 50),
    "no_steering": Style("#000000", _STAR),
}
_OTHER_COLOURS = ("#332288", "#117733", "#999933", "#AA4499", "#44AA99", "#661100", "#6699CC")
_OTHER_SHAPES = ("square", "circle", "diamond", "triangle-up", "cross")


def method_styles(methods: Iterable[str]) -> dict[str, Style]:
    """Give each distinct method a style: known methods first in a fixed order, then by name."""
    present = set(methods)
    styles = {name: style for name, style in PALETTE.items() if name in present}
    for index, name in enumerate(sorted(present - set(PALETTE))):
        styles[name] = Style(
            _OTHER_COLOURS[index % len(_OTHER_COLOURS)], _OTHER_SHAPES[index % len(_OTHER_SHAPES)]
        )
    return styles
