# Where the inputs of an experiment come from: model, SAEs, dataset and concept, and what the
# tables of texts are made from.
import re
from functools import cache
from glob import glob
from pathlib import Path

from steering_core.config import load_config
from steering_core.config.corrsteer_resolve import load_section
from steering_core.config.prepared_models import GGUF_FOLDER, gguf_path, is_gguf, with_directory
from steering_core.config.references import fixed_part
from steering_core.corrsteer.read_items import configured_task
from steering_core.data.concept import read_concept
from steering_core.storage.integrity import json_digest

#: Settings that determine the table of examples.
EXAMPLE_SETTINGS = [
    "seed",
    "rows_per_class",
    "train_fraction",
    "validation_fraction",
    "test_fraction",
    "probe_folds",
    "max_tokens",
    "long_texts",
    "chat_template",
]

#: Settings that determine the table of prompts.
PROMPT_SETTINGS = [
    "max_tokens",
    "long_texts",
    "chat_template",
    "n_prompts",
    "n_validation_prompts",
]

#: The labelled rows of an experiment, all of them.
DATASET = "results/{experiment}/dataset.parquet"

#: Models given as GGUF files, by the name of the directory that a rule writes for each.
GGUF = {
    Path(with_directory(found).id).name: found
    for found in [*load_config(config)[0].models.values(), *load_section(config).models.values()]
    if is_gguf(found.id)
}


wildcard_constraints:
    gguf="|".join(map(re.escape, GGUF)) or "(?!)",


def gguf_file(wildcards):
    """Return the GGUF file of a directory, if it is on this machine."""
    path = gguf_path(GGUF[wildcards.gguf].id)
    return [str(path)] if path.is_file() else []


def dataset_of(found):
    """Return the dataset of an experiment. A CorrSteer task has one by default."""
    corrsteer = found.name in CORRSTEER
    return configured_task(found.task).source.dataset if corrsteer else found.task.dataset


def there(names):
    """Return the paths among `names` that are there or that a rule makes."""
    paths = [fixed_part(name) for name in names if name]
    return [path for path in paths if made_here(path) or Path(path).exists()]


def weights(directory):
    """Return configuration and weights in a directory of the user: what is overwritten in it
    does not change the time of the directory."""
    files = [*Path(directory).glob("*.json"), *Path(directory).glob("*.safetensors")]
    return [] if made_here(directory) else sorted(map(str, files))


def saes_of_layers(found):
    """Return configuration and weights of the local SAEs of an experiment's layers."""
    path, layers = found.model.sae.path, found.settings.layers
    if path is None:
        return []
    if layers == "all":
        folders = sorted(glob(re.sub(r"\{layer[^}]*\}", "*", path)))
    else:
        folders = [path.format(layer=layer) for layer in layers]
    return [file for folder in folders for file in weights(folder)]


def local_sources(wildcards):
    """Return model, SAEs, dataset and lexicon if they are local files or made by other rules."""
    found = experiment(wildcards)
    lexicons = [judge.lexicon for judge in getattr(found.task, "judges", [])]
    model = with_directory(found.model).id
    names = [model, dataset_of(found), *lexicons]
    if found.model.sae.train is not None:
        return [*there(names), *weights(model), *trained_saes(found)]
    return [*there([*names, found.model.sae.path]), *weights(model), *saes_of_layers(found)]


@cache
def read_concept_file(path, written):
    """Read a concept file; `written` is the time of its last change."""
    return read_concept(path)


def concept_of(wildcards):
    """Return the texts of the concept of an experiment; None until a rule has made its file."""
    path = Path(experiment(wildcards).task.concept)
    return read_concept_file(str(path), path.stat().st_mtime_ns) if path.is_file() else None


def concept_texts(*roles):
    """Return a parameter with a digest of these texts of the concept, not of the whole file.

    Snakemake asks again when a job is ready, so the file is there.
    """

    def digest(wildcards):
        texts = concept_of(wildcards)
        return None if texts is None else json_digest(texts.model_dump(include={*roles}))

    return digest


@cache
def prompts_in(dataset, written, concept, questions):
    """Return the prompts that are also rows of a dataset; `concept` is a file and its time."""
    from pandas import read_parquet

    from steering_core.data.build import prompts_among_rows

    rows = read_parquet(dataset, columns=["text", "group"])
    return prompts_among_rows(rows, read_concept_file(*concept), questions=questions)


def prompts_left_out(wildcards):
    """Return the prompts that are also rows of the dataset, as the examples leave these rows out.

    Before the dataset is fetched nothing is known. Snakemake asks again when the job is ready.
    """
    found, dataset = experiment(wildcards).task, DATASET.format(experiment=wildcards.experiment)
    if not Path(dataset).is_file():
        return []
    times = [Path(path).stat().st_mtime_ns for path in (dataset, found.concept)]
    return prompts_in(dataset, times[0], (found.concept, times[1]), found.question is not None)
