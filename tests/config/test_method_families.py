"""Every method is in one family, with the settings that its strengths are made of."""

import pytest

from steering_core.config.method_families import (
    METHOD_FAMILIES,
    families_of,
    family_of,
    settings_of,
)
from steering_core.config.settings import METHODS, Settings
from steering_core.config.view import SettingsView
from steering_core.methods.grid import grid
from steering_core.methods.modes import is_program, program_of


def test_families_are_the_programs_and_the_rest():
    listed = [method for family in METHOD_FAMILIES.values() for method in family.methods]
    assert sorted(listed) == sorted(METHODS)
    for method in METHODS:
        assert family_of(method) == (program_of(method) if is_program(method) else "directions")
    with pytest.raises(ValueError, match="method: caa is in no family"):
        family_of("caa")


@pytest.mark.parametrize("family", METHOD_FAMILIES)
def test_the_strengths_of_a_family_are_made_of_its_settings_alone(family):
    given = settings_of(family, Settings())
    view = SettingsView(given)  # refuses what it was not given
    for method in given["methods"]:
        assert grid(method, view) == grid(method, Settings())
    assert set(given) == {"methods", *METHOD_FAMILIES[family].settings}


def test_only_configured_methods_are_solved_in_their_order():
    settings = Settings(methods=["qp_shared", "no_steering", "qp_optimal"])
    assert families_of(settings.methods) == ["directions", "qp"]
    assert settings_of("qp", settings)["methods"] == ["qp_shared", "qp_optimal"]
