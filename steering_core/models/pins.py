"""Hold later stages to the SAEs that the fetch stage pinned."""

import hashlib
from typing import Any

from steering_core.config.model import Model, SAESource
from steering_core.errors import ModelError
from steering_core.hub.revisions import cached_commit
from steering_core.models.resources import changed
from steering_core.models.sae_source import sae_repository
from steering_core.storage.integrity import content_digest


def local_sae_revision(source: SAESource, layers: list[int]) -> str:
    """Return a digest over the SAEs of ``layers`` of a source that is a path."""
    digest = hashlib.sha256()
    for layer in layers:
        digest.update(content_digest(str(source.path).format(layer=layer)).encode())
    return "sha256:" + digest.hexdigest()


def pinned_sae(model: Model, resources: dict[str, Any]) -> SAESource:
    """Return the SAE source of ``model``, having checked that it is the one that was fetched.

    sae-lens has no revisions: it reads what the cache calls ``main``, which must still be the
    commit of the fetch stage.

    Raises:
        ModelError: if local SAEs were changed since, or the cache holds another commit or none.

    """
    source, expected = model.sae, resources["sae_revision"]
    repository = sae_repository(source, resources["layers"][0])
    if repository is None:
        try:
            found = local_sae_revision(source, resources["layers"])
        except FileNotFoundError as error:
            raise ModelError(f"{source.path}: the SAE is gone since it was fetched.") from error
        if found != expected:
            raise changed(str(source.path))
        return source
    cached = cached_commit(repository)
    if cached is None:
        raise ModelError(
            f"{repository} is not in the local cache: run the fetch rule on a machine with a "
            "network, with the same HF_HOME."
        )
    if cached != expected:
        raise ModelError(
            f"{repository}: the local cache holds commit {cached}, {expected} was pinned. Delete "
            "resources.json of the experiment, if it is there, and run again: the fetch rule pins "
            "what is there now."
        )
    return source
