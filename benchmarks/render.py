"""Put the required ratios of ``results/benchmarks/*.csv`` into the README: ``python -m`` this.

Only what the tables say is shown, each with what it was run on; a benchmark that was not run has
no row.
"""

import sys
from pathlib import Path

import pandas as pd

from benchmarks.table import FOLDER
from steering_core.storage.atomic import write_text

PAGE = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
ORDER = ("optimize", "statistics", "corrsteer", "caching", "generation", "memory")


def number(value: float) -> str:
    """Return ``value`` with three digits that count."""
    return f"{value:,.0f}".replace(",", " ") if abs(value) >= 100 else f"{value:.3g}"


def rendered_rows(table: pd.DataFrame) -> list[str]:
    """Return the Markdown rows of what a table requires."""
    rows = []
    for line in table[table["required"].notna()].itertuples():
        unit = "" if pd.isna(line.unit) else f" {line.unit}"
        value = number(line.ours) + unit if pd.isna(line.ratio) else number(line.ratio)
        if not pd.isna(line.lowest):
            value += f" ({number(line.lowest)} to {number(line.highest)})"
        # Nothing is judged where ``met`` is empty: the run was too small.
        verdict = "not judged" if pd.isna(line.met) else "yes" if line.met else "**no**"
        required = line.required.replace(">=", "≥").replace("<=", "≤")
        rows.append(f"| {line.measured} | {value} | {required} | {verdict} |")
    return rows


def rendered_table(tables: dict[str, pd.DataFrame]) -> str:
    """Return the Markdown of all tables, by benchmark, and what they were measured on."""
    lines = [
        "| measured | ratio (in single rounds) or value | required | met |",
        "|---|---:|---:|---|",
    ]
    for table in tables.values():
        lines += rendered_rows(table)
    runs = {
        name: (table["date"][0], table["machine"][0], table["versions"][0], table["run"][0])
        for name, table in tables.items()
    }
    lines += ["", *(f"- {name}: {run[3]}; {run[1]}; {run[0]}" for name, run in runs.items())]
    lines += [f"- {versions}" for versions in sorted({run[2] for run in runs.values()})]
    return "\n".join(lines)


def rendered(page: str, tables: dict[str, pd.DataFrame]) -> str:
    """Return ``page`` with what is between its marks replaced."""
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{rendered_table(tables)}\n{END}{after}"


def main() -> None:
    files = {name: FOLDER / f"{name}.csv" for name in ORDER}
    tables = {name: pd.read_csv(file) for name, file in files.items() if file.is_file()}
    if not tables:
        sys.exit(f"{FOLDER} is empty: run `make bench` first.")
    write_text(PAGE, rendered(PAGE.read_text(encoding="utf-8"), tables))


if __name__ == "__main__":
    main()
