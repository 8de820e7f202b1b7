"""Which completions fall in the target class, a row per (strength, prompt)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from steering_core.activations.positions import last_token_residuals
from steering_core.metrics.classifiers import Judge, in_target_class
from steering_core.metrics.lexicon import has_word
from steering_core.models.language_model import LanguageModel
from steering_core.models.site import Site
from steering_core.probes.linear_probe import LinearProbe


def judge_texts(generations: pd.DataFrame, judge: Judge, target_class: int) -> pd.DataFrame:
    """Return ``score``, ``judged`` and ``empty`` of every completion, the prompt left out.

    A completion without a word is ``empty`` (1, else 0): it has no score and counts as not in the
    target class. Where there is no completion, all three are NaN.
    """
    frame = generations[["method", "strength_index", "example_id"]].assign(score=np.nan)
    made = generations["text"].notna().to_numpy()
    texts = generations.loc[made, "text"].tolist()
    frame.loc[made, "score"] = judge.score(texts)
    target = in_target_class(frame["score"].to_numpy(), target_class)
    frame["judged"] = np.where(made, target, np.nan)
    frame["empty"] = np.nan
    frame.loc[made, "empty"] = [float(not has_word(text)) for text in texts]
    return frame


class EvaluationProbeJudge(Judge):
    """Judges a completion by the evaluation probe at its last token, read by the base model.

    For concepts without a text classifier. It shares the representation that is steered, so it
    is a weaker witness than a classifier; results say so in their warnings. A completion is cut
    only where it exceeds the model's context.
    """

    def __init__(
        self,
        lm: LanguageModel,
        site: Site,
        probe: LinearProbe,
        *,
        batch_tokens: int,
    ):
        self.lm, self.site, self.probe = lm, site, probe
        self.batch_tokens = batch_tokens

    def _score(self, texts: Sequence[str]) -> Float[np.ndarray, " n"]:
        """Return the probability of class 1."""
        residuals = last_token_residuals(
            self.lm,
            list(texts),
            self.site,
            max_tokens=self.lm.shape.context,
            batch_tokens=self.batch_tokens,
        )
        logits = torch.from_numpy(self.probe.decision(residuals))
        return torch.sigmoid(logits).numpy()
