"""The published tables as cells, and measured values beside them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from steering_core.config.methods import UNSTEERED
from steering_core.metrics.refusal import over_refusals
from steering_core.tables.columns import column_names, json_value, made_table

#: The model that the published numbers are of.
PUBLISHED_MODEL = "google/gemma-2-2b-it"

Metric = Literal["accuracy", "ser", "over_refusal", "accuracy_change"]

#: Table name and the file its published values are in.
FILES = {
    "accuracy": "corrsteer_gemma2b_accuracy.csv",
    "ser": "corrsteer_gemma2b_ser.csv",
    "pooling": "corrsteer_gemma2b_pooling_ablation.csv",
    "negative": "corrsteer_gemma2b_negative_ablation.csv",
    "transfer": "corrsteer_gemma2b_transfer.csv",
    "scale": "corrsteer_gemma2b_scale_sweep.csv",
}
_SCALE_COLUMNS: dict[str, tuple[str, Metric]] = {
    "harmbench_percent": ("harmbench_scale", "accuracy"),
    "xstest_over_refusal_percent": ("xstest_scaled", "over_refusal"),
    "mmlu_change_percent": ("mmlu_scaled", "accuracy_change"),
}


@dataclass(frozen=True)
class Cell:
    """One published number.

    Attributes:
        table: name of the table.
        row: its row there.
        column: its column there.
        published: percent, or a ratio in the table ``ser``; None if the paper does not give it.
        published_std: standard deviation over seeds, where published.
        task: what follows the model's name in the experiment's name.
        method: arm of that experiment.
        metric: what to measure there.
        negative, positive: published counts of changes, means over seeds.
    """

    table: str
    row: str
    column: str
    published: float | None
    published_std: float | None
    task: str
    method: str
    metric: Metric = "accuracy"
    negative: float | None = None
    positive: float | None = None

    @property
    def name(self) -> str:
        """A file name for the cell."""
        return f"{self.row}-{self.column}"


def cells(table: str, path: str | Path) -> list[Cell]:
    """Return the cells of a published table from its file."""
    frame = pd.read_csv(path)
    return list(_READERS[table](frame))


def _accuracy(frame: pd.DataFrame) -> Iterator[Cell]:
    for row in frame.itertuples():
        method = _method(row.method)
        yield Cell(
            "accuracy",
            row.method,
            row.task,
            row.accuracy_percent,
            row.std_percent,
            row.task,
            method,
        )


def _ser(frame: pd.DataFrame) -> Iterator[Cell]:
    for row in frame.itertuples():
        counts = (row.negative_changes, row.positive_changes)
        known = (None if pd.isna(count) else float(count) for count in counts)
        yield Cell("ser", row.method, row.task, row.ser, None, row.task, row.method, "ser", *known)


def _ablation(table: str, frame: pd.DataFrame) -> Iterator[Cell]:
    for task, values in frame.set_index("task").iterrows():
        for column, value in values.items():
            yield Cell(table, task, column, value, None, f"{task}_{table}", _method(str(column)))


def _pooling(frame: pd.DataFrame) -> Iterator[Cell]:
    return _ablation("pooling", frame)


def _negative(frame: pd.DataFrame) -> Iterator[Cell]:
    return _ablation("negative", frame)


def _transfer(frame: pd.DataFrame) -> Iterator[Cell]:
    for source, values in frame.set_index("features_from").iterrows():
        method = UNSTEERED if source == "none" else f"from_{source}"
        for task, value in values.items():
            yield Cell("transfer", source, task, value, None, f"{task}_transfer", method)


def _scale(frame: pd.DataFrame) -> Iterator[Cell]:
    for row in frame.to_dict("records"):
        scale = f"scale_{row.pop('coefficient_scale'):g}"
        for column, value in row.items():
            task, metric = _SCALE_COLUMNS[column]
            known = None if pd.isna(value) else value
            yield Cell("scale", scale, column, known, None, task, scale, metric)


def _method(published: str) -> str:
    return UNSTEERED if published == "no_steering" else published


_READERS = {
    "accuracy": _accuracy,
    "ser": _ser,
    "pooling": _pooling,
    "negative": _negative,
    "transfer": _transfer,
    "scale": _scale,
}


#: Its columns are described in ``tables/columns.yaml``.
_TABLE = "corrsteer_{table}"


def measure(
    cell: Cell,
    experiment: str,
    runs: Mapping[int, Mapping[str, pd.DataFrame]] | None,
    *,
    n_resamples: int,
    model: str = PUBLISHED_MODEL,
) -> dict[str, Any]:
    """Return one row of a table of measured cells.

    ``measured`` and the counts are means over seeds, as published. A side-effect ratio over several
    seeds has no interval: that of ``corrsteer.csv`` is of the changes of all seeds together, which
    is another number than the mean of the seeds' ratios.

    Args:
        cell: the published number.
        experiment: name of the experiment that reproduces it.
        runs: for each seed, the answers of the cell's method and the unsteered ones; None if the
            configuration has no such experiment or method.
        n_resamples: of the bootstrap.
        model: hub id of the measured model; for another model than the published one,
            ``difference`` stays empty.
    """
    known = {k: v for k, v in asdict(cell).items() if k not in ("task", "negative", "positive")}
    row = {**dict.fromkeys(column_names(_TABLE)), **known, "experiment": experiment}
    row |= {"published_negative": cell.negative, "published_positive": cell.positive}
    if runs is None:
        reason = f"the configuration has no method {cell.method} in {experiment}"
        return {**row, "status": "undefined", "reason": reason}
    if cell.metric == "over_refusal":
        runs = {s: {m: over_refusals(t) for m, t in run.items()} for s, run in runs.items()}
    # Import it here: it loads SciPy's statistics, and the rules need the cells alone.
    from steering_core.corrsteer.report import result_table

    table = result_table(experiment, runs, n_resamples=n_resamples)
    mine = table[table["method"] == cell.method]
    found, each = mine[mine["seed"] == "all"].iloc[0], mine[mine["seed"] != "all"]
    row |= {name: json_value(found[name]) for name in ("n", "n_seeds", "seeds", "status")}
    row["reason"] = "; ".join(filter(None, map(json_value, found[["reason", "warnings"]])))
    if found["status"] != "ok":
        return row
    if cell.metric != "over_refusal":  # where a negative change is a good one
        row |= {name: json_value(each[name].mean()) for name in ("negative", "positive")}
    source, unit = {"ser": ("ser", 1.0), "accuracy_change": ("change", 100.0)}.get(
        cell.metric, ("accuracy", 100.0)
    )
    ratios = each["ser"].astype(float).dropna()  # a seed in which nothing changed has none
    of_seeds = {"ser": ratios.mean(), "ser_std": ratios.std(ddof=1)}
    if len(each) > 1:
        of_seeds |= {"ser_low": None, "ser_high": None}
    for name in ("", "_low", "_high", "_std"):
        key = f"{source}{name}"
        value = json_value(of_seeds[key] if key in of_seeds else found[key])
        row[f"measured{name}"] = None if value is None else unit * value
    if model != PUBLISHED_MODEL:
        row["reason"] = "; ".join(filter(None, (row["reason"], f"published for {PUBLISHED_MODEL}")))
    elif cell.published is not None and row["measured"] is not None:
        row["difference"] = row["measured"] - cell.published
    return row


def methods_needed(cell: Cell) -> list[str]:
    """Return the methods whose answers a cell is measured from."""
    return list(dict.fromkeys([UNSTEERED, cell.method]))


def table_of(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the measured cells of a table as rows (:func:`measure`)."""
    return made_table(rows, _TABLE)
