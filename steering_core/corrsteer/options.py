"""Options that only some tasks can follow: the others go on without, and say so."""

import logging

from steering_core.corrsteer.item import Task

log = logging.getLogger(__name__)

#: Which tasks can follow an option, and what is to be said of the others.
OPTIONS = {
    "published_prompt": (
        lambda task: task.published_read is not None,
        "the prompt is the published one already",
    ),
    "published_split": (
        lambda task: task.source.test is None,
        "the dataset has a test split of its own",
    ),
    "restrict_options": (lambda task: task.is_select, "answers are free text"),
}


def follows(option: str, task: Task, *, asked: bool) -> bool:
    """Return whether an option is asked for and of use; log where it is asked for in vain."""
    applies, why = OPTIONS[option]
    if asked and not applies(task):
        log.warning("%s changes nothing for the task %s: %s", option, task.name, why)
    return asked and applies(task)
