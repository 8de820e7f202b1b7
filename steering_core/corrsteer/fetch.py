"""Pin, download and check what a CorrSteer experiment takes from outside."""

from typing import TYPE_CHECKING, Any

from steering_core.config.model import Model
from steering_core.corrsteer.tasks import Task
from steering_core.errors import ConfigError
from steering_core.hub.revisions import pin
from steering_core.models.fetch import describe_model
from steering_core.models.language_model import load_shape
from steering_core.models.pins import pinned_sae
from steering_core.models.sae_source import layers_with_sae, no_such_sae
from steering_core.models.sparse_autoencoder import load_sae
from steering_core.models.weights import fetch_weights

if TYPE_CHECKING:
    from steering_core.config.corrsteer_schema import CorrSteerSettings


def describe_run(model: Model, task: Task, given: "CorrSteerSettings") -> dict[str, Any]:
    """Pin everything, check it by the configurations, which are small, and return what was found.

    Layers are 1 to L − 1 as published, or those configured; those without an SAE are among the
    results.

    Raises:
        ConfigError: if a configured layer has no SAE, or no layer has one, or lengths do not fit
            the context.
        ModelError: if something cannot be loaded, with what to do.
    """
    shape = load_shape(model)
    available = layers_with_sae(model.sae, shape.n_layers)
    if not available:
        raise no_such_sae(model.sae, "{layer}")
    wanted = list(range(1, shape.n_layers)) if given.layers == "all" else sorted(given.layers)
    missing = [layer for layer in wanted if layer not in available]
    if missing and given.layers != "all":
        raise ConfigError(f"layers: there is no SAE for {missing}; there are {available}.")
    new_tokens = given.new_tokens or task.length(reasoned=given.chain_of_thought)
    max_tokens = given.max_tokens or shape.context - new_tokens
    if max_tokens + new_tokens > shape.context:
        raise ConfigError(
            f"max_tokens {max_tokens} and {new_tokens} new tokens exceed the context "
            f"{shape.context} of {model.id}: lower one of them."
        )
    layers = [layer for layer in wanted if layer in available]
    if not layers:
        raise ConfigError(
            f"layers: {available} is the only layer with an SAE, and `all` begins at layer 1: name "
            "it in `layers`."
        )
    classifier = task.success.classifier
    return {
        **describe_model(model, shape, layers, max_tokens=max_tokens, new_tokens=new_tokens),
        "classifier": classifier and {"model": classifier, "revision": pin(classifier, "main")},
        "layers_without_sae": missing,
        "max_tokens": max_tokens,
    }


def download_run(model: Model, task: Task, found: dict[str, Any]) -> None:
    """Download the weights of what :func:`describe_run` found, the smallest first.

    Raises:
        ModelError: if something cannot be loaded, with what to do.
    """
    if found["classifier"] is not None:
        revision = found["classifier"]["revision"]
        fetch_weights(found["classifier"]["model"], revision)
        task.success.load(revision, "cpu")
    for layer in found["layers"]:  # one layer in memory at a time
        load_sae(model.sae, layer)
    pinned_sae(model, found)  # sae-lens took what is `main` by now
    fetch_weights(found["model"]["id"], found["model"]["revision"])
