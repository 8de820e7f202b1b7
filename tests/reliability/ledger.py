"""What the reliability tests did to the workflow, kept as results/reliability.csv."""

import csv
import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from steering_core.storage.files import atomic_path
from steering_core.storage.integrity import content_digest

WORKFLOW, DETECTOR = "workflow", "detector alone"
#: Every fault that the tests inject, and through what: a run of Snakemake, or the function that
#: each stage calls to find it.
FAULTS = {
    **dict.fromkeys(
        [
            "SIGKILL: CorrSteer",
            "SIGKILL: between two stages",
            "SIGKILL: the pipeline",
            "SLURM: scancel of a running job",
            "SLURM: slurmd is killed",
            "a damaged shard in a run",
            "a file is missing offline",
            "a stalled download is killed",
            "fetching again without a network",
            "full disk",
            "network: dataset and SAE of the fetch rule",
            "node without a network",
            "read-only results directory",
        ],
        WORKFLOW,
    ),
    **dict.fromkeys(
        [
            "a cache of another model.dtype",
            "a cache of another model.revision",
            "a cache of another sae_revision",
            "a cache of another sites",
            "a cache of another sites.0.name",
            "parts of a cache with two versions of torch",
            "a file is bit flipped",
            "a file is truncated",
            "an older dataset in the cache, hub away",
            "network: 429 of a file, once",
            "network: 429 of the API, once",
            "network: 503 of the API, once",
            "network: 503, lasting",
            "network: reset of a file, once",
            "network: reset, lasting",
            "network: stall of a file, once",
            "network: truncated of a file, once",
            *(
                f"network: {fault} of a file of the {what}, once"
                for fault in ("reset", "stall", "truncated")
                for what in ("dataset", "SAE")
            ),
            "network: reset of the dataset, lasting",
            "network: reset of the SAE, lasting",
        ],
        DETECTOR,
    ),
}
#: Where a kill falls is left to chance; one of these there must be.
KILLS = tuple(fault for fault in FAULTS if fault.startswith("SIGKILL"))
COLUMNS = ("fault", "case", "through", "injected", "survived", "bytes_lost")
_NUMBERS = ("injected", "survived", "bytes_lost")
_DEFAULT = Path(__file__).resolve().parents[2] / "results" / "reliability.csv"
#: Times of running, not results.
_NOT_RESULTS = ("logs", "benchmarks", ".snakemake")


@dataclass
class Tally:
    """How often a fault was injected and survived; a test of many counts them itself."""

    injected: int = 1
    survived: int = 1


def ledger_path() -> Path:
    """Where the ledger is; RELIABILITY_LEDGER names another place."""
    return Path(os.environ.get("RELIABILITY_LEDGER", _DEFAULT))


def read_ledger(path: Path) -> dict[str, dict[str, str]]:
    """Rows of the ledger by fault, the cases of one added up.

    Those that no test injects any more are left out.
    """
    found: dict[str, dict[str, str]] = {}
    for row in _rows(path).values():
        sums = found.setdefault(row["fault"], {**row, **dict.fromkeys(_NUMBERS, "0")})
        sums.update({key: str(int(sums[key]) + int(row[key])) for key in _NUMBERS})
    return dict(sorted(found.items()))


def missing(rows: Iterable[str]) -> list[str]:
    """Faults that a whole run of the tests injects and ``rows`` lack: no part of a run is shown."""
    found = set(rows)
    lacking = sorted(FAULTS.keys() - found - set(KILLS))
    return lacking if found & set(KILLS) else ["SIGKILL", *lacking]


def record(fault: str, case: str = "", *, injected: int, survived: int, bytes_lost: int) -> None:
    """Replace the row of a ``case`` of ``fault``; several processes may do so at once.

    A fault that :data:`FAULTS` lacks is a KeyError.
    """
    path = ledger_path()
    values = (fault, case, FAULTS[fault], injected, survived, bytes_lost)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = _rows(path)
        rows[fault, case] = dict(zip(COLUMNS, map(str, values), strict=True))
        with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows[key] for key in sorted(rows))


@contextmanager
def injecting(
    fault: str, case: str = "", *, kept: Path | None = None, expected: Path | None = None
) -> Iterator[Tally]:
    """Note that ``fault`` is injected; after the block, whether it was survived and what it lost.

    A fault is survived if the block ends without an error, as the final files are right, or one
    error named it, and nothing that was finished before is lost. A block that raises leaves a row
    that says so.

    Args:
        fault: one of :data:`FAULTS`.
        case: of a fault that several tests inject; its rows are added up.
        kept: folder whose files are compared: those of before the block must be there after it.
        expected: folder of the files that ``kept`` must hold at the end, if it is another one.

    """
    before = contents(expected or kept)
    tally = Tally()
    record(fault, case, injected=1, survived=0, bytes_lost=0)
    ended = False
    try:
        yield tally
        ended = True
    finally:
        lost = bytes_lost(before, contents(kept))
        survived = tally.survived if ended and not lost else 0
        record(fault, case, injected=tally.injected, survived=survived, bytes_lost=lost)
    assert lost == 0, f"{fault}: {lost} bytes of finished files are lost"


def contents(folder: Path | None) -> dict[str, tuple[str, int]]:
    """Digest and size of every file below ``folder`` by its name, without logs and timings."""
    if folder is None:
        return {}
    return {
        str(path.relative_to(folder)): (content_digest(path), path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not set(_NOT_RESULTS) & set(path.relative_to(folder).parts)
    }


def bytes_lost(before: dict[str, tuple[str, int]], after: dict[str, tuple[str, int]]) -> int:
    """Size of the files of ``before`` that are gone or others."""
    gone = ("", 0)
    return sum(
        size for name, (digest, size) in before.items() if after.get(name, gone)[0] != digest
    )


def _rows(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if tuple(row) == COLUMNS]
    return {
        (row["fault"], row["case"]): row
        for row in rows
        if row["through"] == FAULTS.get(row["fault"])
    }
