"""The sites of a run's SAEs, and whether prompts start with BOS.

They are apart from :mod:`steering_core.models.resources`, which caching and generation use: an edit
here leaves those stages alone.
"""

from dataclasses import replace
from typing import Any

from steering_core.errors import ModelError
from steering_core.models.site import Site, site_at


def run_sites(resources: dict[str, Any], *, published: bool) -> dict[int, Site]:
    """Return the site of each layer's SAE, or the published one a layer early."""
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
