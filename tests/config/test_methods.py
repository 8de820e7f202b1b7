"""The register: what everything else knows of the methods is read from it."""

from types import SimpleNamespace

import pytest

from steering_core.config.corrsteer_schema import SparseMethods
from steering_core.config.methods import (
    BASELINE,
    CORRSTEER_METHODS,
    DEFAULT_METHODS,
    FAMILY_SETTINGS,
    LORA,
    METHODS,
    PROMPTING,
    REGISTER,
    WITHOUT_VECTOR,
    families_of,
    family_of,
    is_program,
    program_of,
    settings_of,
)
from steering_core.config.schema import Settings
from steering_core.methods.directions import DIRECTIONS
from steering_core.methods.programs import grid
from steering_core.tables.palette import PALETTE, method_styles


def test_families_are_the_programs_and_the_rest():
    assert set(FAMILY_SETTINGS) == {family_of(method) for method in METHODS}
    for method in METHODS:
        other = {PROMPTING: "prompt", LORA: "adapter"}.get(method, "directions")
        assert family_of(method) == (program_of(method) if is_program(method) else other)
    with pytest.raises(ValueError, match="method: caa is in no family"):
        family_of("caa")


@pytest.mark.parametrize("family", FAMILY_SETTINGS)
def test_the_strengths_of_a_family_are_made_of_its_settings_alone(family):
    given = settings_of(family, Settings())
    view = SimpleNamespace(**given)  # refuses what it was not given
    for method in given["methods"]:
        assert grid(method, view) == grid(method, Settings())
    assert set(given) == {"methods", *FAMILY_SETTINGS[family]}


def test_only_configured_methods_are_solved_in_their_order():
    settings = Settings(methods=["qp_shared", "no_steering", "qp_optimal"])
    assert families_of(settings.methods) == ["directions", "qp"]
    assert settings_of("qp", settings)["methods"] == ["qp_shared", "qp_optimal"]


def test_both_halves_run_every_registered_method():
    # A training is asked for by name.
    assert Settings().methods == list(DEFAULT_METHODS) == [m for m in METHODS if m != LORA]
    assert SparseMethods().methods == list(CORRSTEER_METHODS)
    assert set(METHODS) - set(CORRSTEER_METHODS) == {BASELINE, *WITHOUT_VECTOR}


def test_every_registered_method_has_its_code_and_its_style():
    fixed = {name for name, method in REGISTER.items() if method.mode == "fixed"}
    assert (
        fixed
        == {*DIRECTIONS, *WITHOUT_VECTOR}
        == {name for name in METHODS if not is_program(name)}
    )
    styles = method_styles(METHODS)
    assert list(styles) == list(PALETTE)  # each has colours of its own, and none is left over
    assert len({(style.colour, style.shape) for style in styles.values()}) == len(METHODS)
