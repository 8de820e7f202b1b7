"""What steering does to the model's predictions on text that has nothing to do with the concept.

Nothing is generated: the steered and the unsteered model read the same text, and every position but
BOS is steered.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Int
from transformers import PreTrainedTokenizerBase

from steering_core.config.methods import BASELINE, PROMPTING
from steering_core.data.columns import texts_of
from steering_core.data.sources import dataset_revision, read_rows
from steering_core.errors import DataError
from steering_core.generation.intervention import Intervention, run_steered
from steering_core.generation.new_inputs import chosen_strength
from steering_core.generation.steered_method import persona_of
from steering_core.methods.solutions import NOT_FINITE
from steering_core.metrics.divergence import (
    Divergence,
    divergence,
    logits_not_finite,
    prompt_divergence,
)
from steering_core.models.language_model import LanguageModel
from steering_core.models.residual_stream import last_token_residuals, read_residuals
from steering_core.models.site import Site
from steering_core.models.tokens import count_tokens, padded_batches, tokenize
from steering_core.progress import counter

if TYPE_CHECKING:
    from steering_core.config.schema import NeutralTexts

log = logging.getLogger(__name__)

#: A shorter text, such as a heading, says little about predictions. In tokens, with BOS.
SHORTEST = 8

SCHEMA = pa.schema(
    [
        pa.field("example_id", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # ok, undefined or not_finite
        pa.field("reason", pa.string(), nullable=False),
        pa.field("n_tokens", pa.int32(), nullable=False),  # predicted from a steered position
        # Null where the status is not ok: sums over these tokens, in nats.
        pa.field("kl_sum", pa.float64()),  # KL(steered ‖ unsteered)
        pa.field("nll_sum", pa.float64()),  # −log p of the text's own tokens under steering
        pa.field("base_nll_sum", pa.float64()),  # and without
        # Null where nothing can be added to the residual stream.
        pa.field("n_added", pa.int32()),  # positions at which something is added …
        pa.field("n_positions", pa.int32()),  # … and at which it could be
    ]
)


def read_neutral_texts(
    source: "NeutralTexts",
    tokenizer: PreTrainedTokenizerBase,
    *,
    prepend_bos: bool,
    rows: int,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Draw texts at random; return ``example_id`` and ``text``, and the dataset's revision.

    Equal texts count once, and texts below :data:`SHORTEST` tokens are left out.

    Args:
        source: dataset, subset, split and column.
        tokenizer: of the model.
        prepend_bos: whether BOS stands in front of each text.
        rows: how many texts; all if there are fewer.
        seed: of the draw.

    Raises:
        DataError: if the dataset cannot be read, lacks the column, or has no text that is long
            enough.
        ModelError: if the hub refuses, with what to do.
    """
    revision = dataset_revision(source.dataset, source.revision)
    table = read_rows(source.dataset, source.subset, source.split, revision)
    if source.text not in table:
        raise DataError(
            f"elsewhere_text: {source.dataset} has no column {source.text!r}; it has "
            f"{list(table.columns)}"
        )
    texts = list(dict.fromkeys(texts_of(table[source.text], "elsewhere_text")))
    order = np.random.default_rng([seed, 6]).permutation(len(texts))
    found: list[tuple[str, str]] = []
    for start in range(0, len(order), rows):
        some = order[start : start + rows]
        lengths = count_tokens(tokenizer, [texts[i] for i in some], prepend_bos)
        long = [i for i, length in zip(some, lengths, strict=True) if length >= SHORTEST]
        found += [(f"text:{i}", texts[i]) for i in long]
        if len(found) >= rows:
            break
    if not found:
        raise DataError(
            f"elsewhere_text: {source.dataset} has no text of {SHORTEST} tokens: name longer texts"
        )
    if len(found) < rows:
        log.warning("%d neutral texts, not %d: there are no more", len(found), rows)
    chosen = pd.DataFrame(found[:rows], columns=["example_id", "text"])
    return chosen, {"id": source.dataset, "revision": revision}


def text_cost(
    lm: LanguageModel,
    rows: Sequence[Sequence[int]],
    *,
    prepend_bos: bool,
    intervention: Intervention | None,
    batch_tokens: int = 2048,
) -> Divergence:
    """Compare the steered and the unsteered model on the same texts, steered at every position.

    The first token of a text takes the place of a prompt: it is steered, and not among the
    predicted ones.

    Args:
        lm: the model.
        rows: token ids of the texts.
        prepend_bos: whether they begin with BOS, which is not steered.
        intervention: on the rows; None leaves the model alone.
        batch_tokens: padded tokens at a time.

    Raises:
        ModelError: if the model does more to its logits than a known scale and a soft cap, or its
            logits are NaN or infinite without steering.
    """
    first = _prompt_length(lm, prepend_bos)
    with counter(len(rows), "reading neutral texts") as tick:
        found = divergence(
            lm,
            [row[:first] for row in rows],
            [row[first:] for row in rows],
            prepend_bos=prepend_bos,
            intervention=intervention,
            batch_tokens=batch_tokens,
            own_surprise=True,
            tick=tick,
        )
    # A text that was generated under steering may be impossible without it. A given one is not.
    if not np.isfinite(found.base_nll_sum).all():
        raise logits_not_finite(lm)
    return found


def added_positions(
    lm: LanguageModel,
    rows: Sequence[Sequence[int]],
    *,
    prepend_bos: bool,
    intervention: Intervention | None,
    batch_tokens: int = 2048,
) -> Int[np.ndarray, " n"]:
    """Return at how many positions of each text something is added, of all but BOS.

    A gate, or a program that is solved at every position, decides at each. A vector that is not
    zero is added at all of them.

    Args:
        lm: the model.
        rows: token ids of the texts.
        prepend_bos: whether they begin with BOS, which is not steered.
        intervention: on the rows, without an adapter; None adds nothing.
        batch_tokens: padded tokens at a time.
    """
    counts = np.zeros(len(rows), dtype=np.int64)
    if intervention is None:
        return counts
    norms = intervention.norms(len(rows))
    if norms is not None:
        return np.where(norms > 0, _steerable(lm, rows, prepend_bos), 0)
    batches = padded_batches(
        rows,
        lm.tokenizer,
        prepend_bos=prepend_bos,
        context=lm.shape.context,
        batch_tokens=batch_tokens,
    )
    for chosen, batch in batches:
        read = partial(read_residuals, lm, list(intervention.at), batch.ids, batch.mask)
        where = batch.mask & ~batch.bos
        _, applied = run_steered(lm, intervention.rows(chosen), where, read)
        counts[chosen] = applied.added(np.ones(len(chosen), dtype=np.int64))
    return counts


def _steerable(
    lm: LanguageModel, rows: Sequence[Sequence[int]], prepend_bos: bool
) -> Int[np.ndarray, " n"]:
    """Return how many positions of each text can be steered: all but BOS."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    return lengths - _prompt_length(lm, prepend_bos) + 1


def _prompt_length(lm: LanguageModel, prepend_bos: bool) -> int:
    """Return how many tokens at the beginning of a text are not predicted: BOS and the first."""
    return 1 + (prepend_bos and lm.tokenizer.bos_token_id is not None)


def _after_persona(
    lm: LanguageModel,
    persona: str,
    rows: Sequence[Sequence[int]],
    prepend_bos: bool,
    batch_tokens: int,
) -> Divergence:
    """Return what a persona before the texts does to the predictions of their tokens.

    As under steering, the first token of a text is not among the predicted ones.
    """
    before = tokenize(lm.tokenizer, [persona], prepend_bos=prepend_bos)[0]
    first = _prompt_length(lm, prepend_bos)
    room = lm.shape.context - len(before) + first - 1
    plain = [row[:first] for row in rows]
    after = [[*before, *row[first - 1 : first]] for row in rows]
    rest = [list(row[first:room]) for row in rows]
    read = {"prepend_bos": prepend_bos, "batch_tokens": batch_tokens}
    there = prompt_divergence(lm, after, plain, rest, **read)
    back = prompt_divergence(lm, plain, after, rest, **read)  # for −log p after the persona
    return replace(there, nll_sum=back.base_nll_sum)


def cost_under(
    lm: LanguageModel,
    texts: pd.DataFrame,
    files: Mapping[str, str],
    method: str,
    *,
    site: Site,
    target_class: Literal[0, 1],
    max_tokens: int,
    batch_tokens: int,
) -> pd.DataFrame:
    """Return :data:`SCHEMA` for the texts, under a method at its selected strength.

    For prompting, the texts stand after the persona. A static program is solved for each text at
    its last token, as for the rows of a dataset.

    Args:
        lm: the model.
        texts: columns ``example_id`` and ``text``.
        files: as of :func:`steering_core.generation.new_inputs.chosen_strength`, with ``pareto``.
        method: its name.
        site: where it steers.
        target_class: that it steers to.
        max_tokens: at which texts are cut, BOS included.
        batch_tokens: padded tokens at a time.

    Raises:
        StorageError: if a file is missing or damaged.
        ModelError: as :func:`text_cost`, or if residuals are not finite without steering.
    """
    table = pd.DataFrame({"example_id": texts["example_id"], "status": "undefined"})
    table = table.assign(reason="", n_tokens=0, kl_sum=np.nan, nll_sum=np.nan, base_nll_sum=np.nan)
    unknown = pd.array([pd.NA] * len(table), dtype="Int32")
    table = table.assign(n_added=unknown, n_positions=unknown)
    given, intervention = texts["text"].tolist(), None
    cut = {"prepend_bos": site.prepend_bos, "max_tokens": max_tokens}
    if method == PROMPTING:
        persona = persona_of(files["concept"], target_class)
        rows = tokenize(lm.tokenizer, given, **cut)
        sums = _after_persona(lm, persona, rows, site.prepend_bos, batch_tokens)
        return table.assign(status="ok", **vars(sums))[SCHEMA.names]
    if method != BASELINE:
        strength = chosen_strength(
            method,
            "selected",
            files,
            site=site,
            target_class=target_class,
            device=lm.device,
            positions="all",
        )
        if strength is None:
            return table.assign(reason=f"no strength of {method} is selected")
        steered = strength.steer(
            last_token_residuals(lm, given, site, max_tokens=max_tokens, batch_tokens=batch_tokens)
        )
        table["reason"], intervention = steered.reason, steered.intervention.float32()
    has = np.flatnonzero(table["reason"] == "")
    tokens = tokenize(lm.tokenizer, given, **cut)
    rows = [tokens[i] for i in has]
    read = {
        "prepend_bos": site.prepend_bos,
        "intervention": None if intervention is None else intervention.rows(has.tolist()),
        "batch_tokens": batch_tokens,
    }
    cost = text_cost(lm, rows, **read)
    finite = np.isfinite(cost.kl_sum) & np.isfinite(cost.nll_sum)
    table.loc[has, "n_tokens"] = cost.n_tokens
    for name in ("kl_sum", "nll_sum", "base_nll_sum"):
        table.loc[has, name] = np.where(finite, getattr(cost, name), np.nan)
    table.loc[has, "status"] = np.where(finite, "ok", NOT_FINITE)
    table.loc[has[~finite], "reason"] = "logits NaN or infinite"
    if intervention is None or intervention.adapter is None:
        table.loc[has, "n_added"] = added_positions(lm, rows, **read)
        table.loc[has, "n_positions"] = _steerable(lm, rows, site.prepend_bos)
    return table[SCHEMA.names]
