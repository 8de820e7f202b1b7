"""Which completions fall in the target class, a row per (strength, prompt)."""

import numpy as np
import pandas as pd
import torch

from steering_core.activations.positions import last_token_residuals
from steering_core.metrics.classifiers import Judge, in_target_class
from steering_core.models.language_model import LanguageModel
from steering_core.models.site import Site
from steering_core.probes.linear_probe import LinearProbe


def judge_texts(generations: pd.DataFrame, judge: Judge, target_class: int) -> pd.DataFrame:
    """Return ``score`` and ``judged`` of every completion, the prompt left out.

    A blank completion says nothing: it scores 0.5 and is not in the target class, whatever a
    classifier makes of no words.
    """
    frame = generations[["method", "strength_index", "example_id"]].assign(score=np.nan)
    made = generations["text"].notna().to_numpy()
    blank = made & (generations["text"].fillna("").str.strip() == "").to_numpy()
    frame.loc[blank, "score"] = 0.5
    written = made & ~blank
    frame.loc[written, "score"] = judge.score(generations.loc[written, "text"].tolist())
    frame["judged"] = np.where(
        made, in_target_class(frame["score"].to_numpy(), target_class), np.nan
    )
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

    def score(self, texts: list[str]) -> np.ndarray:
        """Return the probability of class 1; 0.5 for a completion without tokens."""
        scores = np.full(len(texts), 0.5)
        filled = [i for i, text in enumerate(texts) if text.strip()]
        if filled:
            residuals = last_token_residuals(
                self.lm,
                [texts[i] for i in filled],
                self.site,
                max_tokens=self.lm.shape.context,
                batch_tokens=self.batch_tokens,
            )
            logits = torch.from_numpy(self.probe.decision(residuals))
            scores[filled] = torch.sigmoid(logits).numpy()
        return scores
