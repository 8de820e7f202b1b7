"""The script of a stage, run in this process on given files."""

import os
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

SCRIPTS = Path(__file__).resolve().parent.parent / "workflow_scripts"


class Files(SimpleNamespace):
    """Named files or parameters, as a script sees them."""

    def get(self, name, default=None):
        return getattr(self, name, default)

    def items(self):
        return vars(self).items()

    def __iter__(self):
        for value in vars(self).values():
            yield from value if isinstance(value, list) else [value]


def run_stage(script: str, folder: Path, *, input, output, params, **wildcards: Any) -> None:
    """Run ``script`` as Snakemake does; its log goes to ``folder``/logs."""
    (folder / "logs").mkdir(exist_ok=True)
    given = SimpleNamespace(
        log=[folder / "logs" / "log"],
        input=Files(**input),
        output=Files(**output),
        params=Files(**params),
        wildcards=SimpleNamespace(**wildcards),
    )
    kept = dict(os.environ)  # a stage sets threads and goes offline
    os.environ["STEERING_THREADS"] = str(torch.get_num_threads())
    try:
        runpy.run_path(str(SCRIPTS / script), init_globals={"snakemake": given})
    finally:
        os.environ.clear()
        os.environ.update(kept)
