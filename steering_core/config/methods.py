"""The register of steering methods: the one list that everything else reads.

It is data only, so that the configuration and the rules can import it without numpy or torch. To
add a method, add a row here; a fixed direction also needs a class in ``methods/directions.py``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from steering_core.config.schema import DeclaredProgram, Settings

Program = Literal["qp", "socp"]
Family = Literal["directions", "qp", "socp", "prompt", "adapter"]
Mode = Literal["fixed", "static", "adaptive", "shared"]

#: The method that adds nothing. Every other method is compared with it.
BASELINE = "no_steering"
#: Its name in CorrSteer's tables.
UNSTEERED = "unsteered"
#: The method that adds nothing to the residual stream either, but puts a text before the prompt.
PROMPTING = "prompting"
#: The method that changes weights: a LoRA adapter that is trained on texts of the target class.
LORA = "lora"
#: The methods that add no vector anywhere, so they have no norm and no features.
WITHOUT_VECTOR = (PROMPTING, LORA)
#: The method that adds a direction drawn at random.
RANDOM = "random_direction"
#: The methods that add a direction learned from residuals, which is not made of SAE features.
DENSE_DIRECTIONS = ("caa_mean_diff", "caa_contrastive", "caa_repe")
#: The programs as published: the margin is on the probe, and each input has its own shortfall.
PUBLISHED_PROGRAMS = ("qp_optimal", "convex_optimal")

#: The settings that each family's strengths are made of. One job solves one family, so a changed
#: setting makes the solutions of its own family stale, and no others.
FAMILY_SETTINGS: dict[str, tuple[str, ...]] = {
    "directions": ("strengths",),
    "qp": ("qp_tau", "qp_lambda", "units"),
    "socp": ("socp_tau", "socp_epsilon", "units"),
    "prompt": (),
    "adapter": ("lora",),
}


@dataclass(frozen=True)
class Method:
    """A steering method.

    Attributes:
        name: in the configuration and in every table.
        family: ``directions`` adds one fixed direction; ``qp`` and ``socp`` solve that program;
            ``prompt`` puts a text before the prompt and leaves the residual stream alone;
            ``adapter`` changes the weights.
        mode: when the vector is computed. ``fixed``: from training data, the same for every input.
            ``static``: solved for each input at its last prompt token, and added at every position
            steered. ``adaptive``: solved again at every position steered. ``shared``: solved once,
            for the validation row outside the target class that is furthest from the margin; every
            input gets that vector.
    """

    name: str
    family: Family
    mode: Mode = "fixed"


REGISTER = {
    method.name: method
    for method in (
        Method(BASELINE, "directions"),
        Method(RANDOM, "directions"),
        Method("caa_mean_diff", "directions"),
        Method("caa_contrastive", "directions"),
        Method("caa_repe", "directions"),
        Method("single_feature", "directions"),
        Method("topk_features", "directions"),
        Method("convex_optimal", "socp", "static"),
        Method("qp_optimal", "qp", "static"),
        Method("socp_adaptive", "socp", "adaptive"),
        Method("qp_adaptive", "qp", "adaptive"),
        Method("socp_shared", "socp", "shared"),
        Method("qp_shared", "qp", "shared"),
        Method(PROMPTING, "prompt"),
        Method(LORA, "adapter"),
    )
}

METHODS = tuple(REGISTER)
#: The methods that run where the configuration names none: all but the one that trains a model.
DEFAULT_METHODS = tuple(name for name in METHODS if name != LORA)
#: Families that solve a program on the path.
PROGRAM_FAMILIES = [name for name in FAMILY_SETTINGS if name in ("qp", "socp")]
#: The methods that can also run on CorrSteer's tasks, in the order of the rows of corrsteer.csv:
#: as registered, but the programs of a mode by name.
CORRSTEER_METHODS = tuple(
    sorted(
        (name for name in METHODS if name not in (BASELINE, *WITHOUT_VECTOR)),
        key=lambda name: (
            ("fixed", "static", "adaptive", "shared").index(REGISTER[name].mode),
            name if REGISTER[name].mode != "fixed" else "",
        ),
    )
)


def is_program(method: str) -> bool:
    """Whether ``method`` solves a program."""
    return method in REGISTER and REGISTER[method].family in PROGRAM_FAMILIES


def program_of(method: str) -> Program:
    """Return the program that ``method`` solves.

    Raises:
        ValueError: naming ``method``, if it solves none.
    """
    return _program(method).family


def mode_of(method: str) -> Mode:
    """Return when ``method`` solves its program.

    Raises:
        ValueError: naming ``method``, if it solves none.
    """
    return _program(method).mode


def is_adaptive(method: str) -> bool:
    """Whether ``method`` solves its program again at every position."""
    return is_program(method) and mode_of(method) == "adaptive"


def solves_once(method: str) -> bool:
    """Whether ``method`` solves a program once for each text, or once for all texts."""
    return is_program(method) and not is_adaptive(method)


def family_of(method: str) -> Family:
    """Return the family of ``method``.

    Raises:
        ValueError: naming ``method``, if it is not registered.
    """
    if method not in REGISTER:
        raise ValueError(f"method: {method} is in no family")
    return REGISTER[method].family


def families_of(methods: Iterable[str]) -> list[str]:
    """Return the families of ``methods``, in the order of :data:`FAMILY_SETTINGS`."""
    used = {family_of(method) for method in methods}
    return [name for name in FAMILY_SETTINGS if name in used]


def settings_of(family: str, settings: "Settings") -> dict[str, Any]:
    """Return the settings that a family reads, and its configured ``methods`` in their order."""
    methods = [method for method in settings.methods if family_of(method) == family]
    return {"methods": methods, **{key: getattr(settings, key) for key in FAMILY_SETTINGS[family]}}


def strength_grid(method: str, settings: "Settings") -> list[dict[str, float]]:
    """Return every strength of ``method`` in order, by its parts.

    The part of a fixed direction is ``alpha``; a program has ``tau`` and ``lam`` or ``epsilon``.
    """
    family = family_of(method)
    if family == "prompt":
        return [{}]
    if family == "adapter":
        return [{"alpha": scale} for scale in settings.lora.scales]
    if family == "directions":
        return [{"alpha": alpha} for alpha in settings.strengths]
    if family == "qp":
        return [
            {"tau": tau, "lam": qp_lambda}
            for qp_lambda in settings.qp_lambda
            for tau in settings.qp_tau
        ]
    return [
        {"tau": tau, "epsilon": epsilon}
        for tau in settings.socp_tau
        for epsilon in settings.socp_epsilon
    ]


def parameter_of(program: str) -> Literal["lam", "epsilon"]:
    """Return the column of a program's parameter besides τ: λ of a QP, ε of an SOCP."""
    return "lam" if program == "qp" else "epsilon"


def directions_of(declared: "DeclaredProgram") -> list[str]:
    """Return what the margins of a declared program are on, at least one direction."""
    given = declared.concept_direction
    return list(given) if isinstance(given, list) else [given]


def needs_fisher(declared: "DeclaredProgram") -> bool:
    """Return whether the Fisher information has to be estimated for a declared program."""
    return "fisher" in (declared.metric, declared.feature_cost)


def _program(method: str) -> Method:
    if not is_program(method):
        raise ValueError(f"method: {method} is not a program")
    return REGISTER[method]
