"""Advice for the user after a stage failed.

It names settings that need less memory, says what to do about a disk, and finds the errors in the
logs of a run.
"""

import errno
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors import SafetensorError

from steering_core.errors import ResourceError

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

_FAILED = re.compile(r"^\s+log: (.+) \(check log file\(s\) for error details\)$", re.MULTILINE)
_RECORD = re.compile(r"^\d{4}-\d\d-\d\d [\d:,]+ ([A-Z]+) \S+: (.*)$")


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


def explain_failures(workflow_logs: Iterable[str | Path]) -> list[str]:
    """Return a line for each failed job: its log, and the error that ended the job.

    Args:
        workflow_logs: the logs of the workflow manager, which name the logs of the failed jobs.

    """
    named = [
        log
        for file in workflow_logs
        for match in _FAILED.findall(_read(file))
        for log in match.split(", ")
    ]
    return [f"{log}: {_last_error(_read(log)) or _killed(log)}" for log in dict.fromkeys(named)]


def _read(path: str | Path) -> str:
    file = Path(path)
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def _last_error(text: str) -> str:
    """Return the message of the last error, with the last line of its traceback if it has one.

    The result is empty if there is no error.
    """
    message, end = "", ""
    for line in text.splitlines():
        record = _RECORD.match(line)
        if record is None:
            end = line.strip() or end
        elif record[1] == "ERROR":
            message, end = record[2], ""
    # Our own messages may span several lines; of a traceback the last line is enough.
    return f"{message}: {end}" if end else message


def _killed(log: str) -> str:
    """Return advice for a job that ended without a message. Its log is named after its rule."""
    advice = memory_advice(Path(log).stem.split("-")[0], killed=True)
    return (
        "ended without an error message: it was killed, or ran out of memory or time. If it was "
        f"memory, {advice}."
    )
