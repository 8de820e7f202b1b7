"""Resolve, download and check everything an experiment takes from outside, before any compute."""

import logging
from typing import TYPE_CHECKING, Any

from steering_core.config.model import Model, SAESource
from steering_core.config.task import Classifier
from steering_core.errors import ConfigError, ModelError
from steering_core.hub.revisions import pin
from steering_core.models.language_model import (
    ModelShape,
    load_config,
    load_shape,
    load_tokenizer,
)
from steering_core.models.pins import local_sae_revision, pinned_sae
from steering_core.models.sae_source import (
    SAEShape,
    layers_with_sae,
    load_sae_shape,
    no_such_sae,
    sae_repository,
)
from steering_core.models.sparse_autoencoder import load_sae
from steering_core.models.tokens import check_special_tokens
from steering_core.models.weights import fetch_weights
from steering_core.runtime.machine import running_versions

if TYPE_CHECKING:
    from steering_core.config.schema import Experiment

log = logging.getLogger(__name__)


def fetch_experiment(experiment: "Experiment") -> dict[str, Any]:
    """Download model, SAE and classifier at pinned revisions and return what was found.

    Raises:
        ConfigError: if the configuration does not fit what is there.
        ModelError: if something cannot be loaded, with what to do.

    """
    found = describe_experiment(experiment)
    download_experiment(experiment, found)
    return found


def describe_experiment(experiment: "Experiment") -> dict[str, Any]:
    """Pin everything and check it against each other by the configurations, which are small.

    Raises:
        ConfigError, ModelError: as :func:`fetch_experiment`.

    """
    settings = experiment.settings
    shape = load_shape(experiment.model)
    found = describe_model(
        experiment.model,
        shape,
        choose_layers(experiment, shape),
        max_tokens=settings.max_tokens,
        new_tokens=settings.new_tokens,
    )
    return {**found, "classifier": _describe_classifier(experiment.task.classifier)}


def describe_model(
    model: Model, shape: ModelShape, layers: list[int], *, max_tokens: int, new_tokens: int
) -> dict[str, Any]:
    """Pin a model and the SAEs of some layers and check them against each other.

    Raises:
        ConfigError, ModelError: as :func:`fetch_experiment`.

    """
    saes = [load_sae_shape(model.sae, layer) for layer in layers]
    for sae, layer in zip(saes, layers, strict=True):
        _check_fit(sae, layer, shape, model)
    if max_tokens > shape.context:
        raise ConfigError(f"max_tokens: {max_tokens} exceeds the context {shape.context}.")
    if new_tokens >= shape.context:
        raise ConfigError(f"new_tokens: {new_tokens} exceeds the context {shape.context}.")
    pinned = Model(**{**model.model_dump(), "revision": pin(model.id, model.revision)})
    _check_tokenizer(pinned, saes)
    return {
        "model": {"id": model.id, "revision": pinned.revision, "dtype": model.dtype},
        "shape": vars(shape),
        "layers": layers,
        "saes": [
            {
                "name": sae.name,
                "hook_name": sae.site.hook_name,
                **sae.site.to_dict(),
                "d_sae": sae.d_sae,
                "neuronpedia_id": sae.neuronpedia_id,
            }
            for sae in saes
        ],
        "sae_revision": _sae_revision(model.sae, layers),
        "versions": running_versions(),
    }


def download_experiment(experiment: "Experiment", found: dict[str, Any]) -> None:
    """Download the weights of what :func:`describe_experiment` found, the smallest first.

    Raises:
        ModelError: if something cannot be loaded, with what to do.

    """
    classifier, model, settings = found["classifier"], found["model"], experiment.settings
    if settings.layer != "auto":  # the sweep that picks one fetches them all
        load_sae(experiment.model.sae, settings.layer)
        pinned_sae(experiment.model, found)  # sae-lens took what is `main` by now
    if classifier is not None and "model" in classifier:
        fetch_weights(classifier["model"], classifier["revision"])
    fetch_weights(model["id"], model["revision"])


def choose_layers(experiment: "Experiment", shape: ModelShape) -> list[int]:
    """Return the layers to cache: those configured, or all that have an SAE.

    Raises:
        ConfigError: if a layer is out of range, or the steered layer is not among them.

    """
    settings = experiment.settings
    if experiment.model.sae.by_layer:
        available = layers_with_sae(experiment.model.sae, shape.n_layers)
    else:  # the configuration has made sure that there is one
        available = [settings.layer] if settings.layers == "all" else list(settings.layers)
    if not available:
        raise no_such_sae(experiment.model.sae, "{layer}")
    layers = available if settings.layers == "all" else sorted(set(settings.layers))
    for layer in [*layers, *([] if settings.layer == "auto" else [settings.layer])]:
        if layer >= shape.n_layers:
            raise ConfigError(
                f"layer: {layer} is out of range, {experiment.model.id} has {shape.n_layers} "
                f"layers (0 to {shape.n_layers - 1})."
            )
        if layer not in available:
            raise ConfigError(f"layer: there is no SAE for {layer}; there are {available}.")
    if settings.layer != "auto" and settings.layer not in layers:
        raise ConfigError(f"layer: {settings.layer} is not in layers {layers}: add it.")
    return layers


def _check_fit(sae: SAEShape, layer: int, shape: ModelShape, model: Model) -> None:
    if sae.d_in != shape.d_model:
        raise ModelError(
            f"{sae.name} is for residual streams of width {sae.d_in}, {model.id} has "
            f"{shape.d_model}: this SAE belongs to another model."
        )
    if sae.site.layer != layer:
        raise ModelError(
            f"{sae.name} sits at {sae.site.hook_name}, not at layer {layer}: check what the sae's "
            "id or path makes of {layer}."
        )


def _check_tokenizer(model: Model, saes: list[SAEShape]) -> None:
    """Check the special tokens against the model's vocabulary, and say if no BOS is there."""
    tokenizer = load_tokenizer(model)
    size = getattr(load_config(model.id, model.revision).get_text_config(), "vocab_size", None)
    if isinstance(size, int):
        check_special_tokens(tokenizer, size, model.id)
    wanting = [sae.name for sae in saes if sae.site.prepend_bos]
    if wanting and tokenizer.bos_token_id is None:
        log.warning(
            "%s was trained on texts with BOS in front%s, and the tokenizer of %s has no BOS "
            "token: nothing is prepended, as in sae-lens.",
            wanting[0],
            f" (as were {len(wanting) - 1} more)" if len(wanting) > 1 else "",
            model.id,
        )


def _sae_revision(source: SAESource, layers: list[int]) -> str:
    repository = sae_repository(source, layers[0])
    if repository is None:
        return local_sae_revision(source, layers)
    return pin(repository, "main")


def _describe_classifier(classifier: Classifier | None) -> dict[str, Any] | None:
    if classifier is None:
        return None
    if classifier.model is None:
        return {"lexicon": classifier.lexicon}
    revision = pin(classifier.model, classifier.revision)
    names = load_config(classifier.model, revision).id2label
    labels = sorted(str(label) for label in names.values())
    if str(classifier.label).lower() not in [label.lower() for label in labels]:
        raise ConfigError(
            f"classifier.label: {classifier.model} has no {classifier.label!r}; it has {labels}."
        )
    return {"model": classifier.model, "revision": revision, "label": classifier.label}
