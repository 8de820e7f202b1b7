"""Resets, stalls, 429, 503 and broken-off downloads: a few more attempts, or one clear error."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from faulty_hub import faulty_hub
from ledger import record

from steering_core.models.hub import HubUnavailableError, persistently

ROOT = Path(__file__).resolve().parents[2]
MODEL = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"

# As the fetch rule does it, with shorter pauses.
FETCH = """
    import sys
    from steering_core.config.schema import Classifier
    from steering_core.errors import ModelError
    from steering_core.models.fetch import _fetch_classifier
    from steering_core.models.hub import persistently
    judge = Classifier(model=sys.argv[1], label="POSITIVE")
    try:
        print(persistently(lambda: _fetch_classifier(judge), (0.2, 0.5))["revision"])
    except ModelError as error:
        print(type(error).__name__, error)
        sys.exit(3)
"""


def fetch(address: str, home: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FETCH), MODEL],
        env={
            **os.environ,
            **{"HF_ENDPOINT": address, "HF_HOME": str(home), "PYTHONPATH": str(ROOT)},
            **{"HF_HUB_DOWNLOAD_TIMEOUT": "2", "HF_HUB_ETAG_TIMEOUT": "2"},
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        ("reset", "model.safetensors"),
        ("stall", "model.safetensors"),
        ("429", "model.safetensors"),
        ("503", "/api/"),
        ("truncated", "model.safetensors"),
    ],
)
def test_a_passing_fault_is_survived(hub, tmp_path, fault, where):
    with faulty_hub(hub, fault, where, times=1) as proxy:
        done = fetch(proxy.address, tmp_path)
        assert proxy.counts["faults"] == 1
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    files = [path for path in tmp_path.rglob("model.safetensors")]
    upstream = ROOT.parent / "shared" / "hub" / "models" / MODEL / "model.safetensors"
    assert files and files[0].read_bytes() == upstream.read_bytes()
    record(f"network: {fault}, once", injected=1, survived=1, bytes_lost=0)


@pytest.mark.parametrize(("fault", "where"), [("503", "/api/"), ("reset", "/api/")])
def test_a_lasting_fault_is_one_clear_error(hub, tmp_path, fault, where):
    with faulty_hub(hub, fault, where, times=None) as proxy:
        done = fetch(proxy.address, tmp_path)
        assert 2 <= proxy.counts["faults"] <= 60
    assert done.returncode == 3, done.stdout + done.stderr[-3000:]
    assert done.stdout.startswith("HubUnavailableError") and MODEL in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    record(f"network: {fault}, lasting", injected=1, survived=1, bytes_lost=0)


def test_pauses_are_bounded_and_other_errors_are_not_retried(monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr("steering_core.models.hub.time.sleep", pauses.append)

    def never():
        raise HubUnavailableError("the hub is away.")

    with pytest.raises(HubUnavailableError):
        persistently(never, (1.0, 2.0))
    assert pauses == [1.0, 2.0]

    def wrong():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        persistently(wrong, (1.0, 2.0))
    assert pauses == [1.0, 2.0]
