# Shared by the rules that train SAEs, and by those that read them.
from pathlib import Path

from steering_core.config.corrsteer_resolve import load_trained
from steering_core.config.prepared_models import with_directory
from steering_core.errors import ConfigError

#: Models whose SAEs the rules train, by name.
TRAINED = {name: with_directory(found) for name, found in load_trained(config).items()}


wildcard_constraints:
    model="|".join(TRAINED) or "(?!)",


def trained_model(wildcards):
    """Return the section of a model whose SAEs are trained."""
    return section(TRAINED[wildcards.model])


def trained_saes(found):
    """Return the SAEs of a model that the rules train, and the table of what they are worth."""
    layers = found.model.sae.train.layers
    saes = [found.model.sae.path.format(layer=layer) for layer in layers]
    return [*saes, f"{Path(found.model.sae.path).parent}.csv"]


def table_of_saes(wildcards):
    """Return the table of what an experiment's SAEs are worth, if the rules trained them."""
    found = experiment(wildcards).model
    return [] if found.sae.train is None else [f"{Path(found.sae.path).parent}.csv"]


def training_sources(wildcards):
    """Return the model and the datasets of a training that are local or made by other rules."""
    found = TRAINED[wildcards.model]
    return there([found.id, *(texts.dataset for texts in found.sae.train.texts)])


def without_one_layer(wildcards):
    """Refuse a request for the SAE of one layer: the table keeps the cache until all are trained."""
    table = f"results/models/{wildcards.model}/sparse_autoencoders.csv"
    alone = f"{Path(table).with_suffix('')}/layer_{wildcards.layer}"
    if targets_known():
        asked = set(map(str, workflow.dag_settings.targets))
        if asked & {alone, f"{alone}.json"} and table not in asked:
            raise ConfigError(
                f"{alone} is not made alone: ask for {table}. To train fewer layers, list fewer "
                "in sae.train.layers; one that is there is not trained again."
            )


def without_layers_beyond(wildcards):
    """Refuse SAEs of layers that the demo's language model will not have, before it is trained."""
    for name, found in TRAINED.items():
        beyond = [layer for layer in found.sae.train.layers if layer >= DEMO.n_layers]
        if beyond and found.id == rules.demo_language_model.output.model:
            raise ConfigError(
                f"models.{name}.sae.train.layers: {beyond[0]} is out of range, as "
                f"demo_world.n_layers is {DEMO.n_layers}: list layers below it, or raise it."
            )


def training(*names):
    """Return a parameter with the named keys of `sae.train`."""
    return lambda wildcards: TRAINED[wildcards.model].sae.train.model_dump(include={*names})


def training_device(wildcards):
    """Return the device of all experiments, as a training belongs to none of them."""
    return config.get("device", config.get("settings", {}).get("device", "auto"))


def gpus_for_training(wildcards):
    """Return the number of GPUs of a job that trains SAEs or fills their cache."""
    return gpus_of(training_device(wildcards))
