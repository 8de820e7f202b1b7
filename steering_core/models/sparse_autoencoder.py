"""A sae-lens SAE as a feature dictionary with unit-norm decoder rows."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sae_lens import SAE
from safetensors import SafetensorError

from steering_core.config.model import SAESource
from steering_core.errors import ConfigError, ModelError
from steering_core.models.hub import explain_hub_errors
from steering_core.models.sae_source import sae_name
from steering_core.models.site import Site, site_of


@dataclass(frozen=True)
class FeatureDictionary:
    """The encoder and decoder of an SAE, ready for steering.

    Decoder rows are scaled to unit norm and feature activations by the inverse, so a coefficient
    is a length in the residual stream. At a centred site the rows are centred first: the mean of
    a row over d_model is invisible to a model that reads through LayerNorm.

    Attributes:
        site: where the SAE reads.
        decoder: unit rows, float32; a row of zeros where the SAE's row is zero.
        row_scale: the norms the rows had.
        sae: the sae-lens module as loaded.
        neuronpedia_id: the SAE's id there, or None.
        description: a name for messages and manifests.

    """

    site: Site
    decoder: Float[np.ndarray, "d_sae d_model"]
    row_scale: Float[torch.Tensor, " d_sae"]
    sae: SAE
    neuronpedia_id: str | None
    description: str

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return self.decoder.shape[0]

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.decoder.shape[1]

    @torch.no_grad()
    def encode(self, residual: Float[torch.Tensor, "n d_model"]) -> Float[torch.Tensor, "n d_sae"]:
        """Return feature activations of residuals as the site sees them (centred if it is)."""
        return self.sae.encode(residual.to(self.sae.device, self.sae.dtype)) * self.row_scale


def load_sae(
    source: SAESource, layer: int, device: torch.device | str = "cpu"
) -> FeatureDictionary:
    """Load the SAE of ``layer``.

    Raises:
        ConfigError: if the release or the id is unknown to sae-lens, or the path is not there.
        ModelError: if the SAE cannot be steered with (site, normalisation, architecture).

    """
    name = sae_name(source, layer)
    with warnings.catch_warnings():
        # It advises how to load the model; the site's centring does that here.
        warnings.filterwarnings("ignore", message=r"\s*This SAE has non-empty model_from")
        if source.path is not None:
            if not (Path(name) / "cfg.json").is_file():
                raise ConfigError(f"sae.path: {name} has no cfg.json; is layer {layer} there?")
            try:
                sae = SAE.load_from_disk(name, device=str(device))
            except (FileNotFoundError, SafetensorError) as error:
                raise ModelError(
                    f"{name}: the SAE's weights are missing or damaged: {error}"
                ) from error
        else:
            with explain_hub_errors(source.release):
                try:
                    sae = SAE.from_pretrained(
                        source.release, source.id.format(layer=layer), device=str(device)
                    )
                except ValueError as error:
                    raise ConfigError(f"sae: {error}") from error
    return as_dictionary(sae, name)


def as_dictionary(sae: SAE, name: str) -> FeatureDictionary:
    """Normalise a loaded SAE.

    Raises:
        ModelError: as :func:`load_sae`.

    """
    if sae.cfg.normalize_activations != "none":
        raise ModelError(
            f"{name} rescales its input ({sae.cfg.normalize_activations}), and the factor is not "
            "folded into its weights: a coefficient has no fixed length in the residual stream. "
            "Choose an SAE without that, or fold the factor."
        )
    site = site_of(sae.cfg.metadata, name)
    sae = sae.eval().requires_grad_(False)
    decoder = sae.W_dec.detach().to(torch.float32).cpu().numpy()
    decoder = site.view(decoder)
    norms = np.linalg.norm(decoder, axis=1, keepdims=True)
    decoder = np.divide(decoder, norms, out=np.zeros_like(decoder), where=norms > 0)
    scale = torch.as_tensor(norms[:, 0]).to(sae.device, sae.dtype)
    metadata: Any = sae.cfg.metadata
    neuronpedia = metadata["neuronpedia_id"] if "neuronpedia_id" in metadata else None
    return FeatureDictionary(site, decoder, scale, sae, neuronpedia, name)
