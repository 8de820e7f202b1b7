"""The model, tokenizer and sites that resources.json of the fetch stage names (no sae-lens)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from steering_core.config.model import Model
from steering_core.errors import ModelError
from steering_core.models.language_model import (
    LanguageModel,
    ModelShape,
    load_language_model,
    load_tokenizer,
)
from steering_core.models.residual_stream import module_at
from steering_core.models.site import Site, site_at
from steering_core.storage.integrity import named_digest


def pinned_model(model: Model, resources: dict[str, Any]) -> Model:
    """Return ``model`` at the revision that was fetched, in the dtype that ``auto`` was there.

    Raises:
        ModelError: if it is a local directory that has changed since the fetch or is missing.

    """
    revision = resources["model"]["revision"]
    # A revision of the hub names its content; a directory has to be looked at.
    if revision.startswith("sha256:"):
        if not Path(model.id).is_dir():
            raise ModelError(
                f"{model.id} was a local directory when it was fetched and is gone: put it back, "
                "or correct `id`."
            )
        if named_digest(model.id) != revision:
            raise changed(model.id)
    dtype = resources["model"]["dtype"] if model.dtype == "auto" else model.dtype
    return Model(**{**model.model_dump(), "revision": revision, "dtype": dtype})


def fetched_model(model: dict[str, Any], resources: dict[str, Any], device: str) -> LanguageModel:
    """Load the model of the configuration at the revision that was fetched.

    Raises:
        ModelError: as :func:`load_language_model`, or if a block lacks the place of its SAE.
    """
    pinned = pinned_model(Model(**model), resources)
    lm = load_language_model(pinned, device, ModelShape(**resources["shape"]))
    for sae in resources["saes"]:  # while no hook is on the model
        if sae["stream"] not in ("pre", "post"):
            module_at(lm, sae["layer"], sae["stream"])
    return lm


def fetched_tokenizer(model: Model, resources: dict[str, Any]) -> PreTrainedTokenizerBase:
    """Load the tokenizer of ``model`` at the revision that was fetched. No weights are needed.

    Raises:
        ModelError: as :func:`pinned_model`, or if the tokenizer cannot be loaded.
    """
    return load_tokenizer(pinned_model(model, resources))


def cached_sites(resources: dict[str, Any]) -> list[Site]:
    """Return the sites of the layers to cache."""
    return [site_at(sae) for sae in resources["saes"]]


def run_sites(resources: dict[str, Any], *, published: bool) -> dict[int, Site]:
    """Return the site of each layer's SAE; if ``published``, where CorrSteer's own code steers."""
    sites = {sae["layer"]: site_at(sae) for sae in resources["saes"]}
    return {k: early_site(site) for k, site in sites.items()} if published else sites


def early_site(site: Site) -> Site:
    """Return the site one layer early, where the published code applies a resid_post SAE.

    Raises:
        ModelError: if the SAE is not at resid_post: the published code places others rightly.
    """
    if site.stream != "post":
        raise ModelError(
            f"published_site: the SAE of layer {site.layer} is at {site.hook_name}, where the "
            "published code makes no mistake; set published_site to false."
        )
    return replace(site, stream="pre")


def wants_bos(resources: dict[str, Any]) -> bool:
    """Return True if prompts start with BOS; all SAEs must agree.

    Raises:
        ModelError: if they do not.
    """
    wanted = {bool(sae["prepend_bos"]) for sae in resources["saes"]}
    if len(wanted) != 1:
        raise ModelError("the SAEs of the layers differ in prepend_bos: choose others in layers.")
    return wanted.pop()


def changed(what: str) -> ModelError:
    """Return the error for a local source that has changed since the fetch."""
    return ModelError(
        f"{what} is not what the fetch stage saw: it is damaged or was edited. Restore it, or "
        "delete resources.json of the experiment to take it as it is now."
    )
