"""The rules that train SAEs: what one more layer makes again, and what may be asked for."""

import shutil
import subprocess
from pathlib import Path

import forked_jobs
import numpy as np
import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path("results/models/tiny")
TABLE = FOLDER / "sparse_autoencoders.csv"
TRAINING = {
    **{"d_sae": 48, "k": 4, "tokens": 600, "samples": 2000, "batch_size": 64},
    **{"max_tokens": 16, "texts": [{"dataset": "texts.parquet", "text": "text"}]},
}


def run(directory: Path, layers: list[int], target: Path = TABLE) -> subprocess.CompletedProcess:
    model = {"id": "model", "sae": {"train": {**TRAINING, "layers": layers}}}
    (directory / "tiny.yaml").write_text(yaml.safe_dump({"models": {"tiny": model}}))
    return forked_jobs.run(
        [
            *("--cores", "2", "--directory", str(directory), str(target)),
            *("--configfile", str(directory / "tiny.yaml")),
        ],
        env=forked_jobs.offline_environment(),
    )


def stamps(directory: Path, layer: int) -> dict[str, tuple[int, int]]:
    """When the files of a layer were made, and which they are on disk."""
    files = [*(directory / FOLDER / "sparse_autoencoders").glob(f"layer_{layer}*")]
    # Snakemake marks a directory with a hidden file.
    files += [inner for file in files if file.is_dir() for inner in file.glob("[!.]*")]
    return {str(file): (file.stat().st_mtime_ns, file.stat().st_ino) for file in files}


@pytest.fixture(scope="module")
def trained(tiny_model, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("training")
    shutil.copy(ROOT / "config.yaml", directory)
    shutil.copytree(tiny_model, directory / "model")
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{i}" for i in rng.integers(60, size=12)) for _ in range(120)]
    pd.DataFrame({"text": texts}).to_parquet(directory / "texts.parquet")
    done = run(directory, [1])
    assert done.returncode == 0, done.stderr[-3000:]
    return directory


def test_one_more_layer_does_not_train_the_others_again(trained):
    first = stamps(trained, 1)
    assert len(first) == 4  # the directory, its two files, and what the SAE is worth
    done = run(trained, [1, 0])
    assert done.returncode == 0, done.stderr[-3000:]
    assert stamps(trained, 1) == first
    assert pd.read_csv(trained / TABLE)["layer"].tolist() == [0, 1]
    assert not (trained / FOLDER / "activations/part-0.parquet").exists()
    again = run(trained, [1, 0])
    assert "Nothing to be done" in again.stdout + again.stderr


def test_other_texts_train_every_layer_again(trained):
    texts = pd.read_parquet(trained / "texts.parquet")
    layers = pd.read_csv(trained / TABLE)["layer"].tolist()
    before = stamps(trained, 1)
    texts.iloc[::-1].to_parquet(trained / "texts.parquet")
    done = run(trained, layers)
    assert done.returncode == 0, done.stderr[-3000:]
    after = stamps(trained, 1)
    assert after.keys() == before.keys() and not set(after.values()) & set(before.values())


def test_a_layer_that_the_demo_will_not_have_is_refused_before_its_model_is_trained(trained):
    given = ["--cores", "1", "--directory", str(trained), "--dry-run", "results/demo/pareto.csv"]
    given += ["--config", "demo_world={n_layers: 3}"]
    done = forked_jobs.run(given, env=forked_jobs.offline_environment())
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "models.demo.sae.train.layers: 3 is out of range" in said


def test_one_layer_alone_is_refused_with_what_to_do(trained):
    alone = FOLDER / "sparse_autoencoders/layer_2"
    done = run(trained, [1, 2], alone)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and f"{alone} is not made alone: ask for {TABLE}" in said
