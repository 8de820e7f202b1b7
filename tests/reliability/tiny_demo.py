"""A demo run small enough to be broken many times, and the ways to start it and compare it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import forked_jobs
import yaml
from shared_worlds import made_once

from steering_core.demo.grammar import write_praise_task
from steering_core.storage.integrity import content_digest

ROOT = Path(__file__).resolve().parents[2]

SIZES = [
    "rows_per_class=60",
    "n_prompts=4",
    "n_validation_prompts=2",
    "new_tokens=4",
    "layers=[1]",
    "layer=1",
    "methods=[no_steering,qp_optimal]",
    "units=absolute",
    "draws=1",
    "qp_tau=[2.0]",
    "qp_lambda=[1.0]",
    "variants=[path,box,shared]",
    "variant_rows=4",
    "bootstrap_resamples=50",
    "elsewhere=[]",
    "shards=2",
    "demo_world={n_layers: 2, training_steps: 40, documents: 1500, labelled: 300}",
    "models={demo: {sae: {train: {layers: [1], tokens: 8000}}}}",
]
#: CorrSteer with one arm on the same model: it selects, plans, validates and answers.
_LEFT_OUT = "random_feature random_all corrsteer_s corrsteer_a spare_mi dsg_fisher caa".split()
CORRSTEER = {
    "models": {
        "demo": {
            "paired": False,
            "settings": {
                "arms": dict.fromkeys(_LEFT_OUT),
                "sparse_methods": {"methods": []},
                "min_outcomes": 1,
            },
        }
    },
    "tasks": {"praise": {"task": "praise", "dataset": "praise.parquet"}},
    "experiments": {"tiny_praise": {"model": "demo", "task": "praise"}},
    "tables_model": "demo",
}
#: Declared programs; a guarded one, Fisher information and gates run in the small demo.
PROGRAMS = ("mean_difference_qp", "mean_difference_dense")
#: Times of running, not results.
_NOT_RESULTS = ("logs", "benchmarks")
#: Files below the results that the rules declare temporary.
_TEMPORARY = (
    "models/*/activations/part-*.parquet",
    "*/corrsteer/seed-*/selection-*",
    "*/corrsteer/seed-*/snapshots-*.csv",
)
#: products.json holds the digests of all products, so it needs every one of them.
TARGETS = ("results/demo/products.json", "results/tiny_praise/provenance.json")
#: What to leave out of a copy so that all stages but those of the trained world run again.
PIPELINE = (
    *(
        "resources.json",
        "dataset.parquet",
        "examples.*",
        "prompts*",
        "activations",
        "features.parquet",
        "decoder.*",
    ),
    *("layer.json", "probe*", "evaluation_probe*", "correlation*", "directions*", "path*"),
    *("solutions*", "generations*", "divergence", "judged*", "pareto*", "sweep*", "features.*"),
    *("frontier*", "variant*", "provenance.json", "products.json", "/tiny_praise"),
)


def environment(**more: str) -> dict[str, str]:
    """The environment of a node without a network.

    Git finds no checkout there: else provenance.json has the commit, and a commit that is made
    while the tests run would tell two runs apart.
    """
    return {**forked_jobs.offline_environment(), "GIT_DIR": os.devnull, **more}


def arguments_of(
    directory: Path, *arguments: str, cores: int = 2, sizes: list[str] = SIZES
) -> list[str]:
    """What Snakemake is given for a run in ``directory``."""
    return [
        *("--snakefile", str(ROOT / "Snakefile"), "--cores", str(cores)),
        *("--directory", str(directory), *arguments, "--config", *sizes),
    ]


def command(directory: Path, *arguments: str, **others) -> list[str]:
    """The command of a run, on the command line of a user."""
    return [sys.executable, "-m", "snakemake", *arguments_of(directory, *arguments, **others)]


def run(
    directory: Path,
    *arguments: str,
    cores: int = 2,
    sizes: list[str] = SIZES,
    forked: bool = False,
) -> subprocess.CompletedProcess:
    """Run the workflow to its end and return the finished process.

    With ``forked`` its jobs are forks of one process; a plan has no jobs, so it always is.
    """
    if forked or "--dry-run" in arguments:
        given = arguments_of(directory, *arguments, cores=cores, sizes=sizes)
        return forked_jobs.run(given, env=environment())
    return subprocess.run(
        command(directory, *arguments, cores=cores, sizes=sizes),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=2000,
        check=False,
    )


def new_directory(where: Path) -> Path:
    """A working directory as a user has it."""
    where.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    config["corrsteer"] = CORRSTEER
    del config["experiments"]["smollm2_elsewhere"]  # it asks tasks that are not here
    settings = config["experiments"]["demo"]["settings"]
    settings["programs"] = {
        name: {**settings["programs"][name], "tau": [1.0, 2.0]} for name in PROGRAMS
    }
    settings["gated"] = {}
    (where / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    shutil.copytree(ROOT / "resources", where / "resources")
    write_praise_task(where / "praise.parquet", 60, seed=0)
    return where


def copy_of(finished: Path, where: Path, without: tuple[str, ...] = ()) -> Path:
    """A copy of a working directory, times and Snakemake's records included.

    ``without`` are patterns of results of the demo (or, with a slash before, of any results) to
    leave out; what lies downstream of them is made again.
    """
    shutil.copytree(finished, where, symlinks=True)
    for pattern in without:
        root = where / "results" / ("" if pattern.startswith("/") else "demo")
        for path in root.glob(pattern.lstrip("/")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return where


@made_once
def finished_demo(parent: Path) -> Path:
    """An uninterrupted run, made once for all tests."""
    directory = new_directory(parent / "demo")
    done = run(directory, *TARGETS, forked=True)
    assert done.returncode == 0, done.stderr[-6000:]
    return directory


def digests(directory: Path) -> dict[str, str]:
    """Digest of every result file, by its name, without logs and timings."""
    results = directory / "results"
    return {
        str(path.relative_to(results)): content_digest(path)
        for path in sorted(results.rglob("*"))
        if path.is_file() and not set(_NOT_RESULTS) & set(path.relative_to(results).parts)
    }


def damaged(directory: Path) -> list[str]:
    """Names of result files that differ from those of the uninterrupted run, or are missing.

    Snakemake removes a temporary file right after the last job that reads it; it stays where the
    run is killed in between. So one that is left is no damage.
    """
    expected, found = digests(finished_demo()), digests(directory)
    results = directory / "results"
    for path in (path for pattern in _TEMPORARY for path in results.glob(pattern)):
        found.pop(str(path.relative_to(results)))
    return sorted(name for name in expected | found if expected.get(name) != found.get(name))
