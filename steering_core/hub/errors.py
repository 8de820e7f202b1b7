"""The Hugging Face hub: errors that say what to do, and another attempt where it can help."""

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any, TypeVar

import httpx
import httpx2
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers

from steering_core.errors import ModelError

log = logging.getLogger(__name__)
T = TypeVar("T")

_REPOSITORY = re.compile(r"/((?:datasets/)?[\w.-]+/[\w.-]+)/(?:resolve|tree|revision)/")
# Of a refusal by the hub, the datasets library keeps only this sentence.
_GATED_ROWS = re.compile(r"Dataset '([\w.-]+/[\w.-]+)' is a gated dataset")
# huggingface_hub uses httpx2, other libraries use httpx.
_TRANSPORT = (httpx.TransportError, httpx2.TransportError)
_OWN = (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled)
# datasets and hf_xet raise the last two.
_UNREACHABLE = (*_TRANSPORT, ConnectionError, TimeoutError)
# hf_xet has no error class for bad answers of its storage; the message says this.
_XET = "CAS Client Error"
_BROKEN_OFF = "consistency check failed"
_TRANSIENT_STATUS = (408, 429, 500, 502, 503, 504)
#: Seconds before each further attempt.
BACKOFF = (2.0, 8.0, 30.0)
#: Longest pause that the hub may ask for, seconds. Its own rate limits last five minutes.
LONGEST_WAIT_S = 600.0


class HubUnavailableError(ModelError):
    """The hub did not answer, or cannot answer now; another attempt may succeed.

    Attributes:
        retry_after: seconds that the hub asks to wait; 0 if it does not ask.

    """

    def __init__(self, message: str, retry_after: float = 0.0):
        super().__init__(message)
        self.retry_after = retry_after


def retry_while_unavailable(fetch: Callable[[], T], backoff: tuple[float, ...] = BACKOFF) -> T:
    """Return ``fetch()``. While the hub is unavailable, try again after each pause of ``backoff``.

    If the hub asks for a longer pause, that one is kept. Files that were downloaded before the
    error are in the cache and are not downloaded again.

    Raises:
        HubUnavailableError: if the last attempt fails too, or the hub asks for more than
            :data:`LONGEST_WAIT_S`.

    """
    for pause in backoff:
        try:
            return fetch()
        except HubUnavailableError as error:
            if error.retry_after > LONGEST_WAIT_S:
                raise HubUnavailableError(
                    f"{error} The hub asks to come back in {error.retry_after:g} s: run the same "
                    "command again then; what was downloaded is kept.",
                    error.retry_after,
                ) from error
            wait = max(pause, error.retry_after)
            log.warning("%s Trying again in %g s.", error, wait)
            time.sleep(wait)
    return fetch()


@contextmanager
def explain_hub_errors(repository: str) -> Iterator[None]:
    """Turn errors of the hub's clients in the block into one error with advice.

    Raises:
        HubUnavailableError: if another attempt may help.
        ModelError: if it cannot: no access, no such repository, a file that is not in the cache.
    """
    try:
        yield
    except (OSError, RuntimeError, *_OWN, *_TRANSPORT) as error:
        if isinstance(error, RuntimeError) and not _of_xet(error):
            raise
        chain = _chain(error)
        advice = _advice(repository, error, chain)
        if advice is None:
            raise
        if _is_transient(chain):
            raise HubUnavailableError(advice, _retry_after(chain)) from error
        raise ModelError(advice) from error


def _chain(error: BaseException) -> list[BaseException]:
    """Return the error, its cause, the cause of that, and so on."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain


def _is_transient(chain: list[BaseException]) -> bool:
    """Whether the same request may succeed later: there was no answer, or a temporary error."""
    for link in chain:
        if isinstance(link, OfflineModeIsEnabled):
            return False
        response = getattr(link, "response", None)
        if response is not None:
            return response.status_code in _TRANSIENT_STATUS
    # A download that ended early raises an OSError about sizes, without a response.
    return any(
        isinstance(link, _UNREACHABLE) or _of_xet(link) or _BROKEN_OFF in str(link).lower()
        for link in chain
    )


def _of_xet(link: BaseException) -> bool:
    """Whether hf_xet failed: its storage gave no answer, or one that hf_xet cannot use."""
    own = type(link).__module__.partition(".")[0] == "hf_xet"
    return own or (isinstance(link, RuntimeError) and _XET in str(link))


def _refusal(chain: list[BaseException]) -> Any:
    """Return the error of a refused login (401 or 403); None if the login was not refused."""
    for link in chain:
        response = getattr(link, "response", None)
        if response is not None:
            open_to_some = not isinstance(link, DisabledRepoError)
            return link if open_to_some and response.status_code in (401, 403) else None
    return None


def _retry_after(chain: list[BaseException]) -> float:
    """Return the seconds that the answer asks to wait in either of two headers; 0 without them."""
    headers: Any = next(
        (link.response.headers for link in chain if getattr(link, "response", None) is not None),
        {},
    )
    asked = requested_wait(headers)
    if asked is not None:
        return asked
    limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit and limit.remaining == 0 else 0.0


def requested_wait(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the header Retry-After of an answer asks to wait.

    It is a number or a date. None if it is neither, or is not there.
    """
    given = headers.get("retry-after", "").strip()
    try:
        seconds = float(given)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(given) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):  # no date, or one without a zone
            return None
    return max(seconds, 0.0) if isfinite(seconds) else None


def _page(repository: str, chain: list[BaseException]) -> str:
    """Return the path of the hub's page about the repository of the failed request."""
    for link in chain:
        response = getattr(link, "response", None)
        asked = response is not None and _REPOSITORY.search(str(response.url))
        if asked:
            return asked.group(1)
        rows = _GATED_ROWS.search(str(link))
        if rows:
            return f"datasets/{rows.group(1)}"
    return repository


def _is_gated(link: BaseException) -> bool:
    return isinstance(link, GatedRepoError) or _GATED_ROWS.search(str(link)) is not None


def _advice(repository: str, error: BaseException, chain: list[BaseException]) -> str | None:
    # Most specific first: a gated repository is also a repository that was not found.
    if any(_is_gated(link) for link in chain):
        return (
            f"{repository} is gated: accept its licence at https://huggingface.co/"
            f"{_page(repository, chain)}, then log in with `hf auth login` or set HF_TOKEN to a "
            "token that may read gated repositories."
        )
    for kind, advice in (
        (
            RepositoryNotFoundError,
            f"{repository} is not on the hub, or is private, and there is nothing of that name "
            "here: check the id or the path, or set HF_TOKEN.",
        ),
        (
            HFValidationError,
            f"{repository} is not there, and no id of a hub repository: check the path.",
        ),
        (RevisionNotFoundError, f"{repository} has no such revision: check `revision`."),
    ):
        if any(isinstance(link, kind) for link in chain):
            return advice
    # The token has expired or lacks the right. A file may seem to be missing because of that.
    refused = _refusal(chain)
    if refused is not None:
        return (
            f"{repository}: the hub refuses this login: accept the licence at "
            f"https://huggingface.co/{_page(repository, chain)} if it has one, then log in again "
            "with `hf auth login`, or set HF_TOKEN to a token that has not expired and may read "
            f"gated repositories. ({refused})"
        )
    for kind, advice in (
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
    if _of_xet(error):
        return (
            f"{repository}: a download broke off: {error} (If that goes on, set "
            "HF_HUB_DISABLE_XET=1 to download over plain HTTP.)"
        )
    if isinstance(error, _UNREACHABLE) or "couldn't connect" in str(error).lower():
        return (
            f"{repository}: the hub cannot be reached and the local cache lacks it: run the fetch "
            f"rule on a machine with a network, with the same HF_HOME. ({error})"
        )
    return None
