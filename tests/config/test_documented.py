"""config.yaml shows every key a user can set, and the defaults that it shows are the schema's."""

import re
from pathlib import Path

import pytest
import yaml

from steering_core.config.corrsteer_schema import Arm, Bridge, CorrSteerSettings, FineTuning
from steering_core.config.schema import DemoWorld, Settings
from steering_core.config.task import Task
from steering_core.probes.fit import REGULARISATIONS

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "config.yaml").read_text(encoding="utf-8")
RAW = yaml.safe_load(TEXT)


@pytest.mark.parametrize(
    "section", [Settings, CorrSteerSettings, Bridge, FineTuning, DemoWorld, Task]
)
def test_every_key_is_shown(section):
    hidden = [k for k in section.model_fields if not re.search(rf"\b{k}\b", TEXT)]
    assert hidden == []


def test_every_key_of_an_arm_is_described():
    hidden = [k for k in Arm.model_fields if k != "features_from" and f"``{k}``" not in Arm.__doc__]
    assert hidden == []


@pytest.mark.parametrize(
    ("section", "shown"),
    [
        (Settings(), RAW["settings"]),
        (CorrSteerSettings(), {k: v for k, v in RAW["corrsteer"]["settings"].items()}),
        (DemoWorld(), RAW["demo_world"]),
    ],
)
def test_shown_defaults_are_the_schemas(section, shown):
    defaults = section.model_dump()
    bridge = shown.get("bridge", {})
    assert {k: defaults["bridge"][k] for k in bridge} == bridge
    for key in shown.keys() - {"bridge"}:
        assert defaults[key] == shown[key], key


def test_probes_have_the_same_penalties_as_a_library():
    assert list(REGULARISATIONS) == Settings().probe_regularisation
