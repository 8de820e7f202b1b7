"""Which methods are solved in one job: those that read the same settings.

A setting that changes makes the solutions of its family stale, and with them what is generated
and measured of the methods in it, and no others.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from steering_core.config.settings import Settings


@dataclass(frozen=True)
class MethodFamily:
    """Methods whose strengths the same ``settings`` say."""

    methods: tuple[str, ...]
    settings: tuple[str, ...]


METHOD_FAMILIES = {
    "directions": MethodFamily(
        (
            "no_steering",
            "random_direction",
            "caa_mean_diff",
            "caa_contrastive",
            "caa_repe",
            "single_feature",
            "topk_features",
        ),
        ("strengths",),
    ),
    "qp": MethodFamily(("qp_optimal", "qp_adaptive", "qp_shared"), ("qp_tau", "qp_lambda")),
    "socp": MethodFamily(
        ("convex_optimal", "socp_adaptive", "socp_shared"), ("socp_tau", "socp_epsilon")
    ),
}

#: Families that are solved on the path.
PROGRAM_FAMILIES = [name for name in METHOD_FAMILIES if name != "directions"]


def family_of(method: str) -> str:
    """Return the name of the family of ``method``.

    Raises:
        ValueError: naming ``method``, if no family has it.

    """
    for name, family in METHOD_FAMILIES.items():
        if method in family.methods:
            return name
    raise ValueError(f"method: {method} is in no family")


def families_of(methods: Iterable[str]) -> list[str]:
    """Return the families that have one of ``methods``, in the order of the table."""
    used = {family_of(method) for method in methods}
    return [name for name in METHOD_FAMILIES if name in used]


def settings_of(name: str, settings: Settings) -> dict[str, Any]:
    """Return the settings that a family reads, and which of its methods are configured."""
    family = METHOD_FAMILIES[name]
    methods = [method for method in settings.methods if method in family.methods]
    return {"methods": methods, **{key: getattr(settings, key) for key in family.settings}}
