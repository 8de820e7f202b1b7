"""What depends on the device is decided in one place."""

import pytest
import torch

from steering_core.models import devices
from steering_core.models.devices import (
    batch_dependent,
    float64_device,
    free_cache,
    wait_for_devices,
)


@pytest.mark.parametrize(
    ("name", "double", "dependent"),
    [("cpu", "cpu", False), ("cuda:1", "cuda:1", True), ("mps", "cpu", True)],
)
def test_what_a_device_can_do(name, double, dependent):
    device = torch.device(name)
    assert float64_device(device) == torch.device(double)
    assert batch_dependent(device) is dependent


@pytest.mark.parametrize("there", [(), ("cuda",), ("mps",)])
def test_caches_are_freed_and_devices_waited_for_where_they_are(monkeypatch, there):
    done = []
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: "cuda" in there)
    monkeypatch.setattr(devices.torch.backends.mps, "is_available", lambda: "mps" in there)
    for name in ("cuda", "mps"):
        for act in ("empty_cache", "synchronize"):
            monkeypatch.setattr(
                getattr(torch, name), act, lambda what=f"{name}.{act}": done.append(what)
            )
    free_cache()
    wait_for_devices()
    assert done == [f"{name}.{act}" for act in ("empty_cache", "synchronize") for name in there]
