"""Configurations for tests to change: one with all that can be nested, and the published one."""

import copy
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))

#: Two guards of a declared program.
COMPONENTS = {"direction": "principal_components", "count": 2, "kappa": 0.5}
PROBE = {"direction": "probe", "experiment": "gpt2_sst2", "kappa": 0.5}


def small() -> dict:
    """A configuration with everything that can be nested."""
    return {
        "settings": {},
        "models": {
            "m": {"id": "org/m", "sae": {"release": "r", "id": "x.{layer}"}, "settings": {}},
            "idle": {"id": "org/i", "sae": {"path": "there/{layer}"}, "settings": {}},
        },
        "tasks": {
            "t": {
                "dataset": "d.csv",
                "text": "text",
                "label": "label",
                "concept": "c.yaml",
                "classifier": {"model": "org/c", "label": "POSITIVE"},
                "settings": {},
            }
        },
        "experiments": {"e": {"model": "m", "task": "t", "settings": {}}},
        "demo_world": {},
    }


def at(raw: dict, path: tuple[str, ...]) -> dict:
    for key in path:
        raw = raw[key]
    return raw


def changed(**section):
    """The published configuration with other parts of the section ``corrsteer``."""
    raw = copy.deepcopy(PUBLISHED)
    raw["corrsteer"] |= section
    return raw


def with_program(name="mine", **program):
    """The published configuration whose demo declares one more program."""
    raw = copy.deepcopy(PUBLISHED)
    program = {"program": "qp", "tau": [1.0], "qp_lambda": [1.0]} | program
    settings = raw["experiments"]["demo"]["settings"]
    settings["programs"] = settings.get("programs", {}) | {name: program}
    return raw


def with_settings(**settings):
    """The published configuration with other settings of all of CorrSteer's experiments."""
    # Ablations and experiments name arms that a test leaves out.
    everywhere = PUBLISHED["corrsteer"]["settings"] | settings
    return changed(settings=everywhere, ablations={}, experiments={})
