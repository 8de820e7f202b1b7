"""What goes wrong with the hub is one error that says what to do."""

import importlib.util
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import hf_xet
import httpx
import httpx2
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import hf_raise_for_status

from steering_core.config.model import Model, SAESource
from steering_core.errors import ModelError
from steering_core.hub.errors import HubUnavailableError, _page, explain_hub_errors
from steering_core.hub.revisions import hub_commit, pin
from steering_core.models.language_model import load_language_model, load_shape, load_tokenizer

ROOT = Path(__file__).resolve().parents[2]
HUB = ROOT.parent / "shared" / "hub"
SAE = SAESource(path="{layer}")


def in_process(code: str, home: Path, **environment: str) -> str:
    """Run ``code`` in a fresh Python with its own hub settings and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "HF_HOME": str(home), "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


LOAD = """
    import os, sys
    from steering_core.config.model import Model, SAESource
    from steering_core.errors import ModelError
    from steering_core.metrics.classifiers import TextClassifier
    from steering_core.hub.revisions import pin
    from steering_core.models.language_model import (
        load_language_model, load_shape, load_tokenizer
    )
    model = Model(id="some/model", sae=SAESource(path="{layer}"))
    for token in [None, "hf_wrong", "secret"]:
        if token:
            os.environ["HF_TOKEN"] = token
        for attempt in (
            lambda: load_shape(model),
            lambda: load_tokenizer(model),
            lambda: load_language_model(model, "cpu"),
            lambda: TextClassifier("some/model", "LABEL_0", device="cpu"),
            lambda: pin("some/model", "main"),
        ):
            try:
                attempt()
                print("nothing raised")
            except ModelError as error:
                print(" ".join(str(error).split()))
"""


@pytest.fixture
def small_hub(hub, tmp_path):
    """A hub of one repository, some/model, which is gated; yields its address."""
    root = tmp_path / "hub"
    folder = root / "models" / "some" / "model"
    shutil.copytree(HUB / "models" / "openai-community" / "gpt2", folder)
    (root / "gated.txt").write_text("some/model secret\n")
    spec = importlib.util.spec_from_file_location("small_hub_serve", HUB / "serve.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = module.serve(root, 0)
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def test_gated_repository_with_and_without_a_token(small_hub, tmp_path):
    lines = in_process(LOAD, tmp_path, HF_ENDPOINT=small_hub).splitlines()
    assert len(lines) == 15
    assert not any("hf_wrong" in line or "secret" in line for line in lines)  # the tokens
    without, wrong, right = lines[:5], lines[5:10], lines[10:]
    # The hub tells about a gated repository, it only keeps the files: pinning works.
    for line in without[:4] + wrong[:4]:
        assert "accept its licence at https://huggingface.co/some/model" in line
        assert "hf auth login" in line and "HF_TOKEN" in line
    assert right == ["nothing raised"] * 5


READ_ROWS = """
import os
from steering_core.data.sources import read_rows
from steering_core.errors import ModelError
from steering_core.hub.revisions import hub_commit

for token in [None, "hf_wrong"]:
    if token:
        os.environ["HF_TOKEN"] = token
    try:
        read_rows("some/rows", None, "validation", hub_commit("some/rows", "main", "dataset"))
        print("nothing raised")
    except ModelError as error:
        print(" ".join(str(error).split()))
"""


def test_gated_dataset(small_hub, tmp_path):
    """`datasets` drops the hub's own error, and tells of it in words."""
    rows = HUB / "datasets" / "stanfordnlp" / "sst2"
    shutil.copytree(rows, tmp_path / "hub" / "datasets" / "some" / "rows")
    (tmp_path / "hub" / "gated.txt").write_text("datasets/some/rows secret\n")
    lines = in_process(READ_ROWS, tmp_path, HF_ENDPOINT=small_hub).splitlines()
    assert len(lines) == 2
    for printed in lines:
        assert "accept its licence at https://huggingface.co/datasets/some/rows" in printed
        assert "hf auth login" in printed and "hf_wrong" not in printed


def test_offline_without_a_cache(tmp_path):
    dead = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}
    for line in in_process(LOAD, tmp_path, **dead).splitlines():
        assert "some/model" in line and "fetch rule" in line and "HF_HOME" in line


def test_a_path_where_nothing_is(hub, tmp_path):
    path = str(tmp_path / "none")
    for attempt in (
        lambda: load_shape(Model(id=path, sae=SAE)),
        lambda: pin(path, "main"),
        lambda: hub_commit(path, "main", "dataset"),
    ):
        with pytest.raises(ModelError, match=r"none is not there, and no id of a hub.*the path"):
            attempt()


def test_missing_repository(hub):
    model = Model(id="nobody/nothing", sae=SAE)
    for attempt in (load_shape, load_tokenizer, load_language_model):
        with pytest.raises(ModelError, match="nobody/nothing is not on the hub"):
            attempt(model)
    with pytest.raises(ModelError, match="nobody/nothing is not on the hub"):
        pin("nobody/nothing", "main")


def test_missing_revision(hub):
    with pytest.raises(ModelError, match="no such revision"):
        load_shape(Model(id="gpt2", revision="nosuch", sae=SAE))
    with pytest.raises(ModelError, match="no such revision"):
        pin("gpt2", "nosuch")


def test_a_directory_without_a_model(tmp_path):
    with pytest.raises(ModelError, match=str(tmp_path)):
        load_shape(Model(id=str(tmp_path), sae=SAE))


def test_unreachable_hub_with_a_client_that_does_not_wrap():
    with pytest.raises(ModelError, match="cannot be reached"), explain_hub_errors("some/model"):
        raise httpx.ConnectError("[Errno 111] Connection refused")


def test_other_errors_pass_unchanged():
    with pytest.raises(PermissionError), explain_hub_errors("some/model"):
        raise PermissionError(13, "Permission denied", "weights")
    with pytest.raises(OSError, match="No space"), explain_hub_errors("some/model"):
        raise OSError(28, "No space left on device")
    with pytest.raises(KeyError), explain_hub_errors("some/model"):
        raise KeyError("x")
    with pytest.raises(RuntimeError, match="shape"), explain_hub_errors("some/model"):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Couldn't reach 'some/rows' on the Hub (ConnectTimeout)"),
        ConnectionResetError(104, "Connection reset by peer"),
        TimeoutError("timed out"),
        RuntimeError("Task error: File reconstruction error: CAS Client Error: Request error: 503"),
        hf_xet.XetAuthenticationError("token refresh failed"),
    ],
    ids=repr,
)
def test_a_missing_answer_is_an_outage_for_every_library(error):
    with pytest.raises(HubUnavailableError, match=r"some/rows: .*(reached|broke off)"):
        with explain_hub_errors("some/rows"):
            raise error


def refusal(status: int, message: str, code: str = "") -> Exception:
    """What huggingface_hub makes of an answer."""
    headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
    request = httpx2.Request("GET", "https://huggingface.co/some/model/resolve/main/config.json")
    with pytest.raises(OSError) as caught:
        hf_raise_for_status(httpx2.Response(status, headers=headers, request=request))
    return caught.value


EXPIRED = (401, "Invalid credentials in Authorization header")
FINE_GRAINED = (
    403,
    "Please enable access to public gated repositories in your fine-grained token settings",
)


@pytest.mark.parametrize("answer", [EXPIRED, FINE_GRAINED], ids=["expired", "fine-grained"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_token_that_is_refused(answer, wrapped):
    error = refusal(*answer)
    with pytest.raises(ModelError) as caught, explain_hub_errors("alias"):
        if wrapped:  # as where the file is sought in the cache next
            raise LocalEntryNotFoundError("cannot find the requested files") from error
        raise error
    message = str(caught.value)
    assert "accept the licence at https://huggingface.co/some/model" in message
    assert "log in again" in message and "expired" in message and answer[1] in message
    assert not isinstance(caught.value, HubUnavailableError)


def test_a_disabled_repository_is_no_matter_of_tokens():
    with pytest.raises(ModelError, match="disabled") as caught, explain_hub_errors("some/model"):
        raise refusal(403, "Access to this resource is disabled.")
    assert "HF_TOKEN" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "page"),
    [
        ("https://hub/datasets/org/rows/resolve/main/a.parquet", "datasets/org/rows"),
        ("https://hub/api/datasets/org/rows/revision/main", "datasets/org/rows"),
        ("https://hub/org/model/resolve/main/config.json", "org/model"),
        ("https://hub/api/models/org/model/tree/main", "org/model"),
        ("https://hub/api/whoami-v2", "alias"),
    ],
)
def test_the_licence_link_is_the_page_of_the_requested_repository(url, page):
    error = OSError("refused")
    error.response = SimpleNamespace(url=url)
    assert _page("alias", [OSError("outer"), error]) == page
