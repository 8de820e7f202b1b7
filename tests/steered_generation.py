"""Continuations at one site, for tests of text under steering."""

from steering_core.generation import decode, table
from steering_core.generation.intervention import Intervention, RowVectors
from steering_core.generation.steered_method import SteeredMethod
from steering_core.metrics import divergence as metric


def intervention(site, vectors=None, adaptive=None, positions="last"):
    """Return the intervention of a vector a row, or of an adaptive plan; None of neither."""
    if adaptive is None and vectors is None:
        return None
    return Intervention({site: adaptive or RowVectors(vectors)}, positions)


def continuations(
    lm,
    prompts,
    names,
    sampling,
    *,
    site,
    vectors=None,
    adaptive=None,
    positions="last",
    batch_size=50,
    tick=None,
):
    """Return the model's continuation of each prompt."""
    return decode.continuations(
        lm,
        prompts,
        names,
        sampling,
        prepend_bos=site.prepend_bos,
        intervention=intervention(site, vectors, adaptive, positions),
        batch_rows=batch_size,
        tick=tick,
    )


def generate(*args, **kwargs):
    """Return the tokens of :func:`continuations`."""
    return continuations(*args, **kwargs).tokens


def divergence(
    lm, prompts, texts, *, site, vectors, adaptive=None, steer_prompt=False, batch_tokens=2048
):
    """Return how far steering at one site moves the model on the texts."""
    return metric.divergence(
        lm,
        prompts,
        texts,
        prepend_bos=site.prepend_bos,
        intervention=intervention(site, vectors, adaptive, "all" if steer_prompt else "last"),
        batch_tokens=batch_tokens,
    )


def generate_method(lm, prompts, solutions, site, sampling, *, positions, solver=None, **batches):
    """Return the table of texts of solution rows at one site."""
    steered = SteeredMethod(solutions, site, positions, solver)
    return table.generate_method(lm, prompts, steered, sampling, **batches)


def text_divergence(lm, texts, solutions, site, *, positions, batch_tokens, solver=None):
    """Return the divergence of such a table."""
    steered = SteeredMethod(solutions, site, positions, solver)
    return metric.text_divergence(lm, texts, steered, batch_tokens=batch_tokens)
