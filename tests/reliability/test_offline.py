"""One stage has a network. All others run on nodes without one, and leak no token."""

import shutil
import subprocess
from pathlib import Path

import pytest
from faulty_hub import faulty_hub
from ledger import record
from tiny_demo import ROOT, command, environment, new_directory

TOKEN = "hf_" + "Secret0Token1Never2Logged3" * 2
SMALL = ["rows_per_class=40", "layers=[7]", "layer=7", "n_prompts=4", "new_tokens=4"]
SMALL += ["n_validation_prompts=2", "methods=[no_steering,qp_optimal]", "qp_tau=[2.0]"]
SMALL += ["variants=[path]", "variant_rows=4", "bootstrap_resamples=50"]
RESULTS = "results/gpt2_sst2"
FETCHED = ("resources.json", "dataset.parquet", "sweep_resources.json")
#: Both fetch rules.
TARGETS = [f"{RESULTS}/resources.json", f"{RESULTS}/sweep_resources.json"]


def snakemake(directory: Path, *targets: str, env: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(directory, *targets, sizes=SMALL),
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=850,
        check=False,
    )


def on_a_node(home: Path, address: str) -> dict[str, str]:
    """The environment of a job whose user has a token and did not set HF_HUB_OFFLINE.

    Only the stage itself keeps it from asking the hub at ``address``.
    """
    env = environment(HF_HOME=str(home), HF_TOKEN=TOKEN, HF_ENDPOINT=address)
    del env["HF_HUB_OFFLINE"]
    return env


@pytest.fixture(scope="module")
def fetched(hub, tmp_path_factory):
    """A directory after the fetch stages, its HF_HOME, and everything that was printed."""
    directory = new_directory(tmp_path_factory.mktemp("offline") / "run")
    home = directory.parent / "hf"
    done = snakemake(directory, *TARGETS, env=on_a_node(home, hub))
    assert done.returncode == 0, done.stderr[-4000:]
    return directory, home, done.stdout + done.stderr


@pytest.fixture(scope="module")
def fetched_again(fetched):
    """The same after fetching from the cache alone; what was fetched first is kept aside."""
    directory, home, printed = fetched
    first = directory.parent / "first"
    first.mkdir()
    for name in FETCHED:
        (directory / RESULTS / name).rename(first / name)
    done = snakemake(
        directory, *TARGETS, env={**on_a_node(home, "http://127.0.0.1:9"), "HF_HUB_OFFLINE": "1"}
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return directory, home, printed + done.stdout + done.stderr


@pytest.fixture(scope="module")
def finished(hub, fetched_again):
    """The same after all stages; also how often they asked a hub that refuses everything."""
    directory, home, printed = fetched_again
    with faulty_hub(hub, "503", "", times=None) as proxy:
        done = snakemake(directory, f"{RESULTS}/pareto.csv", env=on_a_node(home, proxy.address))
    assert done.returncode == 0, done.stderr[-4000:]
    return directory, home, printed + done.stdout + done.stderr, proxy.counts["faults"]


def test_fetching_again_needs_no_network(fetched_again):
    """A warm HF_HOME is enough: revisions are those that the cache knows, and the log says so."""
    directory, *_ = fetched_again
    for name in FETCHED:
        again, first = directory / RESULTS / name, directory.parent / "first" / name
        assert again.read_bytes() == first.read_bytes(), name
    log = (directory / RESULTS / "logs" / "fetch.log").read_text()
    assert log.count("offline: ") == 4  # model, SAEs, judge, dataset
    record("fetching again without a network", injected=1, survived=1, bytes_lost=0)


def test_later_stages_need_no_network(finished):
    directory, *_, asked = finished
    assert (directory / RESULTS / "provenance.json").is_file()
    assert asked == 0
    record("node without a network", injected=1, survived=1, bytes_lost=0)


def test_tokens_are_nowhere(finished):
    directory, home, printed, _ = finished
    assert (directory / RESULTS / "provenance.json").is_file()
    assert TOKEN not in printed
    for path in [*directory.rglob("*"), *home.rglob("*")]:
        if path.is_file() and not path.is_symlink():
            assert TOKEN.encode() not in path.read_bytes(), path


def test_a_file_that_is_missing_is_named_at_once(hub, finished, tmp_path):
    """The weights are gone from the cache, as where HF_HOME is not shared with the node."""
    directory, home, *_ = finished
    other = tmp_path / "hf"
    shutil.copytree(home, other, symlinks=True)
    gone = [path for path in other.rglob("model.safetensors") if "gpt2" in str(path)]
    assert gone
    for path in gone:
        path.unlink()
    copy = tmp_path / "run"
    shutil.copytree(directory, copy, symlinks=True)
    shutil.rmtree(copy / RESULTS / "activations")
    (copy / RESULTS / "features.parquet").unlink()
    with faulty_hub(hub, "503", "", times=None) as proxy:
        done = snakemake(
            copy, f"{RESULTS}/activations/part-0.parquet", env=on_a_node(other, proxy.address)
        )
    assert done.returncode != 0
    assert proxy.counts["faults"] == 0  # not asked, so not waited for
    log = (copy / RESULTS / "logs/cache_activations-0.log").read_text()
    assert "gpt2" in log and "fetch rule" in log and "HF_HOME" in log
    assert "Traceback" not in log and "Trying again" not in log
    record("a file is missing offline", injected=1, survived=1, bytes_lost=0)


def test_an_sae_of_another_commit_is_refused(finished, tmp_path, monkeypatch):
    from steering_core.config.model import Model, SAESource
    from steering_core.errors import ModelError
    from steering_core.models.pins import pinned_sae
    from steering_core.storage.json import read_json

    directory, home, *_ = finished
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
    resources = read_json(directory / RESULTS / "resources.json")
    sae = SAESource(release="gpt2-small-res-jb", id="blocks.{layer}.hook_resid_pre")
    model = Model(id="gpt2", sae=sae)
    assert pinned_sae(model, resources) == sae
    with pytest.raises(ModelError, match="holds commit"):
        pinned_sae(model, {**resources, "sae_revision": "0" * 40})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="not in the local cache"):
        pinned_sae(model, resources)
