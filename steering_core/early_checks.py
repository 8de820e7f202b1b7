"""Checks of an experiment of either half before its weights are downloaded.

They find a wrong lexicon, too few rows and texts that are too long in seconds, not after gigabytes.
Each check raises or does nothing. So no result depends on this module, and the code digests leave
it out (:mod:`steering_core.runtime.digest`): an edit here, or of what is called here, fetches
nothing again. The stages that need the tables build them anew, with the settings of then.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from steering_core.config.model import Model
from steering_core.config.task import Task
from steering_core.data.concept import read_concept
from steering_core.hub.errors import retry_while_unavailable
from steering_core.models.resources import fetched_tokenizer

if TYPE_CHECKING:
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


def check_examples(
    rows: pd.DataFrame,
    task: Task,
    concept: str | Path,
    settings: "Settings",
    model: Model,
    resources: dict[str, Any],
) -> None:
    """Build the table of examples and discard it.

    Args:
        rows: labelled rows of the dataset.
        task: section of the configuration.
        concept: path of the concept file.
        settings: of the table of examples.
        model: section of the configuration.
        resources: what the fetch stage found; its weights need not be here.

    Raises:
        DataError, ConfigError: as :func:`steering_core.data.build.build_examples`.
    """
    from steering_core.data.build import build_examples
    from steering_core.models.tokens import token_counter

    tokenizer = retry_while_unavailable(lambda: fetched_tokenizer(model, resources))
    build_examples(
        rows,
        read_concept(concept),
        settings,
        token_counter(tokenizer, prepend_bos=resources["saes"][0]["prepend_bos"]),
        questions=task.question is not None,
        context=resources["shape"]["context"],
    )


def check_items(
    items: pd.DataFrame,
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
    from steering_core.corrsteer.sites import wants_bos
    from steering_core.corrsteer.tasks import find_task

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
