"""What an experiment found and what its stages cost, for the terminal.

``python -m steering_core.tables.show results/NAME/pareto.csv`` prints a summary of the table and
the paths of the pictures. Given ``results/NAME/benchmarks``, it adds up what Snakemake measured of
the stages while they ran.
"""

import re
import sys
from pathlib import Path

import pandas as pd

from steering_core.config.methods import BASELINE
from steering_core.errors import StorageError
from steering_core.storage.files import read_json
from steering_core.tables.caveats import warnings_in
from steering_core.tables.verdict import frontier_sentences, spoken
from steering_core.tables.words import is_true, strength_label

_SHOWN = {
    "method": "method",
    "point": "strength",
    "l0_outside_eval_mean": "L0",
    "residual_norm_outside_eval_mean": "norm",
    "eval_flip_rate": "eval flips",
    "kl_mean": "KL/token",
    "perplexity_steered": "perplexity",
    "classifier_rate_steered": "target rate",
    "texts": "texts",
    "n_empty": "wordless",
    "on_frontier": "frontier",
    "frontier_probability": "P(frontier)",
}
_POPULATIONS = (
    "L0, norm and eval flips: test rows outside the target class by the evaluation probe "
    "(l0_outside_eval_mean, residual_norm_outside_eval_mean, eval_flip_rate); the rest: prompts; "
    "texts: prompts that were steered, of all (n_texts, n_prompts); wordless: of them, texts "
    "without a word (n_empty)"
)
#: The folder of what Snakemake measured, beside the table.
_FOLDER = "benchmarks"
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


# ------------------------------------------------------------------------- what was found
def summary(path: str | Path) -> str:
    """Return the rows to quote, warnings, the verdict in words, and files to open.

    The verdict is that of ``verdict.json`` beside the table. Without this file it says where the
    programs stand towards the frontier.

    The rows are the selected strengths, with the highest target rate first. Without validation
    prompts nothing is selected; all rows are then shown in the order of the table. They are not
    sorted by rate, because the best rate of several strengths is biased upwards. Rows that lack the
    text of a prompt always come last, because their rates are over fewer prompts.

    Raises:
        FileNotFoundError: if there is no table at ``path``.
    """
    table = pd.read_csv(path)
    base = table.loc[table["method"] == BASELINE, "classifier_rate_base"]
    selected = table[is_true(table["selected"])]
    lines = []
    if selected.empty:
        quoted = table
        why = (
            "there are no validation prompts (n_validation_prompts)"
            if table["selected"].isna().all()
            else "none keeps to selection_kl and steers every validation prompt"
        )
        lines.append(
            f"{path}: {len(table)} rows; no strength was selected: {why}. All rows, in the order "
            "of the table: the best of several strengths is biased upwards, so none is put first"
        )
    else:
        quoted = selected.sort_values(
            ["classifier_rate_steered", "kl_mean"], ascending=[False, True], kind="stable"
        )
        lines.append(
            f"{path}: {len(table)} rows; each method at the strength selected on validation prompts"
        )
    lacking = (quoted["n_texts"] < quoted["n_prompts"]) | (quoted["unsolved_positions"] > 0)
    quoted = pd.concat([quoted[~lacking], quoted[lacking]]).copy()  # in one piece
    shown = quoted.assign(
        point=quoted.apply(strength_label, axis=1),
        texts=[
            f"{n:g}/{of:g}" for n, of in zip(quoted["n_texts"], quoted["n_prompts"], strict=True)
        ],
    )
    shown = shown[list(_SHOWN)].rename(columns=_SHOWN)
    lines.append(shown.to_string(index=False, na_rep="", float_format=lambda value: f"{value:.3g}"))
    lines.append(_POPULATIONS)
    if lacking.any():
        lines.append(
            f"incomplete: the last {_rows(int(lacking.sum()))} could not steer every prompt and "
            "position (see feasible_fraction_prompts and unsolved_positions)"
        )
    without = [name for name in table["method"].unique() if name not in set(selected["method"])]
    if len(selected) and without:
        lines.append(
            f"no strength selected: {', '.join(without)} (on validation prompts each one costs "
            "more KL than selection_kl, or could not steer every prompt and position)"
        )
    if len(base):
        lines.append(f"target rate without steering: {base.iloc[0]:.3g}")
    verdict = Path(path).with_name("verdict.json")
    lines += _warnings(table)
    lines += spoken(read_json(verdict)) if verdict.exists() else frontier_sentences(table)
    pictures = sorted(
        file.as_posix() for file in Path(path).parent.iterdir() if file.suffix in {".svg", ".html"}
    )
    lines.append("look at: " + "  ".join(pictures))
    return "\n".join(lines)


def _warnings(table: pd.DataFrame) -> list[str]:
    """Return a line for each warning, with the rows that have it.

    Warnings that differ only in their numbers are merged, with the range of each number.
    """
    found: dict[str, dict[int, str]] = {}
    for position, cell in enumerate(table["warnings"]):
        for warning in warnings_in(cell):
            found.setdefault(_NUMBER.sub("#", warning), {})[position] = warning
    return [
        f"warning ({_rows_named(table.iloc[list(said)], table)}): {_merged(list(said.values()))}"
        for said in found.values()
    ]


def _merged(warnings: list[str]) -> str:
    """Merge texts that differ only in their numbers; a number becomes a range like ``2 to 5``."""
    spans = []
    for numbers in zip(*(_NUMBER.findall(warning) for warning in warnings), strict=True):
        low, high = min(numbers, key=float), max(numbers, key=float)
        spans.append(low if low == high else f"{low} to {high}")
    between = _NUMBER.split(warnings[0])
    return "".join(text + span for text, span in zip(between, [*spans, ""], strict=True))


def _rows_named(rows: pd.DataFrame, table: pd.DataFrame) -> str:
    """Count ``rows`` of ``table`` and name them; a method without strengths means all of them."""
    if len(rows) == len(table):
        return "every row"
    counts = table["method"].value_counts()
    named = []
    for method, own in rows.groupby("method", sort=False):
        all_of_it = 1 < counts[method] == len(own)
        points = [] if all_of_it else [strength_label(row) for _, row in own.iterrows()]
        named.append(" ".join([str(method), ", ".join(points)]).strip())
    return f"{_rows(len(rows))}: {'; '.join(named)}"


def _rows(count: int) -> str:
    return f"{count} row{'s' if count > 1 else ''}"


# ----------------------------------------------------------------------- what stages cost
def stage_costs(folder: str | Path) -> pd.DataFrame:
    """Return a row per stage, the most expensive first.

    Columns: ``stage``; ``jobs``, the number of its jobs; ``seconds`` and ``cpu_seconds``, summed
    over the jobs; ``peak_mb``, the largest resident memory of a job. A job that ended before
    Snakemake could measure it has only seconds.

    Args:
        folder: results of the experiment; the files are in its ``benchmarks`` folder.

    Raises:
        StorageError: if there are no such files, or one has another format than Snakemake's.

    """
    files = sorted(Path(folder, _FOLDER).glob("*.tsv"))
    if not files:
        raise StorageError(f"{folder}/{_FOLDER} holds no times yet: run the experiment first.")
    frames = []
    for file in files:
        try:
            frame = pd.read_csv(file, sep="\t")[["s", "max_rss", "cpu_time"]]
            frame = frame.apply(pd.to_numeric)
        except (ValueError, KeyError) as error:
            raise StorageError(f"{file} is no benchmark file: delete it. ({error})") from error
        # The file is named after the rule; a wildcard follows after a dash.
        frames.append(frame.assign(stage=file.stem.split("-")[0]))
    grouped = pd.concat(frames).groupby("stage")
    costs = grouped.agg(
        jobs=("s", "size"),
        seconds=("s", "sum"),
        cpu_seconds=("cpu_time", "sum"),
        peak_mb=("max_rss", "max"),
    )
    costs["cpu_seconds"] = costs["cpu_seconds"].where(grouped["cpu_time"].count() > 0)
    return costs.sort_values("seconds", ascending=False).reset_index()


# ---------------------------------------------------------------------------- the command
def printed(path: str | Path) -> str:
    """Return what the command prints of a Pareto table, or of the folder ``benchmarks``.

    Raises:
        FileNotFoundError: as :func:`summary`.
        StorageError: as :func:`stage_costs`.
    """
    if Path(path).name != _FOLDER:
        return summary(path)
    costs = stage_costs(Path(path).parent)
    return costs.to_string(index=False, na_rep="", float_format="%.1f")


if __name__ == "__main__":
    print(printed(sys.argv[1]))
