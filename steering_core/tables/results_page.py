"""Write a page of results from the tables of finished experiments, and keep the tables beside it.

    python -m steering_core.tables.results_page docs/results.md results/smollm2_sst2 …

A folder with ``pareto.csv`` is an experiment, one with ``corrsteer.csv`` a run of CorrSteer, and
one with ``sparse_autoencoders.csv`` a model whose SAEs were trained here. No number of the page
comes from anywhere else. ``--remark`` adds what no table knows, such as that a judge is a stand-in.
``--title`` and ``--command`` are for another page than that of ``make real``.
"""

import argparse
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from steering_core.errors import StorageError
from steering_core.statistics.paired import LEVEL
from steering_core.storage.files import write_text
from steering_core.tables.caveats import warnings_in
from steering_core.tables.results_experiment import (
    about_model,
    dictionaries_compared,
    experiment_part,
    optional_table,
)
from steering_core.tables.show import stage_costs
from steering_core.tables.words import bracketed, cell, digits, headline_rows

#: Copied beside the page, of those that are there: the tables of results first.
KEPT = (
    *("pareto.csv", "corrsteer.csv", "sparse_autoencoders.csv"),
    *("verdict.json", "summary.csv", "matched.csv", "price.csv", "differences.csv", "judges.csv"),
    *("norm_matched.csv", "sweep.csv", "features.csv", "dose.csv", "elsewhere.csv", "guards.csv"),
    *("pareto.svg", "matched.svg", "price.svg", "dose.svg", "elsewhere.svg"),
)
#: One of these makes a folder one of results.
_RESULTS = KEPT[:3]
_SAE_COLUMNS = (
    "layer",
    "l0",
    "explained_variance",
    "token_explained_variance",
    "dead_features",
    "d_sae",
    "loss_recovered",
)


def write_page(
    page: str | Path,
    folders: Iterable[str | Path],
    remarks: Sequence[str] = (),
    *,
    title: str = "Results on a real model",
    command: str | None = None,
) -> None:
    """Write ``page`` in Markdown, and copy the tables behind it to a folder of its name.

    Args:
        page: such as ``docs/results.md``; the tables go to ``docs/results/``.
        folders: results of experiments, runs and models.
        remarks: sentences that stand at the top of the page as they are.
        title: of the page.
        command: what made the results; None for ``make real``.

    Raises:
        StorageError: if a folder has none of the three tables.
    """
    page = Path(page)
    data = page.with_suffix("")
    found: dict[str, list] = {"experiments": [], "runs": [], "saes": [], "costs": [], "totals": []}
    prices: dict[str, pd.DataFrame] = {}
    for folder in map(Path, folders):
        if not any((folder / name).is_file() for name in _RESULTS):
            raise StorageError(f"{folder} has no table of results: run its experiment first.")
        # A model may be called as an experiment is.
        shared = any(row[0] == folder.name for row in found["totals"])
        own = data / (f"{folder.parent.name}_{folder.name}" if shared else folder.name)
        own.mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, own / name)
        if (own / "pareto.csv").is_file():
            part = experiment_part(own, f"{data.name}/{own.name}", about_model(folder))
            found["experiments"].append(part)
            prices[own.name] = headline_rows(optional_table(own / "price.csv"))
        if (own / "corrsteer.csv").is_file():
            found["runs"].append(_run(own.name, pd.read_csv(own / "corrsteer.csv")))
        if (own / "sparse_autoencoders.csv").is_file():
            found["saes"].append(_saes(pd.read_csv(own / "sparse_autoencoders.csv")))
        spent = stage_costs(folder)
        write_text(own / "stages.csv", spent.to_csv(index=False))
        found["totals"].append(_total(own.name, spent))
        found["costs"] += [
            [own.name, row.stage, row.jobs, f"{row.seconds:.0f}", digits(row.peak_mb, ".0f")]
            for row in spent.itertuples()
        ]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates"), encoding="utf-8"),
        autoescape=False,  # Markdown, whose cells `cell` escapes
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    failed = [text for part in ("experiments", "runs") for one in found[part] for text in one["no"]]
    text = environment.get_template("results.md.j2").render(
        title=title,
        command=command,
        data=data.name,
        remarks=[cell(remark) for remark in remarks],
        failed=failed,
        dictionaries=dictionaries_compared(prices),
        **found,
    )
    write_text(page, text.rstrip("\n") + "\n")


# ---------------------------------------------------------------------------- CorrSteer, SAEs
def _run(name: str, table: pd.DataFrame) -> dict[str, Any]:
    table = table[table["seed"].astype(str) == "all"]
    base = table[table["method"] == "unsteered"].iloc[0]
    refused = warnings_in(base["warnings"])
    # Name the faults of the baseline once.
    warned = {
        row["method"]: [text for text in warnings_in(row["warnings"]) if text not in refused]
        for _, row in table.iterrows()
    }
    doubtful = table["method"].map(warned).astype(bool)
    sure = table["mcnemar_p"].astype(float) < LEVEL
    rises, falls = (table["change_low"] > 0) & sure, (table["change_high"] < 0) & sure
    better, worse, uncounted = (
        table.loc[which, "method"]
        for which in (rises & ~doubtful, falls & ~doubtful, (rises | falls) & doubtful)
    )
    right = bracketed(base["accuracy"], base["accuracy_low"], base["accuracy_high"])
    seeds = f", to the same questions under {n} seeds," if (n := int(base["n_seeds"])) > 1 else ""
    finding = f"Without steering a share of {right} of {base['n']} answers{seeds} is right. "
    no = []
    if refused:
        finding += f"This is no baseline, so the changes below say nothing: {'; '.join(refused)}."
        no.append(f"{name}: the baseline is refused: {'; '.join(refused)}.")
    else:
        finding += _beyond_noise(better, "rises") + _beyond_noise(worse, "falls")
        if better.empty and worse.empty:
            finding += "No method changes it beyond noise. "
        if len(uncounted):
            names = ", ".join(f"`{method}`" for method in uncounted)
            finding += f"Changes with a warning in the table do not count: {names}."
    for _, row in table[table["status"] != "ok"].iterrows():
        no.append(f"{name}: `{row['method']}` has no result: {row['reason']}.")
    rows = [
        [
            f"`{row['method']}`",
            str(row["n"]),
            bracketed(row["accuracy"], row["accuracy_low"], row["accuracy_high"]),
            bracketed(row["change"], row["change_low"], row["change_high"]),
            bracketed(row["ser"], row["ser_low"], row["ser_high"]),
            digits(row["mcnemar_p"], ".2g"),
            digits(row.get("norm_mean")),
            cell(_status(row, warned[row["method"]])),
        ]
        for _, row in table.iterrows()
    ]
    return {
        "name": name,
        "finding": cell(finding.strip()),
        "rows": rows,
        "no": [cell(text).replace("..", ".") for text in no],
    }


def _status(row: pd.Series, warnings: Sequence[str]) -> str:
    """Return the status of a method with its reason or notes, and its own warnings."""
    said = [row["status"]] + ([row["reason"]] if pd.notna(row["reason"]) else [])
    return "; ".join([": ".join(said), *warnings])


def _beyond_noise(methods: pd.Series, does: str) -> str:
    names = ", ".join(f"`{method}`" for method in methods)
    return f"It {does} beyond noise under {names}. " if names else ""


def _saes(table: pd.DataFrame) -> dict[str, Any]:
    rows = [
        [
            bracketed(row[column], row.get(f"{column}_low"), row.get(f"{column}_high"))
            for column in _SAE_COLUMNS
        ]
        for _, row in table.iterrows()
    ]
    first = table.iloc[0]

    def span(column: str, form: str) -> str:
        low, high = format(table[column].min(), form), format(table[column].max(), form)
        return low if low == high else f"{low} to {high}"

    return {
        "name": first["model"],
        "header": [column.replace("_", " ") for column in _SAE_COLUMNS],
        "rows": rows,
        "finding": (
            f"The SAEs of `{first['model']}` at {_layers(table)} ({first['architecture']}, "
            f"{first['d_sae']} features, {first['n_training_tokens']:,} tokens) explain "
            f"{span('explained_variance', '.2f')} of the variance of held-out residuals with "
            f"{span('l0', '.0f')} features a token. For the median token, which a few huge "
            f"residuals cannot decide, it is {span('token_explained_variance', '.2f')}. With the "
            f"reconstruction in place of the residual, {span('loss_recovered', '.2f')} of the loss "
            "is recovered."
        ),
    }


def _layers(table: pd.DataFrame) -> str:
    return f"{len(table)} layers" if len(table) > 1 else f"layer {table['layer'].iloc[0]:g}"


def _total(name: str, spent: pd.DataFrame) -> list[str]:
    return [
        name,
        str(int(spent["jobs"].sum())),
        f"{spent['seconds'].sum() / 60:.1f}",
        digits(spent["cpu_seconds"].sum() / 60, ".1f"),
        digits(spent["peak_mb"].max(), ".0f"),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the page of results of a model.")
    parser.add_argument("page", help="Markdown file to write")
    parser.add_argument("folders", nargs="+", help="results of experiments, runs and models")
    parser.add_argument("--remark", action="append", default=[], help="a sentence for the top")
    parser.add_argument("--title", default="Results on a real model", help="of the page")
    parser.add_argument("--command", help="what made the results, if not make real")
    given = parser.parse_args()
    about = {"title": given.title, "command": given.command}
    write_page(given.page, given.folders, given.remark, **about)
