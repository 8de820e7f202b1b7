"""Checks of a run before its download; an edit of them makes nothing stale.

As :mod:`steering_core.data.early_checks`.
"""

from typing import Any

import pandas as pd

from steering_core.config.corrsteer_task import CorrSteerTask
from steering_core.config.model import Model
from steering_core.config.view import SettingsView
from steering_core.corrsteer.examples import build_examples
from steering_core.corrsteer.read_items import source_of
from steering_core.corrsteer.sites import wants_bos
from steering_core.corrsteer.tasks import find_task
from steering_core.models.hub import persistently
from steering_core.models.language_model import load_tokenizer
from steering_core.models.resources import pinned_model


def check_examples(
    items: pd.DataFrame,
    entry: CorrSteerTask,
    settings: SettingsView,
    model: Model,
    resources: dict[str, Any],
    seed: int,
) -> None:
    """Make the table of examples of one seed and forget it.

    Args:
        items: rows of the task.
        entry: of the task in the configuration.
        settings: of the table of examples.
        model: section of the configuration.
        resources: what was found of it; its weights need not be here.
        seed: of the run; those of others have as many rows.

    Raises:
        DataError: as :func:`steering_core.corrsteer.examples.build_examples`.
        ModelError: if the SAEs differ in BOS.
    """
    task = find_task(entry.task)
    build_examples(
        items,
        task,
        source_of(entry, task),
        settings,
        persistently(lambda: load_tokenizer(pinned_model(model, resources))),
        seed=seed,
        prepend_bos=wants_bos(resources),
        max_tokens=resources["max_tokens"],
    )
