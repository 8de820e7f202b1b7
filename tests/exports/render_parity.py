"""Write what the tests of parity measured into the table of docs/exports.md.

The tests add rows to ``results/parity.csv``; ``python tests/exports/render_parity.py`` writes the
table between the two marks.
"""

import csv
import fcntl
import sys
from dataclasses import astuple, dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MEASURED, PAGE = ROOT / "results" / "parity.csv", ROOT / "docs" / "exports.md"
BEGIN, END = "<!-- parity: begin -->\n", "<!-- parity: end -->\n"


@dataclass(frozen=True)
class Row:
    """One consumer at one site.

    Attributes:
        consumer: the program.
        version: of it.
        site: the hook point, or ``unsteered``.
        difference: largest difference of a logit, over all prompts and steps.
        tokens_equal: whether all greedy tokens are the same.
    """

    consumer: str
    version: str
    site: str
    difference: float
    tokens_equal: bool


def read_rows() -> list[Row]:
    """The rows that were measured; none if there is no file."""
    if not MEASURED.is_file():
        return []
    with MEASURED.open(encoding="utf-8", newline="") as stream:
        return [
            Row(r["consumer"], r["version"], r["site"], float(r["difference"]),
                r["tokens_equal"] == "True")
            for r in csv.DictReader(stream)
        ]  # fmt: skip


def write_rows(rows: list[Row]) -> None:
    """Put rows in the place of older ones of the same consumer and site.

    Two files of tests may do so at once.
    """
    new = {(row.consumer, row.site) for row in rows}
    MEASURED.parent.mkdir(exist_ok=True)
    with MEASURED.with_name(".parity.csv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = [row for row in read_rows() if (row.consumer, row.site) not in new]
        with MEASURED.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow([field.name for field in fields(Row)])
            writer.writerows(astuple(row) for row in [*kept, *rows])


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| consumer | version | site | largest logit difference | tokens equal |"]
    lines.append("|---|---|---|---:|---|")
    for row in sorted(rows, key=lambda row: (row.consumer, row.site)):
        equal = "yes" if row.tokens_equal else "no"
        site = row.site if row.site == "unsteered" else f"`{row.site}`"
        cells = [row.consumer, row.version, site, f"{row.difference:.2g}", equal]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def render(page: str, rows: list[Row]) -> str:
    """The page with the table of the rows."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + table(rows) + END + rest.split(END)[1]


if __name__ == "__main__":
    if not (measured := read_rows()):
        sys.exit(f"{MEASURED} is not there: run `make parity`.")
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8"), measured), encoding="utf-8")
