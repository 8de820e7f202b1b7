"""Resets, stalls, 429, 503 and broken-off downloads: a few more attempts, or one clear error."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx2
import pytest
from hub_clients import hub_clients
from huggingface_hub.errors import HfHubHTTPError
from ledger import injecting

from steering_core.hub.errors import (
    HubUnavailableError,
    explain_hub_errors,
    retry_while_unavailable,
)

ROOT = Path(__file__).resolve().parents[2]
MODEL = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"

# As the fetch rule does it, with shorter pauses.
FETCH = """
    import sys
    from huggingface_hub import snapshot_download
    from steering_core.errors import ModelError
    from steering_core.hub.errors import explain_hub_errors, retry_while_unavailable
    from steering_core.hub.revisions import hub_commit

    def fetch():
        commit = hub_commit(sys.argv[1], "main")
        with explain_hub_errors(sys.argv[1]):
            snapshot_download(sys.argv[1], revision=commit, allow_patterns=["*.safetensors"])
        return commit

    try:
        print(retry_while_unavailable(fetch, (0.2, 0.5)))
    except ModelError as error:
        print(type(error).__name__, error)
        sys.exit(3)
"""

# The two that other libraries download: datasets, and sae-lens.
FETCH_OTHER = """
    import sys
    from steering_core.config.model import SAESource
    from steering_core.config.task import Task
    from steering_core.errors import ModelError
    from steering_core.hub.errors import retry_while_unavailable

    def dataset():
        from steering_core.data.labelled import fetch_labelled

        fetch_labelled(
            Task(
                dataset="stanfordnlp/sst2", split="validation", text="sentence", label="label",
                concept="c",
            )
        )

    def SAE():
        from steering_core.models.sparse_autoencoder import load_sae

        load_sae(SAESource(release="gpt2-small-res-jb", id="blocks.{layer}.hook_resid_pre"), 7)

    fetch = {"dataset": dataset, "SAE": SAE}[sys.argv[1]]
    try:
        retry_while_unavailable(fetch, (0.2, 0.5))
    except ModelError as error:
        print(type(error).__name__, error)
        sys.exit(3)
"""
#: What these import, as they do or only once they fetch.
LIBRARIES = (
    *("huggingface_hub", "datasets", "sae_lens", "steering_core.data.labelled"),
    *("steering_core.models.sparse_autoencoder", "steering_core.hub.revisions"),
)
WHERE = {"dataset": "datasets/stanfordnlp/sst2", "SAE": "GPT2-Small-SAEs-Reformatted"}


@pytest.fixture(scope="module")
def clients(hub):
    timeouts = {"HF_HUB_DOWNLOAD_TIMEOUT": "5", "HF_HUB_ETAG_TIMEOUT": "5"}
    with hub_clients(hub, *LIBRARIES, **timeouts) as found:
        yield found


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        ("reset", "model.safetensors"),
        ("stall", "model.safetensors"),
        ("429", "model.safetensors"),
        ("429", "/api/"),
        ("503", "/api/"),
        ("truncated", "model.safetensors"),
    ],
)
def test_a_passing_fault_is_survived(clients, fault, where):
    what = "of the API" if where == "/api/" else "of a file"
    clients.proxy.fail(fault, where, times=1)
    with injecting(f"network: {fault} {what}, once"):
        done = clients.run(FETCH, MODEL)
        assert clients.proxy.counts["faults"] == 1
        assert done.returncode == 0, done.stdout + done.stderr[-3000:]
        files = [path for path in clients.home.rglob("model.safetensors")]
        upstream = ROOT.parent / "shared" / "hub" / "models" / MODEL / "model.safetensors"
        assert files and files[0].read_bytes() == upstream.read_bytes()


@pytest.mark.parametrize(("fault", "where"), [("503", "/api/"), ("reset", "/api/")])
def test_a_lasting_fault_is_one_clear_error(clients, fault, where):
    clients.proxy.fail(fault, where, times=None)
    with injecting(f"network: {fault}, lasting"):
        done = clients.run(FETCH, MODEL)
        assert 2 <= clients.proxy.counts["faults"] <= 60
        assert done.returncode == 3, done.stdout + done.stderr[-3000:]
        assert done.stdout.startswith("HubUnavailableError") and MODEL in done.stdout
        assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("what", WHERE)
@pytest.mark.parametrize("fault", ["reset", "stall", "truncated"])
def test_a_passing_fault_of_downloads_by_other_libraries(clients, fault, what):
    where = {"dataset": ".parquet", "SAE": ".safetensors"}[what]
    clients.proxy.fail(fault, where, times=1)
    with injecting(f"network: {fault} of a file of the {what}, once"):
        done = clients.run(FETCH_OTHER, what)
        assert clients.proxy.counts["faults"] == 1
        assert done.returncode == 0, done.stdout + done.stderr[-3000:]


@pytest.mark.parametrize("what", WHERE)
def test_a_lasting_fault_of_downloads_by_other_libraries(clients, what):
    clients.proxy.fail("reset", WHERE[what], times=None)
    with injecting(f"network: reset of the {what}, lasting"):
        done = clients.run(FETCH_OTHER, what)
        assert clients.proxy.counts["faults"] >= 3  # one at least for each attempt
        assert done.returncode == 3, done.stdout + done.stderr[-3000:]
        assert done.stdout.startswith("HubUnavailableError")
        assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),  # is over
        ({"Retry-After": "soon"}, 0),
        ({"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"fixed";"api";q=500;w=300'}, 55),
        ({"RateLimit": '"api";r=3;t=55'}, 0),
        ({}, 0),
    ],
)
def test_the_hub_says_when_to_come_back(headers, seconds):
    request = httpx2.Request("GET", "https://hub/api")
    response = httpx2.Response(429, headers=headers, request=request)
    with pytest.raises(HubUnavailableError) as caught, explain_hub_errors("some/model"):
        raise HfHubHTTPError("Too Many Requests", response=response)
    assert caught.value.retry_after == seconds


def test_a_date_to_come_back(monkeypatch):
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    response = httpx2.Response(503, headers={"Retry-After": later})
    response.request = httpx2.Request("GET", "https://hub/api")
    with pytest.raises(HubUnavailableError) as caught, explain_hub_errors("some/model"):
        raise HfHubHTTPError("Unavailable", response=response)
    assert 30 <= caught.value.retry_after <= 90


def test_a_pause_is_as_long_as_asked(monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr("steering_core.hub.errors.time.sleep", pauses.append)
    asked = iter([0.5, 20.0, 3600.0])

    def limited():
        raise HubUnavailableError("too many requests.", next(asked))

    with pytest.raises(HubUnavailableError, match="come back in 3600 s"):
        retry_while_unavailable(limited, (1.0, 1.0, 1.0))
    assert pauses == [1.0, 20.0]


def test_pauses_are_bounded_and_other_errors_are_not_retried(monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr("steering_core.hub.errors.time.sleep", pauses.append)

    def never():
        raise HubUnavailableError("the hub is away.")

    with pytest.raises(HubUnavailableError):
        retry_while_unavailable(never, (1.0, 2.0))
    assert pauses == [1.0, 2.0]

    def wrong():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        retry_while_unavailable(wrong, (1.0, 2.0))
    assert pauses == [1.0, 2.0]
