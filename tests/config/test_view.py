"""A stage sees the settings it was given and no others."""

import copy

import pytest

from steering_core.config.view import SettingsView


def test_reads_what_was_passed():
    view = SettingsView({"seed": 3, "layer": "auto"})
    assert (view.seed, view.layer) == (3, "auto")


def test_refuses_what_was_not_passed_even_if_it_has_a_default():
    with pytest.raises(AttributeError, match="does not pass the setting 'topk'"):
        _ = SettingsView({"seed": 3}).topk
    assert not hasattr(SettingsView({}), "rows_per_class")


def test_is_read_only_and_keeps_its_own_copy():
    given = {"seed": 3}
    view = SettingsView(given)
    with pytest.raises(AttributeError, match="read-only"):
        view.seed = 4
    given["seed"] = 5
    assert view.seed == 3


def test_can_be_copied():
    assert copy.deepcopy(SettingsView({"seed": 3})).seed == 3
