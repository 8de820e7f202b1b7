"""Write ``results/benchmarks/*.csv`` into README and docs/performance.md: ``python -m`` this.

The README gets the headline ratios. docs/performance.md gets the table of required ratios and every
measured line. Each table names its machine and date. A benchmark that was not run has no row.
"""

import sys
from pathlib import Path

import pandas as pd

from benchmarks.table import FOLDER
from steering_core.storage.files import write_text

ROOT = Path(__file__).resolve().parents[1]
PAGE, DETAILS = ROOT / "README.md", ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
ORDER = (
    "optimize", "statistics", "corrsteer", "caching", "generation", "exports", "memory", "floor",
)  # fmt: skip
#: The lines for the README, by their names in the tables.
HEADLINES = (
    "path against reference, lambda 1, 1000 inputs (extrapolated)",
    "cache layer 12 / bare pass",
    "selection / plain generation, default arms, one token (select tasks)",
    "steered / transformers generate",
    "adaptive QP / transformers generate",
)


def number(value: float) -> str:
    """Return ``value`` with three significant digits."""
    return f"{value:,.0f}".replace(",", " ") if abs(value) >= 100 else f"{value:.3g}"


def rendered_rows(table: pd.DataFrame) -> list[str]:
    """Return the Markdown rows of a table's required ratios."""
    rows = []
    for line in table[table["required"].notna()].itertuples():
        unit = "" if pd.isna(line.unit) else f" {line.unit}"
        value = number(line.ours) + unit if pd.isna(line.ratio) else number(line.ratio)
        if not pd.isna(line.lowest):
            value += f" ({number(line.lowest)} to {number(line.highest)})"
        # An empty ``met`` means that the run was too small to judge.
        verdict = "not judged" if pd.isna(line.met) else "yes" if line.met else "**no**"
        required = line.required.replace(">=", "≥").replace("<=", "≤")
        rows.append(f"| {line.measured} | {value} | {required} | {verdict} |")
    return rows


_REQUIRED_HEADER = [
    "| measured | ratio (in single rounds) or value | required | met |",
    "|---|---:|---:|---|",
]


def rendered_table(tables: dict[str, pd.DataFrame]) -> str:
    """Return the Markdown of every required line of all tables."""
    rows = [row for table in tables.values() for row in rendered_rows(table)]
    return "\n".join([*_REQUIRED_HEADER, *rows])


def rendered_headlines(tables: dict[str, pd.DataFrame]) -> str:
    """Return the Markdown of :data:`HEADLINES`, with the machine and date of each table."""
    chosen = {
        name: table[table["measured"].isin(HEADLINES)].reset_index(drop=True)
        for name, table in tables.items()
    }
    chosen = {name: table for name, table in chosen.items() if len(table)}
    runs = {
        f"{table['machine'][0]}; {table['date'][0]}; {table['versions'][0]}"
        for table in chosen.values()
    }
    return "\n".join([rendered_table(chosen), "", *(f"- {run}" for run in sorted(runs))])


def rendered_runs(tables: dict[str, pd.DataFrame]) -> list[str]:
    """Return the machine, date and library versions of each table."""
    runs = {
        name: (table["date"][0], table["machine"][0], table["versions"][0], table["run"][0])
        for name, table in tables.items()
    }
    lines = [f"- {name}: {run[3]}; {run[1]}; {run[0]}" for name, run in runs.items()]
    return lines + [f"- {versions}" for versions in sorted({run[2] for run in runs.values()})]


def rendered_details(tables: dict[str, pd.DataFrame]) -> str:
    """Return the Markdown of every measured line: both sides, their ratio and a note."""
    lines = []
    for name, table in tables.items():
        other = "floor" if name == "floor" else "reference"
        lines += [
            f"| {name} | ours | {other} | ratio (in single rounds) | |",
            "|---|---:|---:|---:|---|",
        ]
        for line in table.itertuples():
            unit = "" if pd.isna(line.unit) else f" {line.unit}"
            reference = "" if pd.isna(line.reference) else number(line.reference) + unit
            ratio = "" if pd.isna(line.ratio) else number(line.ratio)
            if not pd.isna(line.lowest):
                ratio += f" ({number(line.lowest)} to {number(line.highest)})"
            note = "" if pd.isna(line.note) else line.note
            lines.append(
                f"| {line.measured} | {number(line.ours)}{unit} | {reference} | {ratio} | {note} |"
            )
        lines.append("")
    return "\n".join([*lines, *rendered_runs(tables)])


def rendered(page: str, markdown: str) -> str:
    """Return ``page`` with the part between its marks replaced by ``markdown``."""
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{markdown}\n{END}{after}"


def main() -> None:
    files = {name: FOLDER / f"{name}.csv" for name in ORDER}
    tables = {name: pd.read_csv(file) for name, file in files.items() if file.is_file()}
    if not tables:
        sys.exit(f"{FOLDER} is empty: run `make bench` first.")
    required = {name: table for name, table in tables.items() if table["required"].notna().any()}
    for page, markdown in (
        (PAGE, rendered_headlines(required)),
        (DETAILS, rendered_table(required) + "\n\n" + rendered_details(tables)),
    ):
        write_text(page, rendered(page.read_text(encoding="utf-8"), markdown))


if __name__ == "__main__":
    main()
