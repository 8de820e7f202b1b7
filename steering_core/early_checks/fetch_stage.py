"""Checks that the fetch stages make before the weights of a model are downloaded.

They find a wrong lexicon, too few rows and texts that are too long in seconds, not after gigabytes.
The stages that need the tables build them again, with the settings of their own run.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steering_core.config.model import Model
from steering_core.config.task import Task
from steering_core.config.validation import hint
from steering_core.data.concept import read_concept
from steering_core.errors import ConfigError, ModelError

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PretrainedConfig

    from steering_core.config.corrsteer_schema import CorrSteerSettings, CorrSteerTask
    from steering_core.config.schema import Settings


def check_lexicon(task: Task) -> None:
    """Read the lexicon that judges completions, if there is one.

    Raises:
        ConfigError: as :func:`steering_core.metrics.judges.read_lexicon`.
    """
    from steering_core.metrics.judges import read_lexicon

    for judge in task.judges:
        if judge.lexicon is not None:
            read_lexicon(judge.lexicon)


def check_effect_layers(wanted: Sequence[int], found: Sequence[int]) -> None:
    """Refuse a layer of ``effect_layers`` that has no SAE.

    Args:
        wanted: layers to try.
        found: layers of the model that are cached and have an SAE.

    Raises:
        ConfigError: naming the first such layer.
    """
    missing = [layer for layer in wanted if layer not in found]
    if missing:
        raise ConfigError(
            f"effect_layers: layer {missing[0]} has no SAE; layers that have one: "
            f"{', '.join(map(str, found))}"
        )


def check_examples(
    rows: "pd.DataFrame",
    task: Task,
    concept: str | Path,
    settings: "Settings",
    model: Model,
    resources: dict[str, Any],
) -> None:
    """Build the tables of examples and of prompts and discard them.

    Args:
        rows: labelled rows of the dataset.
        task: section of the configuration.
        concept: path of the concept file.
        settings: of both tables.
        model: section of the configuration.
        resources: what the fetch stage found; its weights need not be here.

    Raises:
        DataError, ConfigError: as :func:`steering_core.data.build.build_examples` and
            :func:`steering_core.data.build.build_prompts`.
    """
    from steering_core.data.build import build_examples, build_prompts
    from steering_core.hub.errors import retry_while_unavailable
    from steering_core.models.resources import fetched_tokenizer
    from steering_core.models.tokens import token_counter, uses_chat_template

    tokenizer = retry_while_unavailable(lambda: fetched_tokenizer(model, resources))
    count_tokens = token_counter(
        tokenizer,
        prepend_bos=resources["saes"][0]["prepend_bos"],
        chat_template=uses_chat_template(settings.chat_template, tokenizer),
    )
    texts, questions = read_concept(concept), task.question is not None
    context = resources["shape"]["context"]
    build_examples(rows, texts, settings, count_tokens, questions=questions)
    build_prompts(texts, settings, count_tokens, new_tokens=settings.new_tokens, context=context)


def check_items(
    items: "pd.DataFrame",
    entry: "CorrSteerTask",
    settings: "CorrSteerSettings",
    model: Model,
    resources: dict[str, Any],
    seed: int,
) -> None:
    """Build CorrSteer's table of examples for one seed and discard it.

    Args:
        items: rows of the task.
        entry: the task in the configuration.
        settings: of the table of examples.
        model: section of the configuration.
        resources: what the fetch stage found; its weights need not be here.
        seed: of the run; every other seed has as many rows.

    Raises:
        DataError: as :func:`steering_core.corrsteer.examples.build_examples`.
        ModelError: if the SAEs differ in BOS.
    """
    from steering_core.corrsteer.examples import build_examples
    from steering_core.corrsteer.read_items import source_of
    from steering_core.corrsteer.tasks import find_task
    from steering_core.hub.errors import retry_while_unavailable
    from steering_core.models.resources import fetched_tokenizer, wants_bos

    task = find_task(entry.task)
    build_examples(
        items,
        task,
        source_of(entry, task),
        settings,
        retry_while_unavailable(lambda: fetched_tokenizer(model, resources)),
        seed=seed,
        prepend_bos=wants_bos(resources),
        max_tokens=resources["max_tokens"],
    )


def check_adapter(settings: "Settings", name: str, revision: str | None) -> None:
    """Refuse ``lora.modules`` that the model does not have. Weights are not read.

    Args:
        settings: of an experiment whose methods name ``lora``.
        name: a local directory, or a model of the hub.
        revision: on the hub; None for a directory.

    Raises:
        ModelError: as :func:`check_linear_modules`.
    """
    if settings.lora.modules == "all-linear":
        return
    from transformers import AutoConfig

    known = {"local_files_only": True} if revision is None else {"revision": revision}
    check_linear_modules(AutoConfig.from_pretrained(name, **known), settings.lora.modules)


def check_linear_modules(config: "PretrainedConfig", wanted: list[str] | str) -> None:
    """Refuse the name of a module that no linear module of the model has, or ends in.

    Args:
        config: of the model.
        wanted: names as ``lora.modules`` gives them; ``all-linear`` is always there.

    Raises:
        ModelError: naming the first such name, and those there are.
    """
    if wanted == "all-linear":
        return
    names = linear_modules(config)
    ends = sorted({name.rsplit(".", 1)[-1] for name in names})
    for one in wanted:
        if not any(name == one or name.endswith(f".{one}") for name in names):
            raise ModelError(
                f"lora.modules: the model has no linear module {one!r}{hint(one, ends)}; "
                f"there are {', '.join(ends)}"
            )


def linear_modules(config: "PretrainedConfig") -> list[str]:
    """Return the names of the linear modules, without the output head; no weights are made."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    ]
