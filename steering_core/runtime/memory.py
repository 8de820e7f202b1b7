"""The memory of a job: how much it asks for, and what to do when memory or the disk runs out.

The rules ask for so much memory and so many cores, once the fetch stage has counted parameters. A
stage that runs out names the settings that need less.
"""

import errno
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors import SafetensorError

from steering_core.errors import ResourceError

# ---------------------------------------------------------------- what a job asks for
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
#: Memory of a job before it loads anything, in MB: Python with its libraries, and room for texts.
BASE = 3000
#: A smaller model keeps one core busy: the rest of a job is the start of Python. In MB.
_SMALL = 100.0


@dataclass(frozen=True)
class Sizes:
    """Sizes in memory, in MB.

    Attributes:
        model: the weights of the model, in its dtype.
        weights32: the weights of the model in float32, as training needs them.
        sae: encoder and decoder of the largest SAE in float32.
        saes: those of the SAEs of all layers together.
        judges: the weights of the largest judge in float32; 0 without a judge that is a model.
    """

    model: float
    weights32: float
    sae: float
    saes: float
    judges: float

    def megabytes(self, **times: float) -> int:
        """Return the memory of a job that needs so many times the size of each."""
        return round(BASE + sum(factor * getattr(self, name) for name, factor in times.items()))

    @property
    def cores(self) -> int:
        """How many cores a job can use."""
        return 1 if self.model < _SMALL else 2


def sizes_of(resources: Mapping[str, Any]) -> Sizes:
    """Return the sizes of what the fetch stage describes in ``resources.json``."""
    width = resources["shape"]["d_model"]
    saes = [2 * sae["d_sae"] * width * 4 / 1e6 for sae in resources["saes"]]
    count = resources["parameters"]
    return Sizes(
        model=count["model"] * _BYTES[resources["model"]["dtype"]] / 1e6,
        weights32=count["model"] * 4 / 1e6,
        sae=max(saes),
        saes=sum(saes),
        judges=count["judges"] * 4 / 1e6,
    )


def read_sizes(path: str | Path) -> Sizes | None:
    """Read the sizes from a file; None if it is not there, or no stage can read it either."""
    try:
        return sizes_of(json.loads(Path(path).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, KeyError):
        return None


# ---------------------------------------------------------------- what to do about one that ran out
_SAE = "choose a narrower SAE (sae.id)"
_MORE = (
    "give the job more memory: on a cluster a retry asks for twice the mem_mb, elsewhere run "
    "fewer jobs at a time (--cores)"
)

_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|not enough memory|CUBLAS_STATUS_ALLOC_FAILED", re.I
)
_DISK_FULL = re.compile(r"no space left on device|disk quota exceeded", re.I)
_READ_ONLY = re.compile(r"read-only file system|permission denied", re.I)
#: Errors of a network file system itself, not of a file.
_FILE_SYSTEM = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT)


@dataclass(frozen=True)
class Needs:
    """What determines the memory that a stage needs.

    Attributes:
        settings: settings that lower it, the most effective first.
        batch: the batch size that the stage itself halves when memory runs out, down to one.
            Lowering it by hand only helps if the job was killed before it could do so.
        other: other advice, in words.
        model: True if the stage loads a language model, so that its dtype matters.
    """

    settings: tuple[str, ...] = ()
    batch: str = ""
    other: str = ""
    model: bool = False


#: Needs by rule. Rules that are missing here need little memory with any settings.
NEEDS = {
    "cache_activations": Needs(("batch_tokens", "max_tokens"), model=True),
    "encode_features": Needs(other=_SAE),
    "sweep_layers": Needs(("rows_per_class",), other=_SAE),
    "fit_probes": Needs(("rows_per_class",)),
    "correlate_features": Needs(other=_SAE),
    "fit_directions": Needs(("rows_per_class",), other=_SAE),
    "cache_prompts": Needs(("batch_tokens", "max_tokens"), model=True),
    "solve": Needs(("rows_per_class",), other=_SAE),
    "solve_prompts": Needs(("n_prompts",), other=_SAE),
    "solve_directions": Needs(("rows_per_class",)),
    "solve_directions_prompts": Needs(("n_prompts",)),
    "gate_method": Needs(("rows_per_class",), other=_SAE),
    "gate_method_prompts": Needs(("rows_per_class", "n_prompts"), other=_SAE),
    "solve_variants": Needs(("variant_rows", "prefilter_features"), other=_SAE),
    "solve_declared": Needs(("rows_per_class",), other=_SAE),
    "solve_declared_prompts": Needs(("rows_per_class", "n_prompts"), other=_SAE),
    "estimate_fisher": Needs(("batch_tokens",), batch="batch_prompts", model=True),
    "train_lora": Needs(("max_tokens",), other="lower lora.rank, or name fewer lora.modules"),
    "guard_direction": Needs(("batch_tokens", "max_tokens"), model=True),
    "likelihood_gradient": Needs(("batch_tokens", "max_tokens"), model=True),
    "dequantise": Needs(other="take a smaller model"),
    "cache_training_activations": Needs(("batch_tokens",), model=True),
    "train_sae": Needs(other="lower d_sae or tokens of sae.train"),
    "export_intervention": Needs(other=_SAE),
    "generate": Needs(("new_tokens", "max_tokens"), batch="batch_prompts", model=True),
    "probe_effects": Needs(("rows_per_class",)),
    "norm_matched": Needs(("rows_per_class",), other=_SAE),
    "divergence": Needs(("batch_tokens",), model=True),
    "elsewhere_text": Needs(("batch_tokens",), model=True),
    "try_layer": Needs(("new_tokens", "max_tokens"), batch="batch_prompts", model=True),
    "judge": Needs(("batch_tokens",), other="choose a smaller classifier", model=True),
    "features_page": Needs(other=_SAE),
    "corrsteer_select": Needs(("new_tokens",), batch="batch_rows", other=_SAE, model=True),
    "corrsteer_validate": Needs(("new_tokens",), batch="batch_rows", model=True),
    "corrsteer_answer": Needs(("new_tokens",), batch="batch_rows", model=True),
    "corrsteer_experiment_method": Needs(("new_tokens",), batch="batch_rows", model=True),
    "corrsteer_elsewhere": Needs(batch="batch_rows", model=True),
    "corrsteer_sparse_methods": Needs(("new_tokens",), batch="batch_rows", model=True),
    "corrsteer_fine_tune": Needs(other="set fine_tuning.method to lora"),
    "corrsteer_merge": Needs(other=_SAE),
    "corrsteer_plan": Needs(other=_SAE),
}


def memory_advice(
    stage: str,
    settings: Mapping[str, Any] = MappingProxyType({}),
    dtype: str | None = None,
    *,
    killed: bool = False,
) -> str:
    """Return what to do about a stage that ran out of memory, as the end of a sentence.

    Args:
        stage: name of its rule.
        settings: settings of the stage. The advice proposes half of their values; it only names
            settings that are missing here.
        dtype: dtype of its model, if known.
        killed: True if the stage ended before it could lower its batch by itself.
    """
    needs = NEEDS.get(stage, Needs())
    names = (needs.batch,) * (killed and bool(needs.batch)) + needs.settings
    known = {name: settings.get(name) for name in names}
    halves = [f"{k}={v // 2}" for k, v in known.items() if isinstance(v, int) and v > 1]
    others = [name for name, value in known.items() if value is None]
    said = [f"run again with --config {' '.join(halves)}"] if halves else []
    said += [f"lower {' or '.join(others)}"] if others else []
    said += [needs.other] if needs.other else []
    if needs.model and dtype in (None, "float32"):
        said.append("set the model's dtype to bfloat16")
    return ", or ".join([*said, _MORE])


@contextmanager
def explain_exhaustion(folder: Path, advice: str = "") -> Iterator[None]:
    """Turn errors of exhausted memory or disk in the block into a :class:`ResourceError`.

    Args:
        folder: where the stage writes, for the message.
        advice: what to do if memory ran out; by default the advice that fits any stage.

    Raises:
        ResourceError: with the advice.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        raise ResourceError(f"out of memory: {advice or memory_advice('')}. ({error})") from error
    except (OSError, SafetensorError) as error:
        message = _disk_advice(error, folder)
        if message is None:
            raise
        raise ResourceError(message) from error


def _disk_advice(error: Exception, folder: Path) -> str | None:
    """Return what to do about a full, read-only or failing disk; None for other errors."""
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT) or _DISK_FULL.search(str(error)):
        return (
            f"the disk that holds {folder} is full: free some space and run the same command "
            f"again; finished files are kept. ({error})"
        )
    if number in (errno.EROFS, errno.EACCES) or _READ_ONLY.search(str(error)):
        return (
            f"{folder} cannot be written or a file not be read: check the permissions, or choose "
            f"another place with --directory. ({error})"
        )
    if number in _FILE_SYSTEM:
        return (
            f"the file system of {folder} or of an input failed: finished files are kept; run the "
            f"same command again once it works. ({error})"
        )
    return None
