"""Steered against unsteered generation and the published loop; adaptive programs against CVXPY.

``python -m benchmarks.bench_generation [--tiny | --quick | --full]`` prints a table, writes
``results/benchmarks/generation.csv`` and fails if a required ratio is missed.
"""

import sys

import cvxpy as cp
import numpy as np
import torch

from benchmarks.common import alternate, arguments, random_model, run_name, seconds, texts
from benchmarks.options import scaled
from benchmarks.reference import solve_reference
from benchmarks.table import Line, at_least, compared, report
from steering_core.generation.adaptive import AdaptiveSolver, RowPrograms
from steering_core.generation.decode import continuations
from steering_core.generation.intervention import Intervention, RowVectors, steer
from steering_core.generation.sampling import Sampling
from steering_core.models.language_model import LanguageModel
from steering_core.models.residual_stream import read_residuals
from steering_core.models.site import Site
from steering_core.models.tokens import pad, tokenize
from steering_core.optimize.path import SteeringPath

PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 64, 32, 64
#: Shortest and longest prompt for mixed lengths.
MIXED = 8, 64
SITE = Site(13, "post", False, True)
#: Features that the published prefilter leaves to the solver.
D_SAE = 2000
TAU, LAMBDA, EPSILON = 4.0, 1.0, 8.0


class World:
    """A model, prompts, a dictionary, a probe, and the path of dictionary and probe."""

    def __init__(self, size: str):
        self.n, self.new_tokens = scaled(PROMPTS, size), scaled(NEW_TOKENS, size)
        self.names = [f"p{i}" for i in range(self.n)]
        self.greedy = Sampling(self.new_tokens, temperature=None)
        # The pipeline's sampling. Random logits are flat, so nearly the whole vocabulary is in the
        # nucleus: the worst case of steering_core.generation.sampling.
        self.drawn = Sampling(self.new_tokens, temperature=1.0, top_p=0.9)
        # At Gemma's size use Gemma itself; otherwise a family for which both sides use sdpa.
        self.lm = random_model(size, "gemma2" if size == "full" else "llama")
        self.prompts = tokenize(
            self.lm.tokenizer,
            texts(self.n, PROMPT_TOKENS - 1, PROMPT_TOKENS - 1),
            prepend_bos=True,
        )
        self.mixed = tokenize(
            self.lm.tokenizer, texts(self.n, MIXED[0] - 1, MIXED[1] - 1), prepend_bos=True
        )
        rng = np.random.default_rng(0)
        d_model = self.lm.shape.d_model
        self.decoder = rng.standard_normal((scaled(D_SAE, size), d_model))
        self.decoder /= np.linalg.norm(self.decoder, axis=1, keepdims=True)
        self.weight = rng.standard_normal(d_model)
        self.weight /= np.linalg.norm(self.weight)
        self.vectors = 0.1 * rng.standard_normal((self.n, d_model))
        self.path = SteeringPath.fit(self.decoder, self.weight)

    def steered(
        self, prompts: list[list[int]] | None = None, sampling: Sampling | None = None
    ) -> None:
        """Generate with a fixed vector for each prompt; greedily unless it is sampled."""
        what = RowVectors(self.vectors)
        self._continue(prompts or self.prompts, sampling or self.greedy, what)

    def _continue(
        self, prompts: list[list[int]], sampling: Sampling, what: RowVectors | RowPrograms
    ) -> None:
        continuations(
            self.lm,
            prompts,
            self.names,
            sampling,
            prepend_bos=SITE.prepend_bos,
            intervention=Intervention({SITE: what}),
            batch_rows=self.n,
        )

    def plan(self, program: str, path: SteeringPath | None = None) -> RowPrograms:
        """Return the program for every prompt."""
        path = path or self.path
        solver = AdaptiveSolver(path, self.weight, 0.0, program, SITE, self.lm.device)
        parameter = LAMBDA if program == "qp" else EPSILON
        return RowPrograms.alike(self.n, solver, TAU, parameter)

    def adaptive(self, plan: RowPrograms) -> None:
        """Generate with a new optimum at every token."""
        self._continue(self.prompts, self.greedy, plan)

    def cold(self) -> None:
        """Do the same from scratch: fit the path, extend it as far as needed, generate."""
        self.adaptive(self.plan("qp", SteeringPath.fit(self.decoder, self.weight)))

    def library(
        self, prompts: list[list[int]] | None = None, sampling: Sampling | None = None
    ) -> None:
        """Call ``generate`` of transformers as documented, with one batch."""
        sampling = sampling or self.greedy
        drawn = {"top_p": sampling.top_p, "temperature": sampling.temperature, "top_k": 0}
        how = {"do_sample": False} if sampling.temperature is None else {"do_sample": True, **drawn}
        batch = pad(prompts or self.prompts, self.lm.tokenizer, side="left", prepend_bos=True)
        batch = batch.to(self.lm.device)
        self.lm.model.generate(
            input_ids=batch.ids,
            attention_mask=batch.mask.long(),
            max_new_tokens=self.new_tokens,
            pad_token_id=0,
            **how,
        )


@torch.no_grad()
def one_by_one(world: World, row: int, new_tokens: int) -> None:
    """Generate in the published form: one prompt, no cache, a whole pass for each token."""
    lm: LanguageModel = world.lm
    tokens = torch.tensor([world.prompts[row]], device=lm.device)
    added = Intervention({SITE: RowVectors(world.vectors[row])})
    for _ in range(new_tokens):
        where = torch.zeros_like(tokens, dtype=torch.bool)
        where[:, PROMPT_TOKENS - 1 :] = True
        with steer(lm, added, where):
            logits = lm.model(input_ids=tokens, use_cache=False).logits[:, -1]
        tokens = torch.cat([tokens, logits.argmax(dim=-1, keepdim=True)], dim=1)


@torch.no_grad()
def adaptive_token(world: World, length: int) -> tuple[float, float, float]:
    """Return the seconds of one published adaptive token: two passes, a cold QP, and an SOCP."""
    lm = world.lm
    tokens = torch.full((1, length), 7, device=lm.device)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    where = torch.zeros_like(mask)
    where[:, -1] = True
    h = None

    def first() -> None:
        nonlocal h
        lm.model(input_ids=tokens, use_cache=False)
        h = read_residuals(lm, [SITE], tokens, mask)[SITE.hook_name][0, -1].cpu().double().numpy()

    first()  # computes h; the pass is timed below without reading h
    shortfall = max(TAU - float(h @ world.weight), 0.1)
    found = {}

    def solve(**program: float) -> None:
        found["last"] = solve_reference(
            world.decoder, world.weight, shortfall, solver=cp.SCS, max_iters=10_000, **program
        )

    cone = seconds(lambda: solve(epsilon=EPSILON))
    quadratic = seconds(lambda: solve(qp_lambda=LAMBDA))
    added = Intervention({SITE: RowVectors(found["last"].delta @ world.decoder)})

    def passes() -> None:
        lm.model(input_ids=tokens, use_cache=False)
        with steer(lm, added, where):
            lm.model(input_ids=tokens, use_cache=False)

    return seconds(passes), quadratic, cone


def main() -> int:
    size = arguments(__doc__).size
    repeats, rows = {"tiny": (2, 1), "quick": (5, 1)}.get(size, (10, 2))
    world = World(size)
    plans = {program: world.plan(program) for program in ("qp", "socp")}
    library, steered, qp, socp, library_drawn, steered_drawn = alternate(
        [
            world.library,
            world.steered,
            lambda: world.adaptive(plans["qp"]),
            lambda: world.adaptive(plans["socp"]),
            lambda: world.library(sampling=world.drawn),
            lambda: world.steered(sampling=world.drawn),
        ],
        repeats,
    )
    library_mixed, steered_mixed, cold = alternate(
        [lambda: world.library(world.mixed), lambda: world.steered(world.mixed), world.cold],
        repeats // 2,
    )
    one_by_one(world, 0, 2)
    n, new = world.n, world.new_tokens
    published = n * np.mean([seconds(lambda r=r: one_by_one(world, r, new)) for r in range(rows)])
    lengths = (PROMPT_TOKENS, PROMPT_TOKENS + new // 2, PROMPT_TOKENS + new)
    passes, quadratic, cone = np.mean([adaptive_token(world, n) for n in lengths], axis=0)
    tokens = n * new
    work = f"{n} prompts of {PROMPT_TOKENS} tokens, {new} new; best of {repeats}"
    mixed = f"{n} prompts of {MIXED[0]} to {MIXED[1]} tokens, {new} new, one batch"

    def per_token(name: str, ours: float, solving: float, *, judged: bool = True) -> Line:
        reference = tokens * (passes + solving)
        note = (
            f"reference: {len(lengths)} tokens measured (each {passes:.3g} s of passes, "
            f"{solving:.3g} s of SCS on {len(world.decoder)} features), times {tokens}"
        )
        name = f"{name} / two passes and CVXPY per token"
        if not judged:
            return compared(name, ours, reference, note)
        return at_least(name, ours, reference, 500, note)

    lines = [
        at_least("steered / transformers generate", steered, library, 0.9, work),
        at_least("adaptive QP / transformers generate", qp, library, 0.85, work),
        at_least("adaptive SOCP / transformers generate", socp, library, 0.85, work),
        at_least(
            "steered, sampled / transformers generate, sampled",
            steered_drawn,
            library_drawn,
            0.9,
            f"top_p {world.drawn.top_p}, temperature {world.drawn.temperature}",
        ),
        at_least(
            "steered / transformers generate, mixed lengths",
            steered_mixed,
            library_mixed,
            0.9,
            mixed,
        ),
        at_least(
            "steered / one prompt at a time, no cache",
            steered,
            published,
            20,
            f"reference: {rows} prompts measured, times {n // rows}",
        ),
        per_token("adaptive QP", qp, quadratic),
        compared("of this, without the solve", qp, tokens * passes, "the two passes alone"),
        per_token("adaptive QP, cold, with the fit of its path", cold, quadratic, judged=False),
        per_token("adaptive SOCP", socp, cone),
    ]
    return report(lines, "generation", run_name(size), judged=size != "tiny")


if __name__ == "__main__":
    sys.exit(main())
