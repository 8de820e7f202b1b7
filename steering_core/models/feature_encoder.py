"""The half of an SAE that reads: where only features are wanted, decoders need no room."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from sae_lens import SAE

from steering_core.config.model import SAESource
from steering_core.models.site import Site
from steering_core.models.sparse_autoencoder import (
    FeatureDictionary,
    lengths,
    load_sae,
    rescales,
)


@dataclass(frozen=True)
class FeatureEncoder:
    """The encoder of a :class:`steering_core.models.sparse_autoencoder.FeatureDictionary`.

    Attributes:
        site: where the SAE reads.
        d_sae: number of features.
        row_scale: what makes the SAE's activations lengths along unit decoder rows.
        sae: the sae-lens module, without a decoder unless its encoder looks at it.
    """

    site: Site
    d_sae: int
    row_scale: Float[torch.Tensor, " d_sae"]
    sae: SAE

    @torch.no_grad()
    def encode(self, residual: Float[torch.Tensor, "n d_model"]) -> Float[torch.Tensor, "n d_sae"]:
        """Return activations of residuals as the site sees them (centred if it is), as lengths."""
        return lengths(self.sae, self.row_scale, residual)


def load_encoder(
    source: SAESource, layer: int, device: torch.device | str = "cpu"
) -> FeatureEncoder:
    """Load the SAE of ``layer`` and keep its encoder.

    Raises:
        ConfigError, ModelError: as :func:`steering_core.models.sparse_autoencoder.load_sae`.
    """
    return encoder_of(load_sae(source, layer, device))


def encoder_of(dictionary: FeatureDictionary) -> FeatureEncoder:
    """Return the encoder and take the decoder out of the SAE, which can then no longer decode."""
    sae = dictionary.sae
    # Matching pursuit encodes with the rows of its decoder.
    if sae.cfg.architecture() != "matching_pursuit" and not rescales(sae):
        sae.W_dec = torch.nn.Parameter(sae.W_dec.new_empty(0), requires_grad=False)
    return FeatureEncoder(dictionary.site, dictionary.d_sae, dictionary.row_scale, sae)
