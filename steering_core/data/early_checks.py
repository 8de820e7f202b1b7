"""Checks of an experiment before its download.

They raise or do nothing, so that an edit of them, or of what they use, makes nothing stale: the
digests of code do not look into files of this name.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from steering_core.config.model import Model
from steering_core.config.task import Task
from steering_core.config.view import SettingsView
from steering_core.data.build import build_examples
from steering_core.data.concept import read_concept
from steering_core.metrics.judges import read_lexicon
from steering_core.models.hub import persistently
from steering_core.models.token_counts import token_counter


def check_lexicon(task: Task) -> None:
    """Read the lexicon that judges the texts, if one does.

    Raises:
        DataError: if it is not there or not one.
    """
    if task.classifier is not None and task.classifier.lexicon is not None:
        read_lexicon(task.classifier.lexicon)


def check_examples(
    table: pd.DataFrame,
    task: Task,
    concept: str | Path,
    settings: SettingsView,
    model: Model,
    resources: dict[str, Any],
) -> None:
    """Make the table of examples and forget it: rows too few and texts too long are found here.

    Args:
        table: the dataset.
        task: what is read of it.
        concept: file of prompts.
        settings: of the table of examples.
        model: section of the configuration.
        resources: what was found of it; its weights need not be here.

    Raises:
        DataError: as :func:`steering_core.data.build.build_examples`.
    """
    build_examples(
        table,
        task,
        read_concept(concept),
        settings,
        persistently(lambda: token_counter(model, resources)),
        context=resources["shape"]["context"],
    )
