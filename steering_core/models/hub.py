"""The Hugging Face hub: offline mode and errors that say what to do."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from steering_core.errors import ModelError


@contextmanager
def explain_hub_errors(repository: str) -> Iterator[None]:
    """Turn what the hub's clients raise inside the block into one :class:`ModelError`."""
    try:
        yield
    except (OSError, HfHubHTTPError, OfflineModeIsEnabled, httpx.TransportError) as error:
        advice = _advice(repository, error)
        if advice is None:
            raise
        raise ModelError(advice) from error


def _advice(repository: str, error: BaseException) -> str | None:
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    # Most specific first: a gated repository is also a repository that was not found.
    for kind, advice in (
        (
            GatedRepoError,
            f"{repository} is gated: accept its licence at https://huggingface.co/{repository}, "
            "then log in with `hf auth login` or set HF_TOKEN.",
        ),
        (
            RepositoryNotFoundError,
            f"{repository} is not on the hub, or is private: check the id, or set HF_TOKEN.",
        ),
        (RevisionNotFoundError, f"{repository} has no such revision: check `revision`."),
        (
            LocalEntryNotFoundError,
            f"{repository} is not in the local cache and cannot be downloaded from here: run the "
            "fetch rule on a machine with a network, with the same HF_HOME.",
        ),
        (OfflineModeIsEnabled, f"{repository} is not in the local cache and HF_HUB_OFFLINE is set: "
            "run the fetch rule first, with the same HF_HOME."),
        (EntryNotFoundError, f"{repository} lacks a file that is needed: {error}"),
        (HfHubHTTPError, f"{repository}: the hub answered with an error: {error}"),
    ):  # fmt: skip
        if any(isinstance(link, kind) for link in chain):
            return advice
    if isinstance(error, OSError) and (
        "not a local folder" in str(error) or "does not appear" in str(error)
    ):
        return f"{repository} is neither a directory here nor a repository on the hub: {error}"
    if isinstance(error, httpx.TransportError) or "couldn't connect" in str(error).lower():
        return (
            f"{repository}: the hub cannot be reached and the local cache lacks it: run the fetch "
            f"rule on a machine with a network, with the same HF_HOME. ({error})"
        )
    return None


def work_offline() -> None:
    """Forbid downloads in this process. Call before transformers or datasets are imported."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_DATASETS_OFFLINE"] = "1"
