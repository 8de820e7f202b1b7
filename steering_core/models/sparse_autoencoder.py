"""A sae-lens SAE with unit-norm decoder rows: as a feature dictionary, or as its encoder alone."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from sae_lens import SAE

from steering_core.config.model import SAESource
from steering_core.errors import ConfigError, ModelError
from steering_core.hub.errors import explain_hub_errors
from steering_core.models.sae_metadata import check_kind
from steering_core.models.sae_source import (
    check_weights,
    is_sae_lens_format,
    load_sae_config,
    sae_id,
    sae_name,
    sae_weights_file,
)
from steering_core.models.site import Site, site_of
from steering_core.models.sparsify import load_sparsify, made_by_sparsify


@dataclass(frozen=True)
class FeatureDictionary:
    """The encoder and decoder of an SAE, ready for steering.

    Decoder rows are scaled to unit norm and feature activations by the inverse, so an activation
    is a length in the residual stream: activations times rows plus the bias of the decoder is what
    the SAE itself decodes. At a centred site the rows are centred first: the mean of a row over
    d_model is invisible to a model that reads through LayerNorm.

    Attributes:
        site: where the SAE reads.
        decoder: unit rows, float32; a row of zeros where the SAE's row is zero.
        row_scale: what the SAE's activations are multiplied by to be lengths along unit rows,
            float32 or wider: see :func:`row_scale`.
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
        """Return activations of residuals as the site sees them (centred if it is), as lengths."""
        return lengths(self.sae, self.row_scale, residual)


def lengths(
    sae: SAE, scale: Float[torch.Tensor, " d_sae"], residual: Float[torch.Tensor, "n d_model"]
) -> Float[torch.Tensor, "n d_sae"]:
    """Return the activations of an SAE times ``scale``, in the dtype of ``scale``.

    A length of float16 may exceed what float16 holds, and one of bfloat16 would be rounded again.
    """
    given = residual.to(sae.device, sae.dtype)
    made = sae.encode(given).to(scale.dtype).mul_(scale)
    unit = token_scale(sae, given)
    return made if unit is None else made.mul_(unit.to(scale.dtype))


def token_scale(
    sae: SAE, residual: Float[torch.Tensor, "n d_model"]
) -> Float[torch.Tensor, "n 1"] | None:
    """Return what the SAE's decoder is multiplied by for each residual; None if it is 1.

    An SAE that normalises its input decodes a normalised residual, and multiplies the result by the
    standard deviation of the residual (``layer_norm``) or by its norm over √d_in
    (``constant_norm_rescale``). So its activations are lengths in these units, which differ from
    token to token.
    """
    wide = residual.to(torch.promote_types(residual.dtype, torch.float32))
    if sae.cfg.normalize_activations == "layer_norm":
        return wide.std(dim=-1, keepdim=True)
    if sae.cfg.normalize_activations == "constant_norm_rescale":
        return wide.norm(dim=-1, keepdim=True) / sae.cfg.d_in**0.5
    return None


def row_scale(sae: SAE, norms: Float[torch.Tensor, " d_sae"]) -> Float[torch.Tensor, " d_sae"]:
    """Return what turns the activations of an SAE into lengths along its unit rows.

    An activation counts decoder rows, so it is multiplied by their norms. TopK SAEs with
    ``rescale_acts_by_decoder_norm`` have done that in ``encode``, and ``decode`` divides again:
    there only the share of a row's norm is left that centring keeps. It is 1 where nothing is
    centred.

    Args:
        sae: a sae-lens SAE.
        norms: of its decoder rows as the site sees them.
    """
    if not rescales(sae):
        return norms
    own = sae.W_dec.detach().to(norms.dtype).norm(dim=1)
    return torch.where(own > 0, norms / own, torch.zeros_like(norms))


def rescales(sae: SAE) -> bool:
    """Whether the activations of an SAE are lengths already."""
    return bool(getattr(sae.cfg, "rescale_acts_by_decoder_norm", False))


def load_sae(
    source: SAESource, layer: int, device: torch.device | str = "cpu"
) -> FeatureDictionary:
    """Load the SAE of ``layer``, with decoder rows of unit norm (centred at a centred site).

    Args:
        source: release and id, or a path.
        layer: number of the layer, from 0.
        device: for its weights.

    Raises:
        ConfigError: if the release or the id is unknown to sae-lens, or the path is not there.
        ModelError: if the SAE cannot be steered with (site, normalisation, architecture).

    """
    name = sae_name(source, layer)
    local = source.path is not None
    if local or is_sae_lens_format(source):
        config = load_sae_config(source, layer)
        with explain_hub_errors(str(source.release or name)):
            weights = sae_weights_file(source, layer, config)
        if made_by_sparsify(config):
            return as_dictionary(load_sparsify(weights, config, name, device), name)
        check_weights(weights, config, name)
    with warnings.catch_warnings():
        # It advises how to load the model; the site's centring does that here.
        warnings.filterwarnings("ignore", message=r"\s*This SAE has non-empty model_from")
        if local:
            sae = SAE.load_from_disk(name, device=str(device))
        else:
            with explain_hub_errors(str(source.release)):
                try:
                    sae = SAE.from_pretrained(
                        source.release, sae_id(source, layer), device=str(device)
                    )
                except ValueError as error:
                    raise ConfigError(f"sae: {error}") from error
                except (KeyError, RuntimeError) as error:
                    if isinstance(error, RuntimeError) and "state_dict" not in str(error):
                        raise
                    raise ModelError(
                        f"{name}: the weights do not fit the configuration that sae-lens has for "
                        f"this SAE: {error}"
                    ) from error
    return as_dictionary(sae, name)


def decoder_rows(
    source: SAESource,
) -> Callable[[int, Int[np.ndarray, " m"]], Float[np.ndarray, "m d_model"]]:
    """Return a function of a layer and some features that gives their unit decoder rows.

    The function raises what :func:`load_sae` raises.
    """
    return lambda layer, features: load_sae(source, layer).decoder[features]


def as_dictionary(sae: SAE, name: str) -> FeatureDictionary:
    """Normalise a loaded SAE.

    Raises:
        ModelError: if it cannot be steered with, or its weights are not of an SAE that can.

    """
    config = sae.cfg.to_dict()
    check_kind(config, name)
    site = site_of(config["metadata"], name)
    sae = sae.eval().requires_grad_(False)
    decoder = sae.W_dec.detach().to(torch.float32).cpu().numpy()
    if decoder.shape != (sae.cfg.d_sae, sae.cfg.d_in):
        raise ModelError(
            f"{name}: its decoder is {decoder.shape} and not (d_sae, d_in), "
            f"{(sae.cfg.d_sae, sae.cfg.d_in)}: its rows are no directions of the stream it reads."
        )
    if config["architecture"] == "jumprelu" and bool((sae.threshold < 0).any()):
        raise ModelError(
            f"{name} has thresholds below zero, so its features may be negative, which are no "
            "lengths: choose another SAE."
        )
    decoder = site.view(decoder)
    norms = np.linalg.norm(decoder, axis=1, keepdims=True)
    if not np.isfinite(norms).all():
        raise ModelError(
            f"{name}: {int((~np.isfinite(norms)).sum())} decoder rows are not finite: the SAE's "
            "weights are damaged, or its training diverged."
        )
    decoder = np.divide(decoder, norms, out=np.zeros_like(decoder), where=norms > 0)
    wide = torch.promote_types(sae.dtype, torch.float32)
    scale = row_scale(sae, torch.as_tensor(norms[:, 0]).to(sae.device, wide))
    return FeatureDictionary(
        site, decoder, scale, sae, config["metadata"].get("neuronpedia_id"), name
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

    def row(self, feature: int) -> Float[np.ndarray, " d_model"]:
        """Return the encoder row of a feature, which its activation is read along.

        Raises:
            ConfigError: if the SAE has no such feature, or no encoder rows.
        """
        rows = getattr(self.sae, "W_enc", None)
        if rows is None or feature >= self.d_sae:
            what = "no encoder rows" if rows is None else f"{self.d_sae} features"
            raise ConfigError(f"gate: the SAE has {what}, so there is no feature {feature} to read")
        return rows[:, feature].detach().to(torch.float64).cpu().numpy()


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
