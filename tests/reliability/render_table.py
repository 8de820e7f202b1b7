"""Put the ledger of the reliability tests into docs/reliability.md.

python tests/reliability/render_table.py
"""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from ledger import ledger_path, missing, read_ledger  # noqa: E402

from steering_core.storage.files import write_text  # noqa: E402

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def table(rows: dict[str, dict[str, str]]) -> str:
    """Return the ledger as a Markdown table with its totals."""
    lines = ["| fault | through | injected | survived | bytes lost |", "|---|---|---:|---:|---:|"]
    keys = ("injected", "survived", "bytes_lost")
    for fault in sorted(rows):
        cells = [fault, *(rows[fault][key] for key in ("through", *keys))]
        lines.append("| " + " | ".join(cells) + " |")
    totals = [str(sum(int(row[key]) for row in rows.values())) for key in keys]
    lines.append("| **all** | | " + " | ".join(f"**{total}**" for total in totals) + " |")
    return "\n".join(lines)


def rendered(page: str, rows: dict[str, dict[str, str]]) -> str:
    """Return ``page`` with the table between its marks replaced."""
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{table(rows)}\n\n{measured()}\n{END}{after}"


def measured() -> str:
    """Return when the ledger was last written, and the commit that is checked out."""
    day = datetime.fromtimestamp(ledger_path().stat().st_mtime, UTC)
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    return f"Measured on {day.day} {day:%B %Y}" + (f", commit {commit}." if commit else ".")


def main() -> None:
    rows = read_ledger(ledger_path())
    if lacking := missing(rows):
        sys.exit(
            f"{ledger_path()} lacks {', '.join(lacking)}: run all of tests/reliability and "
            "tests/cluster, as root and with SLURM, so that none is skipped."
        )
    page = PAGE.read_text(encoding="utf-8")
    write_text(PAGE, rendered(page, rows))


if __name__ == "__main__":
    main()
