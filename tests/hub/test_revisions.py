"""Names such as main become commits: asked of the hub, or known from the cache without one."""

import logging

import pytest

from steering_core.errors import ModelError
from steering_core.hub import revisions
from steering_core.hub.revisions import cached_commit, hub_commit


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(revisions, "is_offline_mode", lambda: True)


def note(cache, folder, revision, commit):
    reference = cache / folder / "refs" / revision
    reference.parent.mkdir(parents=True)
    reference.write_text(commit)


def test_what_the_hub_says_is_noted(hub, cache, monkeypatch):
    commit = hub_commit("gpt2", "main")
    assert len(commit) == 40 and cached_commit("gpt2") == commit
    rows = hub_commit("stanfordnlp/sst2", "main", "dataset")
    assert cached_commit("stanfordnlp/sst2", kind="dataset") == rows
    assert cached_commit("stanfordnlp/sst2") is None  # a model of that name
    monkeypatch.setattr(revisions, "is_offline_mode", lambda: True)
    assert hub_commit("gpt2", "main") == commit
    assert hub_commit("stanfordnlp/sst2", "main", "dataset") == rows


def test_offline_the_cache_is_believed_and_the_log_says_so(cache, offline, caplog):
    note(cache, "models--org--name", "v1", "c" * 40 + "\n")
    with caplog.at_level(logging.INFO):
        assert hub_commit("org/name", "v1") == "c" * 40
    assert "offline: org/name is read at commit cccc" in caplog.text
    assert hub_commit("org/name", "d" * 40) == "d" * 40  # is a commit already


def test_offline_without_a_note_the_message_says_what_to_do(cache, offline):
    with pytest.raises(ModelError, match=r"org/name.*'main'.*fetch rule.*network.*HF_HOME"):
        hub_commit("org/name", "main")
