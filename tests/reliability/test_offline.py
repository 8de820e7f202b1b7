"""One stage has a network. All others run on nodes without one, and leak no token."""

import shutil

import pytest
from faulty_hub import faulty_hub
from gpt2_run import FETCHED, RESULTS, TOKEN, fetched_again, on_a_node, snakemake
from gpt2_run import finished as finished_run
from ledger import injecting

from steering_core.config.model import Model, SAESource
from steering_core.errors import ModelError
from steering_core.models.sae_source import pinned_sae
from steering_core.storage.files import read_json


@pytest.fixture
def finished(hub):
    return finished_run()


def test_fetching_again_needs_no_network(hub):
    """A warm HF_HOME is enough: revisions are those that the cache knows, and the log says so."""
    run = fetched_again()
    for name in FETCHED:
        again, first = run.directory / RESULTS / name, run.first / name
        assert again.read_bytes() == first.read_bytes(), name
    assert run.log.count("offline: ") == 4  # model, SAEs, judge, dataset


def test_later_stages_need_no_network_and_tokens_are_nowhere(finished):
    assert (finished.directory / RESULTS / "provenance.json").is_file()
    assert TOKEN not in finished.printed
    for path in [*finished.directory.rglob("*"), *finished.home.rglob("*")]:
        if path.is_file() and not path.is_symlink():
            assert TOKEN.encode() not in path.read_bytes(), path


def test_a_file_that_is_missing_is_named_at_once(hub, finished, tmp_path):
    """The weights are gone from the cache, as where HF_HOME is not shared with the node."""
    directory, home = finished.directory, finished.home
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
    with (
        faulty_hub(hub, "503", "", times=None) as proxy,
        injecting("a file is missing offline", kept=copy / RESULTS),
    ):
        done = snakemake(
            copy, f"{RESULTS}/activations/part-0.parquet", env=on_a_node(other, proxy.address)
        )
        assert done.returncode != 0
        assert proxy.counts["faults"] == 0  # not asked, so not waited for
        log = (copy / RESULTS / "logs/cache_activations-0.log").read_text()
        assert "gpt2" in log and "fetch rule" in log and "HF_HOME" in log
        assert "Traceback" not in log and "Trying again" not in log


def test_an_sae_of_another_commit_is_refused(finished, tmp_path, monkeypatch):
    cache = str(finished.home / "hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", cache)
    resources = read_json(finished.directory / RESULTS / "resources.json")
    sae = SAESource(release="gpt2-small-res-jb", id="blocks.{layer}.hook_resid_pre")
    model = Model(id="gpt2", sae=sae)
    assert pinned_sae(model, resources) == sae
    with pytest.raises(ModelError, match="holds commit"):
        pinned_sae(model, {**resources, "sae_revision": "0" * 40})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="not in the local cache"):
        pinned_sae(model, resources)
