"""One run of gpt2_sst2 for all tests: fetched from a hub that fails, made on nodes without one."""

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from faulty_hub import faulty_hub
from ledger import injecting
from processes import children, kill_all
from tiny_demo import ROOT, command, environment, new_directory

TOKEN = "hf_" + "Secret0Token1Never2Logged3" * 2
SMALL = [
    "rows_per_class=200",
    "layers=[7]",
    "layer=7",
    "n_prompts=20",
    "n_validation_prompts=4",
    "new_tokens=16",
    "strengths=[1.0]",
    "qp_tau=[8.0]",
    "methods=[no_steering,caa_mean_diff,qp_optimal]",
    "bootstrap_resamples=200",
]
RESULTS = Path("results/gpt2_sst2")
FETCHED = ("resources.json", "dataset.parquet", "sweep_resources.json")
#: Both fetch rules.
TARGETS = [f"{RESULTS}/resources.json", f"{RESULTS}/sweep_resources.json"]


@dataclass(frozen=True)
class Run:
    """A working directory and what its stages said.

    Attributes:
        directory: where the results are; its HF_HOME and ``first``, the files as they were first
            fetched, lie beside it.
        printed: by all of Snakemake so far.
        log: of the fetch rule.
        faults: how often each of the faulty hubs failed.
    """

    directory: Path
    printed: str
    log: str
    faults: tuple[int, ...] = ()

    @property
    def home(self) -> Path:
        return self.directory.parent / "hf"

    @property
    def first(self) -> Path:
        return self.directory.parent / "first"


def snakemake(directory: Path, *targets: str, env: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(directory, *targets, sizes=SMALL),
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=2000,
        check=False,
    )


def on_a_node(home: Path, address: str) -> dict[str, str]:
    """The environment of a job whose user has a token and did not set HF_HUB_OFFLINE.

    Only the stage itself keeps it from asking the hub at ``address``, and fixes its threads.
    """
    env = environment(HF_HOME=str(home), HF_TOKEN=TOKEN, HF_ENDPOINT=address)
    del env["HF_HUB_OFFLINE"], env["STEERING_THREADS"]
    return {**env, "HF_HUB_DOWNLOAD_TIMEOUT": "30", "HF_HUB_ETAG_TIMEOUT": "30"}


def log_of(directory: Path) -> str:
    return (directory / RESULTS / "logs" / "fetch.log").read_text()


@functools.cache
def fetched() -> Run:
    """After the fetch stages: killed in the midst of a download, then before a hub that fails."""
    parent = Path(tempfile.mkdtemp(prefix="gpt2-"))
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    directory, home = new_directory(parent / "run"), parent / "hf"
    hub = os.environ["HF_ENDPOINT"]
    with injecting("a stalled download is killed"):
        killed_in_a_download(directory, home, hub)
        with failing_once(hub) as (address, faults):
            done = snakemake(directory, *TARGETS, env=on_a_node(home, address))
        assert done.returncode == 0, done.stderr[-4000:]
        assert all((directory / RESULTS / name).is_file() for name in FETCHED)
    with injecting("network: dataset and SAE of the fetch rule") as tally:
        tally.injected, tally.survived = sum(faults()), sum(faults())
    return Run(directory, done.stdout + done.stderr, log_of(directory), faults())


def killed_in_a_download(directory: Path, home: Path, hub: str) -> None:
    """Start fetching, and kill everything once half of the dataset is here."""
    with faulty_hub(hub, "half", ".parquet", times=1) as proxy:
        process = subprocess.Popen(
            command(directory, *TARGETS, sizes=SMALL),
            cwd=ROOT, env=on_a_node(home, proxy.address),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + 300
        while not proxy.counts["halves"] and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.5)
        assert process.poll() is None and proxy.counts["halves"] == 1
        kill_all([process.pid, *children(process.pid)])
        process.wait()
    assert not (directory / RESULTS / "resources.json").exists()
    # What is half here must not pass for whole.
    assert list(home.rglob("*.incomplete"))


@contextmanager
def failing_once(hub: str) -> Iterator:
    """A hub whose dataset and SAE fail in three ways, once each: its address, and how often."""
    with (
        faulty_hub(hub, "reset", "datasets/stanfordnlp/sst2/", times=1) as first,
        faulty_hub(first.address, "truncated", "sae_weights.safetensors", times=1) as second,
        faulty_hub(second.address, "503", "GPT2-Small-SAEs-Reformatted/", times=1) as third,
    ):
        yield third.address, lambda: tuple(p.counts["faults"] for p in (first, second, third))


@functools.cache
def fetched_again() -> Run:
    """The same after fetching from the cache alone; what was fetched first is kept aside."""
    before = fetched()
    results = before.directory / RESULTS
    before.first.mkdir()
    for name in FETCHED:
        (results / name).rename(before.first / name)
    env = {**on_a_node(before.home, "http://127.0.0.1:9"), "HF_HUB_OFFLINE": "1"}
    with injecting("fetching again without a network", kept=results, expected=before.first):
        done = snakemake(before.directory, *TARGETS, env=env)
        assert done.returncode == 0, done.stderr[-4000:]
    printed = before.printed + done.stdout + done.stderr
    return Run(before.directory, printed, log_of(before.directory))


@functools.cache
def finished() -> Run:
    """The same after all stages, with a hub that refuses everything."""
    before = fetched_again()
    with (
        faulty_hub(os.environ["HF_ENDPOINT"], "503", "", times=None) as proxy,
        injecting("node without a network", kept=before.directory / RESULTS),
    ):
        env = on_a_node(before.home, proxy.address)
        done = snakemake(before.directory, f"{RESULTS}/pareto.csv", env=env)
        assert done.returncode == 0, done.stderr[-4000:]
        assert proxy.counts["faults"] == 0  # nobody asked
    printed = before.printed + done.stdout + done.stderr
    return Run(before.directory, printed, before.log)
