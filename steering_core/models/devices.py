"""Device and precision, decided in one place."""

import torch

from steering_core.errors import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str) -> torch.device:
    """Return the device called ``name``; ``auto`` prefers CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: if the device is asked for by name and absent.

    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((device for device, there in available.items() if there), "cpu")
    elif not available.get(name, True):
        raise ConfigError(f"device: {name} is not available on this machine; use auto or cpu.")
    return torch.device(name)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move ``tensor`` there. The copy to a GPU does not wait for what the GPU still has to do."""
    return tensor.to(device, non_blocking=device.type == "cuda" and tensor.device.type == "cpu")


def float64_device(device: torch.device) -> torch.device:
    """Return where to compute in float64 for ``device``: the CPU for MPS, which has none."""
    return torch.device("cpu") if device.type == "mps" else device


def batch_dependent(device: torch.device) -> bool:
    """Whether a row's digits depend on its batch whatever is done about it: not on a CPU.

    What is done there is in :mod:`steering_core.models.tokens`.
    """
    return device.type != "cpu"


def free_cache() -> None:
    """Give back the memory that PyTorch keeps of a GPU for later tensors."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def wait_for_devices() -> None:
    """Return when GPUs have done what was asked of them."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    if torch.backends.mps.is_available():
        torch.mps.synchronize()
