"""Which libraries changed since something was made."""

import importlib.metadata

from steering_core.versions import changed_versions, running_versions


def test_versions_are_those_installed_without_the_build(monkeypatch):
    assert running_versions()["pyarrow"] == importlib.metadata.version("pyarrow")
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.13.0+cu126")
    assert running_versions()["torch"] == "2.13.0"


def test_what_changed_is_named():
    now = running_versions()
    assert changed_versions(now) == "" and changed_versions({}) == ""
    assert changed_versions({**now, "torch": f"{now['torch']}+cpu"}) == ""
    assert changed_versions({**now, "torch": "0.1"}) == f"torch 0.1 (now {now['torch']})"
