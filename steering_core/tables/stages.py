"""The cost of each stage of an experiment: ``python -m steering_core.tables.stages results/NAME``.

Snakemake measures the stages while they run (``benchmark:``); this module adds the values up.
"""

import sys
from pathlib import Path

import pandas as pd

from steering_core.errors import StorageError


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
    files = sorted(Path(folder, "benchmarks").glob("*.tsv"))
    if not files:
        raise StorageError(f"{folder}/benchmarks holds no times yet: run the experiment first.")
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


if __name__ == "__main__":
    print(stage_costs(sys.argv[1]).to_string(index=False, na_rep="", float_format="%.1f"))
