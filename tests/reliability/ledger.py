"""What the reliability tests did to the workflow, kept as results/reliability.csv."""

import csv
import os
from pathlib import Path

from steering_core.storage.atomic import atomic_path

COLUMNS = ("fault", "injected", "survived", "bytes_lost")
_DEFAULT = Path(__file__).resolve().parents[2] / "results" / "reliability.csv"


def ledger_path() -> Path:
    """Where the ledger is; RELIABILITY_LEDGER names another place."""
    return Path(os.environ.get("RELIABILITY_LEDGER", _DEFAULT))


def read_ledger(path: Path) -> dict[str, dict[str, str]]:
    """Rows of the ledger by fault; none without a file."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["fault"]: row for row in csv.DictReader(file)}


def record(fault: str, *, injected: int, survived: int, bytes_lost: int) -> None:
    """Replace the row of ``fault``: how often it was injected and survived, and bytes lost.

    A fault is survived if the final files are right, or if one error named it and nothing that
    was finished before is lost.
    """
    path = ledger_path()
    rows = read_ledger(path)
    values = (fault, injected, survived, bytes_lost)
    rows[fault] = dict(zip(COLUMNS, map(str, values), strict=True))
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows[name] for name in sorted(rows))
