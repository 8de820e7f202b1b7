"""What depends on the device is decided in one place."""

import pytest
import torch

from steering_core.models import devices
from steering_core.models.devices import (
    batch_dependent,
    choose_dtype,
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


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [({}, "float32"), ({"avx512_f": True, "avx512_bf16": False}, "float32")]
    + [({name: True}, "bfloat16") for name in ("avx512_bf16", "amx_bf16")],
)
def test_auto_is_bfloat16_where_a_processor_has_its_instructions(monkeypatch, capabilities, dtype):
    monkeypatch.setattr(devices.torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_dtype("auto", "cpu") == dtype
    assert choose_dtype("float16", "cpu") == "float16"


@pytest.mark.parametrize(("there", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_auto_on_a_gpu_asks_the_gpu(monkeypatch, there, dtype):
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices.torch.cuda, "is_bf16_supported", lambda **_: there)
    assert choose_dtype("auto", "auto") == dtype
