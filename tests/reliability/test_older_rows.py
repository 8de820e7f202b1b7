"""Where the hub fails, rows prepared at an older commit never stand in for those asked for."""

import importlib.util
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from faulty_hub import faulty_hub
from huggingface_hub import HfApi
from ledger import injecting

ROOT = Path(__file__).resolve().parents[2]
HUB = ROOT.parent / "shared" / "hub"

FETCH = """
    import sys
    from steering_core.config.task import Task
    from steering_core.data.labelled import fetch_labelled
    from steering_core.errors import SteeringError
    from steering_core.hub.errors import retry_while_unavailable

    subset = sys.argv[1] if len(sys.argv) > 1 else None
    task = Task(dataset="org/rows", subset=subset, text="text", label="label", concept="c")
    try:
        table, source = retry_while_unavailable(lambda: fetch_labelled(task), (0.2, 0.5))
    except SteeringError as error:
        print(type(error).__name__, error)
        sys.exit(3)
    print(source["revision"], *table["text"])
"""
CARD = """---
configs:
- config_name: first
  data_files: first.csv
  default: true
- config_name: second
  data_files: second.csv
---
"""


def fetch(
    address: str, home: Path, *subset: str, **environment: str
) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FETCH), *subset],
        env={
            **os.environ,
            **{"HF_ENDPOINT": address, "HF_HOME": str(home), "PYTHONPATH": str(ROOT)},
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.fixture(scope="module")
def prepared(hub, tmp_path_factory):
    """A hub whose dataset got a new commit after it was prepared: (address, HF_HOME, commits)."""
    parent = tmp_path_factory.mktemp("moved")
    root = parent / "hub"
    folder = root / "datasets" / "org" / "rows"
    folder.mkdir(parents=True)
    (root / "models").mkdir()
    (folder / "README.md").write_text(CARD)
    (folder / "second.csv").write_text("text,label\nc,0\nd,1\n")
    spec = importlib.util.spec_from_file_location("moved_hub_serve", HUB / "serve.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = module.serve(root, 0)
    address, commits = f"http://127.0.0.1:{server.server_address[1]}", []
    for word in ("old", "new"):
        (folder / "first.csv").write_text(f"text,label\n{word},0\n{word},1\n")
        commits.append(HfApi(endpoint=address).dataset_info("org/rows").sha)
        if word == "old":
            done = fetch(address, parent / "hf")
            assert done.stdout.split() == [commits[0], "old", "old"], done.stderr[-3000:]
    yield address, parent / "hf", commits
    server.shutdown()


@pytest.fixture
def moved(prepared, tmp_path):
    """The same with an HF_HOME of its own."""
    address, home, commits = prepared
    shutil.copytree(home, tmp_path / "hf", symlinks=True)
    return address, tmp_path / "hf", commits


@pytest.mark.parametrize("subset", [(), ("second",)], ids=["same subset", "another subset"])
def test_a_passing_fault_does_not_bring_back_old_rows(moved, subset):
    address, home, (_, new) = moved
    with faulty_hub(address, "503", f"/revision/{new}", times=1) as proxy:
        done = fetch(proxy.address, home, *subset)
        assert proxy.counts["faults"] == 1
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout.split() == [new, *(("c", "d") if subset else ("new", "new"))]


@pytest.mark.parametrize("subset", [(), ("second",)], ids=["same subset", "another subset"])
def test_a_lasting_fault_is_an_error_and_no_old_rows(moved, subset):
    address, home, (_, new) = moved
    kept = home / "datasets"
    with (
        injecting("an older dataset in the cache, hub away", " ".join(subset), kept=kept),
        faulty_hub(address, "503", f"/revision/{new}", times=None) as proxy,
    ):
        done = fetch(proxy.address, home, *subset)
        assert proxy.counts["faults"] == 3  # one for each attempt
        assert done.returncode == 3, done.stdout + done.stderr[-3000:]
        assert done.stdout.startswith("HubUnavailableError org/rows: the hub does not send")
        assert new in done.stdout and "Traceback" not in done.stderr


def test_offline_the_older_rows_are_those_of_their_commit(moved):
    address, home, (old, new) = moved
    done = fetch(address, home, HF_HUB_OFFLINE="1")
    assert done.stdout.split() == [old, "old", "old"], done.stderr[-3000:]
    (home / "hub/datasets--org--rows/refs/main").write_text(new)
    done = fetch(address, home, HF_HUB_OFFLINE="1")
    assert done.returncode == 3
    assert done.stdout.startswith("ModelError") and old in done.stdout and new in done.stdout
