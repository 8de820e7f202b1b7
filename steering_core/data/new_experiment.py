"""Write the files of a new experiment, with every key explained: ``python -m`` this module.

The configuration goes to ``--configfile``. Beside it stands the concept file with every role.
``snakemake -n`` with both lists what is still to be filled in, all at once.
"""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from steering_core.data.sources import is_file, numbers_from_text, read_file
from steering_core.errors import ConfigError, SteeringError
from steering_core.storage.files import write_text

_MODEL = "org/model"
_SAE = "saes/layer_{layer}"
#: The word that stands for SAEs which do not exist yet.
_TRAIN = "train"
_DATA = "data/texts.csv"
#: Columns that are recognised in a dataset, the likeliest name first.
_TEXTS, _LABELS = ("text", "sentence", "review", "comment"), ("label", "class", "sentiment")

_CONFIGURATION = """\
# The experiment {name}. Fill in what is in capitals or does not exist yet, then
#   snakemake -n results/{experiment}/index.html --configfile {file}
# lists everything that is wrong, without a job. Without -n and with `--cores 2` it runs.
# All other settings are in config.yaml, with a comment each; any of them may stand below.
models:
  {name}:
    id: {model}  # hub id, local directory or GGUF file of a causal language model
    sae:
{sae}
    # dtype: bfloat16  # on a GPU: half the memory. The default is float32
    settings:
      layer: auto  # the layer to steer, by number; auto picks one by its probe and its SAE
      chat_template: {chat_template}

tasks:
  {name}:
    dataset: {data}  # .csv, .jsonl or .parquet file, local directory, or hub id
    # split: train  # of a dataset on the hub
    text: {text}  # the column of texts{columns}
    label: {label}  # the column of classes, 0 and 1 or two names
    {positive}
    # threshold: 0.5  # class 1 is a score of at least this, if the labels are scores
    # group: author  # rows with an equal value are never divided between splits
    target_class: 1  # the class to steer to; 0 steers the other way
    concept: {concept}
    # A judge of the generated texts outside the model. Without one, a probe of the model judges,
    # which is weaker evidence.
    # classifier: {{model: ORG/CLASSIFIER, label: NAME_OF_CLASS_1}}
    # classifier: {{builtin: vader}}  # sentiment of English texts
    # classifier: {{lexicon: FILE.json}}  # {{"positive": [words], "negative": [words]}}

experiments:
  {experiment}:
    model: {name}
    task: {name}
    settings:
      rows_per_class: 200  # at most; the rows of both classes are made equal
      n_prompts: {n_prompts}  # reported; the concept file must have as many
      n_validation_prompts: {n_validation}  # further prompts, to select a strength of each method
      new_tokens: 32  # of a continuation
      draws: 1  # texts of each prompt at each strength
      # methods: [no_steering, random_direction, caa_mean_diff, qp_optimal]  # default: all but lora
"""

#: Where the SAEs come from: those that are there, and those that the rules train.
_THERE = """\
      path: {path}  # local SAEs of sae-lens, a directory a layer
      # or of the hub:  release: gemma-scope-2b-pt-res-canonical
      #                 id: "layer_{{layer}}/width_16k/canonical"
      # or none yet:    the command that wrote this file takes `--sae train`"""

_TRAINED = """\
      train:  # the rules train them; or `path` of local ones, or `release` and `id` (README)
        layers: [{layer}]  # layers to train an SAE for, from 0 on{whose}
        d_sae: {d_sae}  # features; four times the width of the model is a common choice{whose}
        k: 32  # mean number of active features of a token
        tokens: 500000  # different tokens, a tenth more is held out; docs/models.md has more keys
        texts:  # general text. The texts of a task alone are seldom enough
          - {{dataset: Salesforce/wikitext, subset: wikitext-103-raw-v1, split: train, text: text}}
          # - {{dataset: {data}, text: {text}}}"""

#: Whether texts are read in the model's chat template: with SAEs from elsewhere, and with own ones.
_AUTO = "auto  # texts are the user's turn, if the tokenizer has a chat template"
_PLAIN = "false  # the SAEs are trained on plain texts"

_CONCEPT = """\
# The texts that define the concept. Class 1 is the class that shows it. These are examples on
# sentiment: replace them by texts on your concept. No text may stand in two roles.
concept: {name}
description: "Favourable (1) against unfavourable (0) opinion."

# Openings that the model continues. They are reported, so they should leave the concept open.
# At least as many as `n_prompts`; 50 give intervals that are narrow enough to compare methods.
prompts:
  - "The movie was"
  - "The acting in this film felt"
  - "My meal at the restaurant was"
  - "The soup they served us tasted"
  - "Our room at the hotel looked"
  - "The view from the balcony was"
  - "I finished the book and felt"
  - "My day at the office was"
  - "The headphones I ordered are"
  - "The battery of this phone"

# More openings, at least `n_validation_prompts`. A strength of each method is selected on them,
# and nothing is reported of them.
validation_prompts:
  - "The concert last night was"
  - "The train ride turned out"
  - "The garden behind the house"
  - "My first week here has been"

# Pairs of texts that differ in the concept alone: positive is class 1. Two at least, better 20.
# They give the contrastive direction (`caa_contrastive`).
contrast:
  - positive: "The plot was clever and kept me guessing."
    negative: "The plot was dull and bored me quickly."
  - positive: "The staff were kind and quick to help."
    negative: "The staff were rude and slow to help."
  - positive: "This lamp works well and looks lovely."
    negative: "This lamp works badly and looks cheap."

# Two prefixes that are put before every query: a persona of class 1 and one of class 0. With the
# queries they give the RepE direction (`caa_repe`).
personas:
  positive: "Reply as someone who is delighted with everything. "
  negative: "Reply as someone who is disappointed with everything. "

# Neutral texts that follow a persona. Two at least, better 20.
queries:
  - "What did you think of the lecture?"
  - "How is the new train station?"
  - "Describe the weather of last week."
"""


def write_experiment(
    experiment: str,
    out: str | Path = "experiments",
    *,
    model: str = _MODEL,
    sae: str = _SAE,
    data: str = _DATA,
) -> tuple[Path, Path]:
    """Write ``{experiment}.yaml`` and ``{experiment}_concept.yaml`` and return their paths.

    Args:
        experiment: its name.
        out: folder of the files.
        model: hub id, directory or GGUF file.
        sae: directory of the SAEs, with ``{layer}``, or ``train`` for SAEs that the rules train. Of
            a model in a directory, the middle layer is taken, and four times its width.
        data: the dataset. Columns and labels of a file that is there are read.

    Raises:
        ConfigError: if the name is no name, or a file exists.
        DataError: if the data are a file that cannot be read.
    """
    _check_name(experiment)
    configuration = Path(out) / f"{experiment}.yaml"
    concept = Path(out) / f"{experiment}_concept.yaml"
    for file in (configuration, concept):
        if file.exists():
            raise ConfigError(f"{file} exists: delete it, or choose another name or --out.")
    text, label, columns, positive = _columns(data)
    texts = _CONCEPT.format(name=experiment)
    write_text(concept, texts)
    write_text(
        configuration,
        _CONFIGURATION.format(
            name=experiment,
            experiment=experiment,
            file=configuration,
            model=_quoted(model),
            sae=_saes(sae, model, data, text),
            chat_template=_PLAIN if sae == _TRAIN else _AUTO,
            positive=positive,
            data=_quoted(data),
            text=_quoted(text),
            label=_quoted(label),
            columns=columns,
            concept=_quoted(str(concept)),
            n_prompts=_listed(texts, "prompts"),
            n_validation=_listed(texts, "validation_prompts"),
        ),
    )
    return configuration, concept


def _check_name(experiment: str) -> None:
    """Refuse a name that YAML reads as another type, or that the shipped configuration has.

    ``--configfile`` is merged into ``config.yaml``, so that a section of the same name would keep
    its settings wherever the new one gives none.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", experiment) or not isinstance(
        yaml.safe_load(experiment), str
    ):
        raise ConfigError(
            f"{experiment!r} is no name of an experiment: letters, digits, _ and -, a letter "
            "first, and no word that YAML reads as a value (on, off, yes, no, true, false, null)."
        )
    shipped = Path("config.yaml")
    if not shipped.is_file():
        return
    raw = yaml.safe_load(shipped.read_text(encoding="utf-8"))
    kinds = ("models", "tasks", "experiments")
    named = {f"{kind}.{name}": name for kind in kinds for name in raw.get(kind) or {}}
    clashes = [where for where, name in named.items() if name.lower() == experiment.lower()]
    if clashes:
        raise ConfigError(
            f"config.yaml has {' and '.join(clashes)}, whose settings would be mixed with those of "
            f"the new file: choose another name, such as my_{experiment}."
        )


def _quoted(value: str) -> str:
    """Return a value as YAML reads it; in quotes if it would be read as something else."""
    plain = re.fullmatch(r"[A-Za-z0-9_./-]+", value) and yaml.safe_load(value) == value
    return value if plain else json.dumps(value, ensure_ascii=False)


def _listed(texts: str, key: str) -> int:
    """Return how many entries a list of the concept file has."""
    section = texts.split(f"\n{key}:\n")[1].split("\n\n")[0]
    return section.count("  - ")


def _saes(sae: str, model: str, data: str, text: str) -> str:
    """Return the lines of the section ``sae``."""
    if sae != _TRAIN:
        return _THERE.format(path=json.dumps(sae, ensure_ascii=False))
    n_layers, width, whose = 12, 768, "; THIS IS FOR GPT-2"
    configuration = Path(model) / "config.json"
    if configuration.is_file():
        whole = json.loads(configuration.read_text(encoding="utf-8"))
        own, whose = whole.get("text_config", whole), ""
        n_layers = own.get("num_hidden_layers", own.get("n_layer", n_layers))
        width = own.get("hidden_size", own.get("n_embd", width))
    return _TRAINED.format(
        layer=n_layers // 2, d_sae=4 * width, whose=whose, data=_quoted(data), text=_quoted(text)
    )


def _columns(data: str) -> tuple[str, str, str, str]:
    """Return the likely columns of text and label, and what a local file says of both.

    The third is a remark that names all columns. The fourth is the line of ``positive_label``. It
    is a comment unless the labels are two names.
    """
    positive = "# positive_label: POSITIVE  # the name of class 1, if the labels are not 0 and 1"
    if not is_file(data) or not Path(data).is_file():
        return _TEXTS[0], _LABELS[0], "", positive
    rows = read_file(data)
    text, label = (
        next((name for name in likely if name in rows), likely[0]) for likely in (_TEXTS, _LABELS)
    )
    labels = []
    if label in rows:
        labels = sorted(numbers_from_text(rows[label]).dropna().unique().tolist(), key=str)
    if len(labels) == 2 and all(isinstance(one, str) for one in labels):
        first, second = (json.dumps(name, ensure_ascii=False) for name in labels)
        remark = f"the name of class 1; the file has {first} and {second}"
        positive = f"positive_label: {second}  # {remark}"
    return text, label, f"; the file has {', '.join(map(_quoted, rows))}", positive


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Write the files of a new experiment.")
    parser.add_argument("name", help="name of the experiment; its results are in results/NAME")
    parser.add_argument("--model", default=_MODEL, help="hub id, directory or GGUF file")
    parser.add_argument(
        "--sae",
        default=_SAE,
        help="directory of the SAEs, with {layer}; or `train`, to have the rules train them",
    )
    parser.add_argument("--data", default=_DATA, help="a .csv, .jsonl or .parquet file, or hub id")
    parser.add_argument("--out", default="experiments", help="folder of the files to write")
    given = parser.parse_args(arguments)
    try:
        configuration, concept = write_experiment(
            given.name, given.out, model=given.model, sae=given.sae, data=given.data
        )
    except SteeringError as error:
        parser.error(str(error))
    target = f"results/{given.name}/index.html --configfile {configuration}"
    print(f"Wrote {configuration} and {concept}. Fill them in. Then")
    print(f"  snakemake -n {target}    # lists all that is wrong, without a job")
    print(f"  snakemake --cores 2 {target}")


if __name__ == "__main__":
    main()
