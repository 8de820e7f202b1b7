"""The answers under all plans and methods of a job: one process loads the model and the judge once.

The answers under each method are kept in a file of their own as soon as they are complete, and so
is the validation of an arm's layers (:mod:`steering_core.storage.integrity`).
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypedDict

import pandas as pd
import pyarrow as pa

from steering_core.corrsteer.answers import SCHEMA, Session, open_session, undefined, with_note
from steering_core.corrsteer.examples import read_examples
from steering_core.corrsteer.plan import UNSTEERED_LAYER, Choice, Plan, choose
from steering_core.progress import progress
from steering_core.storage.files import write_text
from steering_core.storage.integrity import content_digest, make_once
from steering_core.storage.parquet import one_below_the_other, table_digest, table_made_once


def validate_layers(session: Session, rows: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Return ``layer, accuracy, n`` for the unsteered model (layer −1) and each layer alone.

    A row whose logits were NaN or infinite has no answer and counts as a failure.

    Args:
        session: the model and how it answers.
        rows: the validation rows.
        plan: the vectors.
    """
    table = []
    for layer in progress([UNSTEERED_LAYER, *sorted(plan.vectors)], "layers alone"):
        steered = None if layer == UNSTEERED_LAYER else plan.intervention([layer])
        answers = session.answer(rows, steered)
        table.append((layer, float(answers["success"].eq(True).mean()), len(answers)))
    return pd.DataFrame(table, columns=["layer", "accuracy", "n"])


def answer_choice(
    session: Session, rows: pd.DataFrame, plan: Plan | None, choice: Choice | None
) -> pd.DataFrame:
    """Answer under the chosen layers of a plan; without a plan, unsteered.

    If no layer was chosen, all rows are undefined, with the reason. Layers that have no vector are
    named, with the reason, in the reason of every row.

    Raises:
        ModelError: if logits are NaN or infinite without steering.
    """
    if plan is None or choice is None:
        return session.answer(rows, n_features=0)
    if not choice.layers:
        return undefined(rows, choice.reason)
    answers = session.answer(rows, plan.intervention(choice.layers), plan.n_features(choice.layers))
    return with_note(answers, plan.gaps).assign(strength=f"scale {plan.scale:g}")


class PlannedArm(TypedDict):
    """An arm that steers with a plan.

    Attributes:
        plan: file of its vectors.
        strategy: as of :func:`steering_core.corrsteer.plan.choose`.
        validated: whether the strategy needs the validation of each layer.
    """

    plan: str
    strategy: str
    validated: bool


class KeptAnswers:
    """What a job keeps of each method, and the model that it answers with.

    Args:
        params: of the job: ``model``, ``task``, ``settings``, ``code``.
        resources: content of resources.json.
        examples: file of the examples.
        folder: of the seed; the files are kept in ``answers`` and ``validation`` in it.
    """

    def __init__(
        self, params: Any, resources: dict[str, Any], examples: str | Path, folder: str | Path
    ):
        self.params, self.resources = params, resources
        self.examples, self.folder = examples, Path(folder)

    @cached_property
    def session(self) -> Session:
        """Model and judge, loaded when first asked for: not at all if every file is there."""
        params = self.params
        settings = SimpleNamespace(**params.settings)
        return open_session(params.model, params.task, settings, self.resources)

    def made_from(self, *splits: str) -> dict[str, Any]:
        """Return what all answers to the rows of some splits depend on; the rows by digests."""
        rows = {split: read_examples(self.examples, split) for split in splits}
        return {
            "code": self.params.code,
            "settings": self.params.settings,
            "task": self.params.task,
            "resources": {key: self.resources[key] for key in ("model", "classifier", "saes")},
            "rows": {
                split: table_digest(pa.Table.from_pandas(found, preserve_index=False))
                for split, found in rows.items()
            },
        }

    def answers(
        self, method: str, made_from: Mapping[str, Any], make: Callable[[], pd.DataFrame]
    ) -> pa.Table:
        """Return the answers under a method, with its name in a column ``method``.

        Args:
            method: its name.
            made_from: everything that they depend on, as JSON holds it.
            make: answers, if no file of the same is kept.
        """
        return table_made_once(self.folder / "answers", method, made_from, make, SCHEMA)

    def validation(self, arm: str, plan: str | Path, code: str) -> Path:
        """Return the file with the validation accuracy of each layer of a plan alone.

        Args:
            arm: that the plan is of.
            plan: file of its vectors.
            code: digest of what validates. It is the same in all jobs that keep this file.
        """
        path = self.folder / "validation" / f"{arm}.csv"
        source = {
            **self.made_from("validation"),
            "code": code,
            "plan": content_digest(plan),
        }

        def make(path: Path) -> None:
            rows = read_examples(self.examples, "validation")
            table = validate_layers(self.session, rows, Plan.load(plan))
            write_text(path, table.to_csv(index=False))

        make_once(path, source, make)
        return path


def answers_of_arms(
    kept: KeptAnswers, arms: Mapping[str, PlannedArm | None], validation_code: str
) -> pa.Table:
    """Return the answers to the test rows under every arm, one below the other.

    Args:
        kept: of the job.
        arms: by name; None is the unsteered model.
        validation_code: as of :meth:`KeptAnswers.validation`.

    Raises:
        ModelError: if logits are NaN or infinite without steering.
    """
    rows, of_all = read_examples(kept.examples, "test"), kept.made_from("test")

    def under(name: str, arm: PlannedArm | None) -> pa.Table:
        if arm is None:
            return kept.answers(name, of_all, lambda: answer_choice(kept.session, rows, None, None))
        made_from = {**of_all, "strategy": arm["strategy"], "plan": content_digest(arm["plan"])}
        plan, validation = Plan.load(arm["plan"]), None
        if arm["validated"]:
            file = kept.validation(name, arm["plan"], validation_code)
            made_from["validation"] = content_digest(file)
            validation = pd.read_csv(file)
        choice = choose(arm["strategy"], plan, validation)
        return kept.answers(
            name, made_from, lambda: answer_choice(kept.session, rows, plan, choice)
        )

    return one_below_the_other(under(name, arm) for name, arm in arms.items())
