"""A session: a loaded model with what it takes to answer the rows of a task and judge them.

All stages of an experiment open it alike, so that selection, validation and evaluation decode in
the same way.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from steering_core.corrsteer.answers import Decoding, answer, complete
from steering_core.corrsteer.sites import run_sites, wants_bos
from steering_core.corrsteer.tasks import Task, find_task, follows
from steering_core.errors import ModelError
from steering_core.generation.decode import Decoded, Observer
from steering_core.generation.intervention import Intervention
from steering_core.metrics.judges import Verdict
from steering_core.models.language_model import LanguageModel
from steering_core.models.residual_stream import last_token_residuals
from steering_core.models.resources import fetched_model
from steering_core.models.site import Site

if TYPE_CHECKING:
    from steering_core.config.corrsteer_schema import CorrSteerSettings

#: Padded tokens of a batch that is only read.
BATCH_TOKENS = 2048


@dataclass(frozen=True)
class Session:
    """A loaded model with everything it takes to answer and judge.

    Attributes:
        lm: the model.
        task: says what the prompts are and what success is.
        how: options of decoding.
        classifier: what the task's success function loaded; None if it needs none.
        reasoned: whether the prompts ask for reasoning.
        sites: site of each layer.
    """

    lm: LanguageModel
    task: Task
    how: Decoding
    classifier: Any
    reasoned: bool
    sites: dict[int, Site]

    def answer(
        self,
        rows: pd.DataFrame,
        intervention: Intervention | None = None,
        n_features: Int[np.ndarray, " n"] | int | None = None,
    ) -> pd.DataFrame:
        """Answer and judge ``rows``: :func:`steering_core.corrsteer.answers.answer`."""
        return answer(
            self.lm,
            rows,
            self.task,
            self.how,
            self.classifier,
            intervention=intervention,
            n_features=n_features,
            reasoned=self.reasoned,
        )

    def complete(
        self, rows: pd.DataFrame, *, observer: Observer | None = None, cuts: Sequence[int] = ()
    ) -> Iterator[tuple[Decoded, list[str | None]]]:
        """Complete ``rows`` unsteered: :func:`steering_core.corrsteer.answers.complete`."""
        return complete(self.lm, rows, self.how, observer=observer, cuts=cuts)

    def judge(
        self, texts: Sequence[str], golds: Sequence[str], letters: Sequence[Sequence[str]]
    ) -> Verdict:
        """Judge texts by the task's success function."""
        return self.task.success.judge(
            texts, golds, letters, self.classifier, reasoned=self.reasoned
        )

    def residuals(self, texts: list[str], site: Site) -> Float[np.ndarray, "n d_model"]:
        """Return the last-token residuals of ``texts``.

        Raises:
            ModelError: if a residual is NaN or infinite.
        """
        if not texts:
            return np.zeros((0, self.lm.shape.d_model))
        return last_token_residuals(
            self.lm,
            texts,
            site,
            max_tokens=self.lm.shape.context,
            batch_tokens=BATCH_TOKENS,
            control_tokens=self.how.chat_template,
        )


def open_session(
    model: dict[str, Any],
    entry: dict[str, Any],
    settings: "CorrSteerSettings",
    resources: dict[str, Any],
    *,
    batch_rows: int | None = None,
) -> Session:
    """Load model and classifier at the fetched revisions.

    Raises:
        ModelError: if something cannot be loaded.
    """
    task = find_task(entry["task"])
    sites = run_sites(resources, published=settings.published_site)
    classifier = None
    if task.success.classifier is not None:
        if resources["classifier"] is None:
            raise ModelError(f"{task.success.classifier} was not fetched: run the fetch rule.")
        classifier = task.success.load(resources["classifier"]["revision"], settings.device)
    return Session(
        lm=fetched_model(model, resources, settings.device),
        task=task,
        how=Decoding(
            new_tokens=settings.new_tokens or task.length(reasoned=settings.chain_of_thought),
            batch_rows=batch_rows or settings.batch_rows,
            restrict_options=follows("restrict_options", task, asked=settings.restrict_options),
            prepend_bos=wants_bos(resources),
            chat_template=settings.chat_template,
        ),
        classifier=classifier,
        reasoned=settings.chain_of_thought,
        sites=sites,
    )
