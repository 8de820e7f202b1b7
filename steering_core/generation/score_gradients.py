"""What moves the model's predictions, from gradients of log p with respect to what is added.

The Fisher information weighs every vector by what it costs in KL (:func:`estimate_fisher`). The
likelihood gradient is the direction that makes texts of the target class likelier and the other
texts less likely (:func:`likelihood_gradient`), or right answers likelier and wrong ones less
likely (:func:`answer_gradient`). All average the gradients at a site that
:func:`residual_gradients` takes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int

from steering_core.errors import DataError, ModelError
from steering_core.generation.decode import continuations
from steering_core.generation.intervention import Positions, text_positions
from steering_core.generation.sampling import Sampling, draws
from steering_core.models.devices import float64_device
from steering_core.models.head import final_hidden, logits_of
from steering_core.models.language_model import LanguageModel, dtype_name
from steering_core.models.residual_stream import edit_residual
from steering_core.models.site import Site
from steering_core.models.tokens import TokenBatch, padded_batches, tokenize
from steering_core.progress import counter
from steering_core.statistics.fisher import FisherSums

#: Returns k tokens for each of n positions, (k, n), from their logits and which positions these are
#: among all that predict.
Targets = Callable[[Float[torch.Tensor, "n vocabulary"], slice], Int[torch.Tensor, "k n"]]

#: A text begins with the first half of a training row, but with no more tokens of it.
_BEGINNING = 16


def beginnings(
    lm: LanguageModel, examples: pd.DataFrame, texts: int, seed: int, *, prepend_bos: bool
) -> tuple[list[str], list[list[int]]]:
    """Return ids and tokens of the beginnings of training rows, each the start of a text.

    Rows are drawn without replacement, so every text has a beginning of its own; at most as many
    as there are rows. Prompts and test rows are excluded.

    Args:
        lm: the model.
        examples: of the experiment.
        texts: how many.
        seed: of the draw.
        prepend_bos: whether texts begin with BOS.
    """
    train = examples[examples["split"] == "train"]
    chosen = np.random.default_rng(seed).permutation(len(train))[:texts]
    rows = train.iloc[np.sort(chosen)]
    begun = []
    for row in tokenize(lm.tokenizer, rows["text"].tolist(), prepend_bos=prepend_bos):
        front = int(prepend_bos and row[0] == lm.tokenizer.bos_token_id)
        begun.append(row[: front + min(_BEGINNING, -(-(len(row) - front) // 2))])
    return rows["example_id"].tolist(), begun


def estimate_fisher(
    lm: LanguageModel,
    example_ids: Sequence[str],
    prompts: Sequence[Sequence[int]],
    site: Site,
    sampling: Sampling,
    *,
    samples: int,
    positions: Positions,
    batch_rows: int,
    batch_tokens: int,
) -> FisherSums:
    """Continue the prompts without steering, and sum the information of what would be added.

    Texts are drawn as the experiment draws them. The tokens whose log p is differentiated are drawn
    anew at every position, from the whole distribution: the KL that the pipeline reports is that of
    whole distributions, and a text drawn with ``top_p`` below 1 is no sample of them.

    Args:
        lm: the model.
        example_ids: names of the prompts; they seed all draws.
        prompts: token ids.
        site: that is steered.
        sampling: of the texts.
        samples: draws of the tokens of each text. A text is read once, however many.
        positions: which prompt positions are steered besides every new token.
        batch_rows: prompts at a time in generation.
        batch_tokens: padded tokens at a time.

    Raises:
        DataError, ModelError: as :func:`~steering_core.generation.decode.decode` and
            :func:`~steering_core.generation.score_gradients.residual_gradients`.
    """
    with counter(len(prompts), "texts of the model") as tick:
        made = continuations(
            lm,
            prompts,
            example_ids,
            sampling,
            prepend_bos=site.prepend_bos,
            batch_rows=batch_rows,
            tick=tick,
        )
    rows = [[*prompt, *(new or [])] for prompt, new in zip(prompts, made.tokens, strict=True)]
    names = [f"{name} predictions" for name in example_ids]
    uniforms = draws(names, samples * sampling.new_tokens, sampling.seed)
    uniforms = uniforms.reshape(len(rows), samples, sampling.new_tokens)
    sums = FisherSums.empty(lm.shape.d_model)
    gradients: list[tuple[np.ndarray, int]] = [(np.zeros(0), 0)] * len(rows)
    with counter(len(rows), "gradients") as tick:
        for chosen, padded in padded_batches(
            rows,
            lm.tokenizer,
            prepend_bos=site.prepend_bos,
            context=lm.shape.context,
            batch_tokens=batch_tokens,
        ):
            batch = padded.to(lm.device)
            last = torch.tensor([len(prompts[i]) - 1 for i in chosen], device=lm.device)
            predicting, steered = text_positions(batch, last, positions == "all")
            found = residual_gradients(
                lm, site, batch, predicting, _drawn(uniforms[chosen], predicting, last)
            )
            score = _float64(found * steered[..., None]).sum(dim=2).transpose(0, 1).cpu().numpy()
            for i, one in zip(chosen, score, strict=True):
                gradients[i] = one, len(rows[i]) - len(prompts[i])
            tick(len(chosen))
    for one, tokens in gradients:  # in their own order, so that the halves are the same
        if tokens:
            sums.add(one, tokens)
    return sums


def _drawn(
    uniforms: Float[torch.Tensor, "batch samples new_tokens"],
    predicting: Bool[torch.Tensor, "batch seq"],
    last: Int[torch.Tensor, " batch"],
) -> Targets:
    """Return a function that draws tokens by inverting the cumulative distribution."""
    row, column = predicting.cpu().nonzero(as_tuple=True)
    mine = uniforms[row, :, column - last.cpu()[row]]

    def targets(log_p: torch.Tensor, rows: slice) -> torch.Tensor:
        p = log_p.to(float64_device(log_p.device)).double().exp()
        sums = p.cumsum(dim=1)
        at = mine[rows].to(p.device) * sums[:, -1:]
        drawn = torch.searchsorted(sums, at, right=True)
        return drawn.clamp(max=p.shape[1] - 1).T

    return targets


@dataclass(frozen=True)
class LikelihoodGradient:
    """The mean gradient of log p over texts of the target class less that over the others.

    Or over right answers, less that over wrong ones.

    Attributes:
        vector: per token, as the site sees residuals.
        relative_error: its standard error over texts, in the Euclidean norm, relative to it.
        texts: that it rests on, or pairs of answers.
    """

    vector: Float[np.ndarray, " d_model"]
    relative_error: float
    texts: int


def likelihood_gradient(
    lm: LanguageModel,
    rows: Sequence[Sequence[int]],
    target: Bool[np.ndarray, " n"],
    site: Site,
    *,
    batch_tokens: int,
) -> LikelihoodGradient:
    """Return the gradient of the log likelihood ratio of two classes of texts.

    It is with respect to one vector that is added at every token but BOS, and per predicted token,
    so that long texts do not outweigh short ones.

    Args:
        lm: the model.
        rows: token ids of labelled texts.
        target: whether each is of the target class.
        site: where the vector is added.
        batch_tokens: padded tokens at a time.

    Raises:
        DataError: if a class has fewer than two texts of at least two tokens.
        ModelError: as :func:`~steering_core.generation.score_gradients.residual_gradients`.
    """
    front = int(site.prepend_bos and lm.tokenizer.bos_token_id is not None)
    long = [i for i, row in enumerate(rows) if len(row) > front + 1]
    target = np.asarray(target, dtype=bool)[long]
    if min(target.sum(), (~target).sum()) < 2:
        raise DataError(
            "likelihood_gradient needs, in each class, two training texts of at least two tokens: "
            "raise rows_per_class, or choose another concept_direction"
        )
    found = np.zeros((len(long), lm.shape.d_model))
    with counter(len(long), "gradients of log p") as tick:
        for chosen, padded in padded_batches(
            [rows[i] for i in long],
            lm.tokenizer,
            prepend_bos=site.prepend_bos,
            context=lm.shape.context,
            batch_tokens=batch_tokens,
        ):
            batch = padded.to(lm.device)
            predicting = batch.mask & batch.mask.roll(-1, dims=1) & ~batch.bos
            predicting[:, -1] = False
            gradient = residual_gradients(
                lm, site, batch, predicting, _following(batch, predicting)
            )[0]
            total = _float64(gradient * predicting[..., None]).sum(dim=1).cpu().numpy()
            found[chosen] = total / predicting.sum(dim=1, keepdim=True).cpu().numpy()
            tick(len(chosen))
    found = site.view(found)
    vector = found[target].mean(axis=0) - found[~target].mean(axis=0)
    variance = sum(
        float(found[side].var(axis=0, ddof=1).sum()) / side.sum() for side in (target, ~target)
    )
    return LikelihoodGradient(vector, _relative(variance, vector), len(long))


def answer_gradient(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    right: Sequence[Sequence[int]],
    wrong: Sequence[Sequence[int]],
    site: Site,
    *,
    batch_tokens: int,
) -> LikelihoodGradient:
    """Return the gradient of log p of right answers less that of wrong ones to the same prompts.

    It is with respect to the residual at the last token of the prompt, per token of the answer, so
    that long answers do not outweigh short ones. Prompts that do not fit the model's context with
    both of their answers are left out.

    Args:
        lm: the model.
        prompts: token ids.
        right: token ids of the right answer to each prompt.
        wrong: token ids of a wrong one.
        site: where the residuals are.
        batch_tokens: padded tokens at a time.

    Raises:
        DataError: if fewer than two prompts fit.
        ModelError: as :func:`residual_gradients`.
    """
    fits = [
        i
        for i, (prompt, *answers) in enumerate(zip(prompts, right, wrong, strict=True))
        if len(prompt) + max(map(len, answers)) <= lm.shape.context
    ]
    if len(fits) < 2:
        raise DataError(
            "likelihood_gradient needs two training rows whose prompts fit the model's context "
            "with a right and with a wrong answer: choose another concept_direction"
        )
    rows = [[*prompts[i], *side[i]] for side in (right, wrong) for i in fits]
    lengths = [len(prompts[i]) for _ in (right, wrong) for i in fits]
    found = np.zeros((len(rows), lm.shape.d_model))
    with counter(len(rows), "gradients of log p") as tick:
        for chosen, padded in padded_batches(
            rows,
            lm.tokenizer,
            prepend_bos=site.prepend_bos,
            context=lm.shape.context,
            batch_tokens=batch_tokens,
        ):
            batch = padded.to(lm.device)
            last = torch.tensor([lengths[i] - 1 for i in chosen], device=lm.device)
            predicting, _ = text_positions(batch, last, False)
            targets = _following(batch, predicting)
            gradient = residual_gradients(lm, site, batch, predicting, targets)[0]
            there = _float64(gradient[torch.arange(len(last), device=lm.device), last])
            tokens = predicting.sum(dim=1, keepdim=True).cpu().numpy()
            found[chosen] = there.cpu().numpy() / tokens
            tick(len(chosen))
    found = site.view(found)
    difference = found[: len(fits)] - found[len(fits) :]
    vector = difference.mean(axis=0)
    variance = float(difference.var(axis=0, ddof=1).sum()) / len(fits)
    return LikelihoodGradient(vector, _relative(variance, vector), len(fits))


def _following(batch: TokenBatch, predicting: Bool[torch.Tensor, "batch seq"]) -> Targets:
    """Return the tokens of the texts themselves as the targets of the positions that predict."""
    row, column = predicting.nonzero(as_tuple=True)
    tokens = batch.ids[row, column + 1][None]
    return lambda _, rows: tokens[:, rows]


def _relative(variance: float, vector: Float[np.ndarray, " d_model"]) -> float:
    """Return the standard error of a vector relative to its length."""
    size = float(np.linalg.norm(vector))
    return float(np.sqrt(variance)) / size if size > 0 else float("inf")


def _float64(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(float64_device(tensor.device)).double()


# ----------------------------------------------------------------------------- gradients at a site
#: Positions whose logits are held at a time; there are 256k logits of a position in a Gemma.
_ROWS = 64


def residual_gradients(
    lm: LanguageModel,
    site: Site,
    batch: TokenBatch,
    predicting: Bool[torch.Tensor, "batch seq"],
    targets: Targets,
) -> Float[torch.Tensor, "k batch seq d_model"]:
    """Return ``∂ Σ log p(target) / ∂ residual`` at every position of a site.

    The sum is over the positions that predict, in each text. Weights get no gradient. One forward
    pass serves all k draws of targets; each costs a backward pass from the head to the site.

    Args:
        lm: the model.
        site: where the residuals are.
        batch: texts, padded on the right.
        predicting: positions whose next token counts, on the model's device.
        targets: the tokens whose log p is summed, for each predicting position in the order of
            ``predicting.nonzero()``.

    Raises:
        ModelError: if a gradient is NaN or infinite, or no residual passes the site.
    """
    batch = batch.to(lm.device)
    passed: list[torch.Tensor] = []

    def mark(residual: torch.Tensor) -> torch.Tensor:
        leaf = residual.detach().requires_grad_(True)
        passed.append(leaf)
        return leaf

    with torch.enable_grad():
        with edit_residual(lm, site, mark):
            hidden = final_hidden(lm, batch.ids, batch.mask)
        if not passed:
            raise ModelError(f"no residual stream passed {site.hook_name}: the hook did not fire.")
        above = _head_gradients(lm, hidden.detach()[predicting], targets)
        found = []
        for number, rows in enumerate(above):
            seed = torch.zeros_like(hidden)
            seed[predicting] = rows.to(hidden.dtype)
            [gradient] = torch.autograd.grad(
                hidden, passed[-1], seed, retain_graph=number + 1 < len(above)
            )
            found.append(gradient)
    gradients = torch.stack(found)
    if not torch.isfinite(gradients).all():
        raise ModelError(
            f"gradients at {site.hook_name} are NaN or infinite in {dtype_name(lm)}: set "
            "`dtype: bfloat16` or `float32` in the model's section."
        )
    return gradients


def _head_gradients(
    lm: LanguageModel, hidden: Float[torch.Tensor, "n d_model"], targets: Targets
) -> Float[torch.Tensor, "k n d_model"]:
    """Return ``∂ Σ log p(target) / ∂ hidden``, some positions at a time."""
    pieces = []
    for start in range(0, len(hidden), _ROWS):
        rows = slice(start, min(start + _ROWS, len(hidden)))
        piece = hidden[rows].clone().requires_grad_(True)
        log_p = logits_of(lm, piece).log_softmax(dim=-1)
        tokens = targets(log_p.detach(), rows).to(log_p.device)
        sums = [log_p.gather(1, chosen[:, None]).sum() for chosen in tokens]
        pieces.append(
            torch.stack([torch.autograd.grad(s, piece, retain_graph=True)[0] for s in sums])
        )
    return torch.cat(pieces, dim=1)
