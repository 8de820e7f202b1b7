"""What each stage of an experiment cost: ``python -m`` this module, with ``results/EXPERIMENT``.

Snakemake measured it while the stages ran (``benchmark:``); this adds it up.
"""

import sys
from pathlib import Path

import pandas as pd

from steering_core.errors import StorageError


def stage_costs(folder: str | Path) -> pd.DataFrame:
    """Return a row per stage, the costliest first.

    Columns: ``stage``; ``jobs``, how many ran it; ``seconds`` and ``cpu_seconds``, over all of
    them; ``peak_mb``, the largest resident memory of any. A job that ended before it could be
    looked at has seconds alone.

    Args:
        folder: of the experiment; the files are in its ``benchmarks`` folder.

    Raises:
        StorageError: if there are none, or one is not as Snakemake writes them.

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
        # A wildcard follows the name of the rule after a dash.
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
