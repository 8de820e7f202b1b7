"""Choice of device, and what differs between devices."""

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


def choose_dtype(name: str, device: str) -> str:
    """Return the precision called ``name``.

    ``auto`` is bfloat16 where the hardware has instructions for it, so that it is the faster one,
    and float32 elsewhere. On a CPU these are AVX512-BF16 and AMX.

    Args:
        name: a key of :data:`DTYPES`, or ``auto``.
        device: as for :func:`choose_device`.

    Raises:
        ConfigError: as :func:`choose_device`.
    """
    if name != "auto":
        return name
    kind = choose_device(device).type
    if kind == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = kind == "cpu" and _cpu_has_bfloat16()
    return "bfloat16" if fast else "float32"


def _cpu_has_bfloat16() -> bool:
    has = torch.cpu.get_capabilities()
    return any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move ``tensor`` to ``device``. A copy to a GPU does not wait for its queued work."""
    return tensor.to(device, non_blocking=device.type == "cuda" and tensor.device.type == "cpu")


def float64_device(device: torch.device) -> torch.device:
    """Return the device for float64 work: the CPU if ``device`` is MPS, which has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def batch_dependent(device: torch.device) -> bool:
    """Return True if results may change with the other rows of a batch (any device but the CPU).

    On a CPU, :mod:`steering_core.models.tokens` pads so that they do not change.
    """
    return device.type != "cpu"


def free_cache() -> None:
    """Empty PyTorch's cache of GPU memory."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def wait_for_devices() -> None:
    """Wait for all queued GPU work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    if torch.backends.mps.is_available():
        torch.mps.synchronize()
