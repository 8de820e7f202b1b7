"""Write a page of results from the tables of finished experiments, and keep the tables beside it.

    python -m steering_core.tables.results_page docs/results.md results/smollm2_sst2 …

A folder with ``pareto.csv`` is an experiment, one with ``corrsteer.csv`` a run of CorrSteer, and
one with ``sparse_autoencoders.csv`` a model whose SAEs were trained here. No number of the page
comes from anywhere else.
"""

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from steering_core.errors import StorageError
from steering_core.storage.files import write_text
from steering_core.tables.caveats import warnings_in
from steering_core.tables.frontier_verdict import is_true, readable_strength
from steering_core.tables.stages import stage_costs

#: Copied beside the page, of those that are there.
KEPT = (
    "pareto.csv",
    "norm_matched.csv",
    "summary.csv",
    "matched.csv",
    "price.csv",
    "corrsteer.csv",
    "sparse_autoencoders.csv",
    "pareto.svg",
)
_BASE, _RATE = "no_steering", "classifier_rate_steered"
_SAE_COLUMNS = ("layer", "l0", "explained_variance", "dead_features", "loss_recovered")


def write_page(page: str | Path, folders: Iterable[str | Path]) -> None:
    """Write ``page`` in Markdown, and copy the tables behind it to a folder of its name.

    Args:
        page: such as ``docs/results.md``; the tables go to ``docs/results/``.
        folders: results of experiments, runs and models.

    Raises:
        StorageError: if a folder has none of the three tables.
    """
    page = Path(page)
    data = page.with_suffix("")
    experiments, runs, costs, saes = [], [], [], None
    for folder in map(Path, folders):
        tables = [folder / name for name in KEPT if (folder / name).is_file()]
        if not any(table.suffix == ".csv" for table in tables):
            raise StorageError(f"{folder} has no table of results: run its experiment first.")
        own = data / folder.name
        own.mkdir(parents=True, exist_ok=True)
        for table in tables:
            shutil.copyfile(table, own / table.name)
        if (own / "pareto.csv").is_file():
            picture = own / "pareto.svg"
            shown = f"{data.name}/{own.name}/pareto.svg" if picture.is_file() else ""
            experiments.append(_experiment(pd.read_csv(own / "pareto.csv"), shown))
        if (own / "corrsteer.csv").is_file():
            runs.append(_run(folder.name, pd.read_csv(own / "corrsteer.csv")))
        if (own / "sparse_autoencoders.csv").is_file():
            saes = _saes(pd.read_csv(own / "sparse_autoencoders.csv"))
        spent = stage_costs(folder)
        write_text(own / "stages.csv", spent.to_csv(index=False))
        costs += [
            [folder.name, row.stage, row.jobs, f"{row.seconds:.0f}", _number(row.peak_mb, ".0f")]
            for row in spent.itertuples()
        ]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates"), encoding="utf-8"),
        autoescape=False,  # Markdown, whose cells `_cell` escapes
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("results.md.j2").render(
        data=data.as_posix(), experiments=experiments, runs=runs, saes=saes, costs=costs
    )
    write_text(page, text.rstrip("\n") + "\n")


def _experiment(table: pd.DataFrame, picture: str) -> dict[str, Any]:
    first, base = table.iloc[0], table[table["method"] == _BASE].iloc[0]
    chosen = table[is_true(table["selected"])].sort_values(_RATE, ascending=False)
    judges = [c.removeprefix(f"{_RATE}_") for c in table if c.startswith(f"{_RATE}_")]
    methods = [method for method in table["method"].unique() if method != _BASE]
    above = chosen[chosen["classifier_ci_low"] > base["classifier_rate_base"]]
    names = ", ".join(f"`{method}`" for method in above["method"]) or "none"
    finding = (
        f"Of {len(methods)} methods, {len(chosen)} have a selected strength. The interval of "
        f"{len(above)} of them lies above the rate without steering: {names}."
    )
    warnings = [text for cell in chosen["warnings"] for text in warnings_in(cell)]
    return {
        "name": first["experiment"],
        "model": first["model"],
        "layer": first["layer"],
        "n_prompts": first["n_prompts"],
        "base": _interval(
            base["classifier_rate_base"],
            base["classifier_base_ci_low"],
            base["classifier_base_ci_high"],
        ),
        "judges": judges,
        "finding": finding,
        "rows": [_pareto_row(row, judges) for _, row in chosen.iterrows()],
        "unselected": [f"`{m}`" for m in methods if m not in set(chosen["method"])],
        "warnings": [_cell(text) for text in dict.fromkeys(warnings)],
        "picture": picture,
    }


def _pareto_row(row: pd.Series, judges: list[str]) -> list[str]:
    return [
        f"`{row['method']}`",
        _cell(readable_strength(row["strength_name"], row["strength"])),
        _interval(row[_RATE], row["classifier_ci_low"], row["classifier_ci_high"]),
        *(_number(row[f"{_RATE}_{judge}"]) for judge in judges),
        _interval(row["kl_mean"], row["kl_ci_low"], row["kl_ci_high"]),
        _number(row["perplexity_steered"], ".1f"),
        _number(row["l0_outside_eval_mean"], ".1f"),
        "" if pd.isna(row["on_frontier"]) else ("yes" if row["on_frontier"] else "no"),
    ]


def _run(name: str, table: pd.DataFrame) -> dict[str, Any]:
    table = table[table["seed"].astype(str) == "all"]
    base = table[table["method"] == "unsteered"].iloc[0]
    refused = warnings_in(base["warnings"])
    better = table.loc[table["change_low"] > 0, "method"]
    finding = f"Without steering {_number(base['accuracy'])} of {base['n']} answers are right. "
    if refused:
        finding += f"This is no baseline, so the changes below say nothing: {'; '.join(refused)}."
    elif better.empty:
        finding += "No method has a change whose interval lies above 0."
    else:
        finding += "The change of these lies above 0: " + ", ".join(f"`{m}`" for m in better) + "."
    rows = [
        [
            f"`{row['method']}`",
            str(row["n"]),
            _interval(row["accuracy"], row["accuracy_low"], row["accuracy_high"]),
            _interval(row["change"], row["change_low"], row["change_high"]),
            _interval(row["ser"], row["ser_low"], row["ser_high"]),
            _number(row["mcnemar_p"], ".2g"),
            _cell(row["status"] if row["status"] == "ok" else f"{row['status']}: {row['reason']}"),
        ]
        for _, row in table.iterrows()
    ]
    return {"name": name, "finding": _cell(finding), "rows": rows}


def _saes(table: pd.DataFrame) -> dict[str, Any]:
    rows = [
        [
            _interval(row[column], row.get(f"{column}_low"), row.get(f"{column}_high"))
            for column in _SAE_COLUMNS
        ]
        for _, row in table.iterrows()
    ]
    return {"header": [column.replace("_", " ") for column in _SAE_COLUMNS], "rows": rows}


def _interval(value: Any, low: Any, high: Any) -> str:
    """Return ``0.50 [0.40, 0.60]``; an empty text for a missing value."""
    if pd.isna(value):
        return ""
    ends = [_number(low), _number(high)]
    open_ended = pd.isna(low) or pd.isna(high)
    return _number(value) if open_ended else f"{_number(value)} [{', '.join(ends)}]"


def _number(value: Any, form: str = ".3g") -> str:
    return "" if pd.isna(value) else format(float(value), form)


def _cell(text: Any) -> str:
    """Return a text that breaks no table."""
    return str(text).replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    write_page(sys.argv[1], sys.argv[2:])
