"""Turn a concept set of AxBench into data, concept files and experiments of this workflow.

AxBench (Wu et al. 2025, section 3) has 72 answers that show a concept, each written by a large
model to an instruction, and 216 ordinary answers that all concepts share. A concept becomes a
task like any other: its answers are class 1, as many ordinary answers are class 0.

``python -m steering_core.data.axbench SET --model gemma_it --out resources/axbench`` writes, for
each concept, a table of texts and a concept file, and one configuration with all experiments:

    snakemake --cores 8 results/axbench_0/pareto.csv --configfile resources/axbench/config.yaml

With a judge behind a server, ``results/tables/axbench_SET.csv`` averages over the concepts.

The instructions to which texts are generated come from AxBench's evaluation file: none is the
instruction of a text that a direction is fitted on. Some select a strength, the others are
reported.
"""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from steering_core.config.methods import DEFAULT_METHODS, LORA
from steering_core.config.task import Endpoint
from steering_core.config.validation import validated
from steering_core.data.columns import normal_form
from steering_core.errors import DataError
from steering_core.storage.files import write_text
from steering_core.storage.parquet import write_parquet

#: The two files of a set that are read, and their columns.
TRAIN, EVALUATION = "train_data.parquet", "latent_eval_data.parquet"
COLUMNS = ("input", "output", "output_concept", "category", "concept_id")

#: The concept id of the ordinary answers, which every concept shares.
ORDINARY = -1

#: Texts that make contrastive pairs, and neutral texts that follow a persona.
PAIRS, QUERIES = 20, 10


@dataclass(frozen=True)
class ConceptSet:
    """The texts of one concept.

    Attributes:
        concept_id: number of the concept in its set.
        concept: the concept in words.
        rows: columns ``text``, ``label`` and ``instruction``; class 1 shows the concept. Rows of
            one instruction belong together.
        texts: content of the concept file.
    """

    concept_id: int
    concept: str
    rows: pd.DataFrame
    texts: dict[str, Any]


def read_concepts(
    folder: str | Path, *, n_prompts: int, n_validation_prompts: int
) -> list[ConceptSet]:
    """Read a set: a folder with AxBench's two Parquet files.

    Args:
        folder: of the set.
        n_prompts: instructions that are reported.
        n_validation_prompts: further instructions, which select a strength.

    Raises:
        DataError: if a file or column is missing, a concept has no text, or there are too few
            instructions.
    """
    train, evaluation = (_read(Path(folder) / name) for name in (TRAIN, EVALUATION))
    ordinary = train[train["concept_id"] == ORDINARY]
    used = {normal_form(text) for column in ("input", "output") for text in train[column]}
    asked = _distinct(evaluation["input"], used)
    wanted = n_prompts + n_validation_prompts + QUERIES
    if len(asked) < wanted:
        raise DataError(
            f"{folder}: {len(asked)} instructions of {EVALUATION} are not in {TRAIN}; {wanted} are "
            "needed: ask for fewer prompts."
        )
    reported, rest = asked[:n_prompts], asked[n_prompts:]
    validation, queries = rest[:n_validation_prompts], rest[n_validation_prompts:wanted]
    concepts = train.loc[train["concept_id"] != ORDINARY, ["concept_id", "output_concept"]]
    found = []
    for number, concept in concepts.drop_duplicates().itertuples(index=False):
        shown = train[train["concept_id"] == number]
        if len(shown) <= PAIRS or len(ordinary) < len(shown):
            raise DataError(
                f"{folder}: concept {number} has {len(shown)} answers, beside {len(ordinary)} "
                f"ordinary ones; more than {PAIRS}, and as many ordinary ones, are needed."
            )
        plain = ordinary.head(len(shown))
        pairs = zip(shown["output"].head(PAIRS), plain["output"].head(PAIRS), strict=True)
        rows = pd.concat([shown.iloc[PAIRS:], plain.iloc[PAIRS:]], ignore_index=True)
        found.append(
            ConceptSet(
                int(number),
                concept,
                pd.DataFrame(
                    {
                        "text": rows["output"],
                        "label": (rows["concept_id"] == number).astype(int),
                        "instruction": rows["input"],
                    }
                ),
                {
                    "concept": f"axbench_{number}",
                    "description": concept,
                    "prompts": reported,
                    "validation_prompts": validation,
                    "contrast": [{"positive": a, "negative": b} for a, b in pairs],
                    "personas": {
                        "positive": f"Show this idea in what you write: {concept}. ",
                        "negative": "Write plainly, about nothing but what is asked. ",
                    },
                    "queries": queries[:QUERIES],
                },
            )
        )
    return found


def write_experiments(
    sets: Sequence[ConceptSet],
    out: str | Path,
    model: str,
    *,
    judge: dict[str, Any] | None = None,
    concept_set: str | None = None,
    lora: bool = False,
) -> Path:
    """Write tables, concept files and ``config.yaml`` with a task and experiment per concept.

    Args:
        sets: as :func:`read_concepts` returns them.
        out: folder of the files; the configuration names them by this path.
        model: of the workflow's configuration.
        judge: the ``classifier`` of every task, without its ``concept``; None for the evaluation
            probe.
        concept_set: name of the set, for the table over its concepts; None for no such table.
        lora: whether the method ``lora`` runs too, which trains an adapter for each concept.

    Returns:
        The path of the configuration.
    """
    out = Path(out)
    tasks, experiments = {}, {}
    for one in sets:
        name = f"axbench_{one.concept_id}"
        write_parquet(out / f"{name}.parquet", one.rows)
        write_text(
            out / f"{name}.yaml", yaml.safe_dump(one.texts, sort_keys=False, allow_unicode=True)
        )
        tasks[name] = {
            "dataset": str(out / f"{name}.parquet"),
            "text": "text",
            "label": "label",
            "group": "instruction",
            "concept": str(out / f"{name}.yaml"),
            "settings": {
                "rows_per_class": int((one.rows["label"] == 1).sum()),
                "n_prompts": len(one.texts["prompts"]),
                "n_validation_prompts": len(one.texts["validation_prompts"]),
                "long_texts": "truncate",
                "chat_template": "auto",  # the texts are instructions, whatever the model's setting
            },
        }
        if lora:
            tasks[name]["settings"]["methods"] = [*DEFAULT_METHODS, LORA]
        if concept_set is not None:
            tasks[name]["concept_set"] = concept_set
        if judge is not None:
            tasks[name]["classifier"] = {"api": {**judge, "concept": one.concept}}
        experiments[name] = {"model": model, "task": name}
    path = out / "config.yaml"
    configuration = {"tasks": tasks, "experiments": experiments}
    write_text(path, yaml.safe_dump(configuration, sort_keys=False, allow_unicode=True))
    return path


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"{path} is missing: name the folder of one concept set of AxBench.")
    table = pd.read_parquet(path)
    if lacking := [name for name in COLUMNS if name not in table.columns]:
        raise DataError(f"{path}: columns {', '.join(lacking)} are missing.")
    return table


def _distinct(texts: pd.Series, used: set[str]) -> list[str]:
    """Return the texts that are not ``used``, each once, with white space made single spaces."""
    found: dict[str, str] = {}
    for text in texts:
        found.setdefault(normal_form(text), re.sub(r"\s+", " ", text).strip())
    return [text for form, text in found.items() if form and form not in used]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Turn a concept set of AxBench into experiments.")
    parser.add_argument("set", help="folder with train_data.parquet and latent_eval_data.parquet")
    parser.add_argument("--model", required=True, help="a model of the configuration")
    parser.add_argument("--out", required=True, help="folder of the files to write")
    parser.add_argument("--prompts", type=int, default=50, help="instructions that are reported")
    parser.add_argument("--validation-prompts", type=int, default=20)
    parser.add_argument("--concepts", type=int, nargs="*", help="numbers; by default all")
    parser.add_argument("--judge-url", help="an OpenAI-compatible server")
    parser.add_argument("--judge-model", help="the model's name on that server")
    parser.add_argument("--lora", action="store_true", help="train a LoRA adapter for each, too")
    given = parser.parse_args(arguments)
    if (given.judge_url is None) != (given.judge_model is None):
        parser.error("give both --judge-url and --judge-model, or neither")
    sets = read_concepts(
        given.set, n_prompts=given.prompts, n_validation_prompts=given.validation_prompts
    )
    if given.concepts is not None:
        known = [one.concept_id for one in sets]
        if unknown := [number for number in given.concepts if number not in known]:
            parser.error(f"no concept {unknown}; the set has {known}")
        sets = [one for one in sets if one.concept_id in given.concepts]
    judge = given.judge_url and {"url": given.judge_url, "model": given.judge_model}
    if judge:
        validated(Endpoint, judge, "--judge-url and --judge-model")  # no key into a file
    name = Path(given.set).resolve().name if judge else None  # the table needs ratings
    about = {"judge": judge or None, "concept_set": name, "lora": given.lora}
    print(write_experiments(sets, given.out, given.model, **about))


if __name__ == "__main__":
    main()
