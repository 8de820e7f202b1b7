"""The revision of a model, an SAE or a dataset: a commit on the hub, a digest of local files."""

import logging
import re
from pathlib import Path

from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_url, is_offline_mode
from huggingface_hub.file_download import repo_folder_name

from steering_core.errors import ModelError
from steering_core.hub.errors import explain_hub_errors
from steering_core.storage.files import write_text
from steering_core.storage.integrity import named_digest

log = logging.getLogger(__name__)


def pin(repository: str, revision: str, kind: str = "model") -> str:
    """Return the commit of a hub repository, or a digest of a local directory's contents.

    Args:
        repository: id on the hub, or path of a directory.
        revision: branch, tag or commit on the hub; a directory has none.
        kind: ``model`` or ``dataset``.

    Raises:
        ModelError: as :func:`hub_commit`.
    """
    if Path(repository).is_dir():
        return named_digest(repository)
    return hub_commit(repository, revision, kind)


def hub_commit(repository: str, revision: str, kind: str = "model") -> str:
    """Return the commit of a hub repository (``kind`` model or dataset) at ``revision``.

    The answer is written where the hub's own client writes it. So the same call works later with
    HF_HUB_OFFLINE set: it then returns the commit that the cache noted last, and the log says so.

    Raises:
        ModelError: if the hub does not answer, or if the cache does not know the revision offline.
    """
    if is_offline_mode():
        commit = revision if _is_commit(revision) else cached_commit(repository, revision, kind)
        if commit is None:
            raise ModelError(
                f"{repository}: HF_HUB_OFFLINE is set and the local cache does not know revision "
                f"{revision!r}: run the fetch rule where there is a network, with the same HF_HOME "
                f"({constants.HF_HOME})."
            )
        log.info("offline: %s is read at commit %s, which the local cache has", repository, commit)
        return commit
    with explain_hub_errors(repository):
        commit = str(HfApi().repo_info(repository, revision=revision, repo_type=kind).sha)
    if commit != revision and cached_commit(repository, revision, kind) != commit:
        write_text(_reference(repository, revision, kind), commit)
    return commit


def check_access(repository: str, revision: str = "main", kind: str = "model") -> None:
    """Make sure that the hub has a repository and lets this login read its files.

    The hub describes a gated repository to everyone, so the headers of a file are asked for.

    Raises:
        ModelError: if the repository or the revision is missing or gated, with what to do.
    """
    with explain_hub_errors(repository):
        found = HfApi().repo_info(repository, revision=revision, repo_type=kind)
        names = [file.rfilename for file in found.siblings or []]
        # The card may be open to all.
        files = [name for name in names if not name.startswith(".") and not name.endswith(".md")]
        if files:
            get_hf_file_metadata(
                hf_hub_url(repository, files[0], repo_type=kind, revision=found.sha)
            )


def cached_commit(repository: str, revision: str = "main", kind: str = "model") -> str | None:
    """Return the commit that the local cache calls ``revision``; None if it has none."""
    reference = _reference(repository, revision, kind)
    return reference.read_text(encoding="utf-8").strip() if reference.is_file() else None


def _reference(repository: str, revision: str, kind: str) -> Path:
    folder = repo_folder_name(repo_id=repository, repo_type=kind)
    return Path(constants.HF_HUB_CACHE) / folder / "refs" / revision


def _is_commit(revision: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None
