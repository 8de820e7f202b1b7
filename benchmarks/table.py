"""The table that every benchmark prints and writes, with the machine that measured it."""

import os
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from steering_core.storage.files import write_text

FOLDER = Path("results/benchmarks")
_LIBRARIES = ("torch", "transformers", "numpy", "scipy", "osqp", "clarabel", "scs", "cvxpy")


class Times(float):
    """The best time of a contestant; ``rounds`` has all times in order."""

    rounds: tuple[float, ...]

    def __new__(cls, best: float, rounds: Iterable[float] = ()) -> "Times":
        """Return ``best`` with ``rounds``."""
        made = super().__new__(cls, best)
        made.rounds = tuple(rounds)
        return made


@dataclass(frozen=True)
class Line:
    """One comparison: our value and the reference's, in ``unit``, and their ratio.

    ``met`` is None if nothing is required or the run is too small to judge. ``lowest`` and
    ``highest`` are the lowest and highest ratio of a single round if the contestants took turns.
    They show how far to trust the ratio.
    """

    measured: str
    ours: float
    reference: float | None
    ratio: float | None
    required: str = ""
    met: bool | None = None
    note: str = ""
    unit: str = "s"
    lowest: float | None = None
    highest: float | None = None


def _spread(above: float, below: float) -> dict[str, float]:
    """Return the extremes of ``above / below`` over rounds, if both ran in the same rounds."""
    over, under = (getattr(time, "rounds", ()) for time in (above, below))
    if not over or len(over) != len(under):
        return {}
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    return {"lowest": min(ratios), "highest": max(ratios)}


def compared(name: str, ours: float, reference: float, note: str = "", unit: str = "s") -> Line:
    """Return a line for our relative speed, ``reference / ours``, without a requirement."""
    spread = _spread(reference, ours)
    return Line(name, ours, reference, reference / ours, note=note, unit=unit, **spread)


def at_least(
    name: str, ours: float, reference: float, least: float, note: str = "", unit: str = "s"
) -> Line:
    """Return a line for our relative speed, ``reference / ours``, which must reach ``least``."""
    line = compared(name, ours, reference, note, unit)
    return replace(line, required=f">= {least:g}", met=bool(line.ratio >= least))


def at_most(
    name: str, ours: float, reference: float, most: float, note: str = "", unit: str = "s"
) -> Line:
    """Return a line for our relative cost, ``ours / reference``, which must not exceed ``most``."""
    ratio, met = ours / reference, bool(ours / reference <= most)
    spread = _spread(ours, reference)
    return Line(name, ours, reference, ratio, f"<= {most:g}", met, note, unit, **spread)


def processor() -> str:
    """Return the name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine() -> dict[str, str]:
    """Return the machine of the measurement, as columns of every row."""
    where = f"{processor()}, {os.cpu_count()} cores"
    torch = sys.modules.get("torch")  # not every benchmark imports torch
    if torch is not None:
        where += f", {torch.get_num_threads()} threads"
        if torch.cuda.is_available():
            where = f"{torch.cuda.get_device_name()}; {where}"
    versions = [f"python {platform.python_version()}"]
    versions += [f"{name} {version(name)}" for name in _LIBRARIES]
    return {
        "machine": where,
        "versions": ", ".join(versions),
        "date": time.strftime("%Y-%m-%d"),
    }


def write_lines(lines: Sequence[Line], name: str, heading: str) -> pd.DataFrame:
    """Write ``results/benchmarks/name.csv`` and return its table."""
    table = pd.DataFrame([asdict(line) for line in lines]).assign(run=heading, **machine())
    write_text(FOLDER / f"{name}.csv", table.to_csv(index=False))
    return table


def report(lines: Sequence[Line], name: str, heading: str, *, judged: bool = True) -> int:
    """Print the table, write ``results/benchmarks/name.csv``, return 1 if a line was missed.

    Args:
        lines: lines of the table.
        name: name of the file.
        heading: description of the run (size of the model, clock); the column ``run``.
        judged: whether the run is large enough for its requirements.

    """
    if not judged:
        lines = [replace(line, met=None) for line in lines]
    table = write_lines(lines, name, heading)
    print(f"{name}: {heading}; {table['machine'][0]}, {table['date'][0]}")
    shown = ["measured", "ours", "reference", "unit", "ratio", "lowest", "highest"]
    shown += ["required", "met", "note"]
    print(table[shown].to_string(index=False, na_rep="", float_format="%.4g"))
    missed = [line for line in lines if line.met is False]
    for line in missed:
        value = line.ours if line.ratio is None else line.ratio
        print("FAILED", f"{line.measured}: {value:.3g}, not {line.required}", file=sys.stderr)
    return 1 if missed else 0
