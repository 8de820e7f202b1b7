"""The Hugging Face hub: offline mode, retries and errors that say what to do."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import httpx
import httpx2
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

log = logging.getLogger(__name__)
T = TypeVar("T")

# huggingface_hub speaks through httpx2, other libraries through httpx.
_TRANSPORT = (httpx.TransportError, httpx2.TransportError)
_BROKEN_OFF = "consistency check failed"
_TRANSIENT_STATUS = (408, 429, 500, 502, 503, 504)
#: Seconds before each further attempt.
BACKOFF = (2.0, 8.0, 30.0)


class HubUnavailableError(ModelError):
    """The hub did not answer, or not now: worth another attempt."""


def persistently(fetch: Callable[[], T], backoff: tuple[float, ...] = BACKOFF) -> T:
    """Return ``fetch()``, tried again after each pause while the hub is unavailable.

    What was downloaded before the fault is in the cache and not downloaded again.

    Raises:
        HubUnavailableError: of the last attempt.

    """
    for pause in backoff:
        try:
            return fetch()
        except HubUnavailableError as error:
            log.warning("%s Trying again in %g s.", error, pause)
            time.sleep(pause)
    return fetch()


@contextmanager
def explain_hub_errors(repository: str) -> Iterator[None]:
    """Turn what the hub's clients raise inside the block into one :class:`ModelError`."""
    try:
        yield
    except (OSError, HfHubHTTPError, OfflineModeIsEnabled, *_TRANSPORT) as error:
        chain = _chain(error)
        advice = _advice(repository, error, chain)
        if advice is None:
            raise
        kind = HubUnavailableError if _is_transient(chain) else ModelError
        raise kind(advice) from error


def _chain(error: BaseException) -> list[BaseException]:
    """Return the error and what caused it, the nearest first."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain


def _is_transient(chain: list[BaseException]) -> bool:
    """Whether the same request may well succeed later: no answer, or one that says so."""
    for link in chain:
        if isinstance(link, OfflineModeIsEnabled):
            return False
        response = getattr(link, "response", None)
        if response is not None:
            return response.status_code in _TRANSIENT_STATUS
    # A download that ended early is an OSError about sizes, without a response.
    return any(
        isinstance(link, (*_TRANSPORT, ConnectionError)) or _BROKEN_OFF in str(link).lower()
        for link in chain
    )


def _advice(repository: str, error: BaseException, chain: list[BaseException]) -> str | None:
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
    if isinstance(error, OSError) and "does not appear to have a file" in str(error):
        return (
            f"{repository} lacks a file that is needed ({error}). If the hub has it, it is missing "
            "from the local cache: run the fetch rule where there is a network, with the same "
            "HF_HOME."
        )
    if isinstance(error, OSError) and "not a local folder" in str(error):
        return f"{repository} is neither a directory here nor a repository on the hub: {error}"
    if _BROKEN_OFF in str(error).lower():
        return f"{repository}: a download broke off: {error}"
    if isinstance(error, _TRANSPORT) or "couldn't connect" in str(error).lower():
        return (
            f"{repository}: the hub cannot be reached and the local cache lacks it: run the fetch "
            f"rule on a machine with a network, with the same HF_HOME. ({error})"
        )
    return None


def work_offline() -> None:
    """Forbid downloads in this process. Call before transformers or datasets are imported."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_DATASETS_OFFLINE"] = "1"
