"""The half of an SAE that reads: where only features are wanted, decoders need no room."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from sae_lens import SAE

from steering_core.config.model import SAESource
from steering_core.models.site import Site
from steering_core.models.sparse_autoencoder import FeatureDictionary, load_sae


@dataclass(frozen=True)
class FeatureEncoder:
    """The encoder of a :class:`steering_core.models.sparse_autoencoder.FeatureDictionary`.

    Attributes:
        site: where the SAE reads.
        d_sae: number of features.
        row_scale: the norms that the decoder's rows had.
        sae: the sae-lens module, without a decoder unless its encoder looks at it.
    """

    site: Site
    d_sae: int
    row_scale: Float[torch.Tensor, " d_sae"]
    sae: SAE

    @torch.no_grad()
    def encode(self, residual: Float[torch.Tensor, "n d_model"]) -> Float[torch.Tensor, "n d_sae"]:
        """Return feature activations of residuals as the site sees them (centred if it is)."""
        made = self.sae.encode(residual.to(self.sae.device, self.sae.dtype))
        return made.mul_(self.row_scale)


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
    if not getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        sae.W_dec = torch.nn.Parameter(sae.W_dec.new_empty(0), requires_grad=False)
    return FeatureEncoder(dictionary.site, dictionary.d_sae, dictionary.row_scale, sae)
