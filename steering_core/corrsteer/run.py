"""What the stages of one run share: model, task, decoding and classifier, set up alike."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from steering_core.corrsteer.decoding import Decoding
from steering_core.corrsteer.sites import run_sites, wants_bos
from steering_core.corrsteer.tasks import Task, find_task, follows
from steering_core.errors import ModelError
from steering_core.models.language_model import LanguageModel
from steering_core.models.resources import fetched_model
from steering_core.models.site import Site

if TYPE_CHECKING:
    from steering_core.config.corrsteer_schema import CorrSteerSettings


@dataclass(frozen=True)
class Run:
    """A loaded model with everything it takes to answer and judge."""

    lm: LanguageModel
    task: Task
    how: Decoding
    classifier: Any
    reasoned: bool
    sites: dict[int, Site]


def open_run(
    model: dict[str, Any],
    entry: dict[str, Any],
    given: "CorrSteerSettings",
    resources: dict[str, Any],
    *,
    batch_rows: int | None = None,
) -> Run:
    """Load model and classifier at the fetched revisions.

    Raises:
        ModelError: if something cannot be loaded.
    """
    task = find_task(entry["task"])
    sites = run_sites(resources, published=given.published_site)
    classifier = None
    if task.success.classifier is not None:
        if resources["classifier"] is None:
            raise ModelError(f"{task.success.classifier} was not fetched: run the fetch rule.")
        classifier = task.success.load(resources["classifier"]["revision"], given.device)
    return Run(
        lm=fetched_model(model, resources, given.device),
        task=task,
        how=Decoding(
            new_tokens=given.new_tokens or task.length(reasoned=given.chain_of_thought),
            batch_rows=batch_rows or given.batch_rows,
            restrict_options=follows("restrict_options", task, asked=given.restrict_options),
            prepend_bos=wants_bos(resources),
            chat_template=given.chat_template,
        ),
        classifier=classifier,
        reasoned=given.chain_of_thought,
        sites=sites,
    )
