"""A dictionary, a probe and the slow ways to the same optimum, for tests of adaptive steering."""

import numpy as np
import torch

from benchmarks.reference import solve_reference
from steering_core.generation.adaptive import AdaptiveSolver, RowPrograms
from steering_core.generation.decode import end_tokens
from steering_core.generation.sampling import Sampling
from steering_core.models.residual_stream import edit_residual
from steering_core.models.site import Site
from steering_core.models.tokens import tokenize
from steering_core.optimize.path import SteeringPath

SITES = [Site(2, "pre", True, True), Site(1, "post", False, True)]
GREEDY = Sampling(new_tokens=7, temperature=None)
NAMES = [f"e{i}" for i in range(5)]
D_MODEL, BIAS, TAU = 32, -0.3, 4.0
RNG = np.random.default_rng(0)
DECODER = RNG.standard_normal((40, D_MODEL))
DECODER /= np.linalg.norm(DECODER, axis=1, keepdims=True)
WEIGHT = 0.4 * RNG.standard_normal(D_MODEL)


def few_prompts(tokenizer):
    """Five, for five :data:`NAMES`."""
    rng = np.random.default_rng(3)
    texts = [" ".join(f"w{k}" for k in rng.integers(0, 60, n)) for n in (2, 7, 1, 4, 3)]
    return tokenize(tokenizer, texts, prepend_bos=True)


def plan(program, parameter, tau, site, n=5, path=None):
    """The same program for every text, or one per text."""
    path = path or SteeringPath.fit(DECODER, WEIGHT)
    solver = AdaptiveSolver(path, WEIGHT, BIAS, program, site, torch.device("cpu"))
    return RowPrograms(solver, np.broadcast_to(tau, n) * 1.0, np.broadcast_to(parameter, n) * 1.0)


def shortfalls(residual, site, tau):
    return tau - (site.view(residual.astype(np.float64)) @ WEIGHT + BIAS)


def slowly(lm, prompt, site, program, parameter, tau, positions, new_tokens, solve):
    """One row, no cache: a whole pass for every token, and a solve for every steered position.

    Returns the new tokens, the shortfalls met at steered positions and how many had no solution.
    """
    tokens, start = list(prompt), len(prompt) - 1
    first = start if positions == "last" else 1
    for _ in range(new_tokens):
        met = []

        def edit(residual):
            steered = residual.clone()
            for k in range(max(first, 1), residual.shape[1]):  # BOS is at 0
                r = float(shortfalls(residual[0, k].numpy(), site, tau))
                vector = solve(r, program, parameter)
                met.append((r, vector is None))  # noqa: B023 - called at once
                if vector is not None:
                    steered[0, k] += torch.tensor(vector).to(residual.dtype)
            return steered

        with edit_residual(lm, site, edit), torch.no_grad():
            logits = lm.model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
        tokens.append(int(logits.argmax()))
        if tokens[-1] in end_tokens(lm):
            break
    return tokens[len(prompt) :], [r for r, _ in met], sum(failed for _, failed in met)


def by_cvxpy(r, program, parameter):
    if r <= 0:
        return np.zeros(D_MODEL)
    kind = {"qp_lambda" if program == "qp" else "epsilon": parameter}
    found = solve_reference(DECODER, WEIGHT, r, **kind)
    return None if found.status == "infeasible" else found.delta @ DECODER


def by_path(long_path):
    def solve(r, program, parameter):
        found = getattr(long_path, program)(r, parameter)
        return found.vector[0] if found.solved[0] else None

    return solve
