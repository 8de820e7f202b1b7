"""``steering.apply`` on a plain model against plain ``generate``, batch 16.

``python -m benchmarks.bench_exports [--tiny | --quick]`` prints a table, writes
``results/benchmarks/exports.csv`` and fails if a required ratio is missed.
"""

import sys

import numpy as np

from benchmarks.bench_generation import D_SAE, LAMBDA, NEW_TOKENS, PROMPT_TOKENS, SITE, TAU
from benchmarks.common import alternate, arguments, random_model, run_name, texts
from benchmarks.options import scaled
from benchmarks.table import at_least, report
from steering_core.exports.attach import FixedVector, SolvedProgram
from steering_core.exports.load import LoadedIntervention
from steering_core.methods.solution_vectors import ProgramLogit
from steering_core.models.language_model import LanguageModel
from steering_core.models.tokens import pad, tokenize
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.substitution import Substitution

BATCH = 16


def interventions(lm: LanguageModel, d_sae: int) -> dict[str, LoadedIntervention]:
    """Return a fixed vector, a program of each prompt, and one of each token."""
    rng = np.random.default_rng(0)
    decoder = rng.standard_normal((d_sae, lm.shape.d_model))
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    weight = rng.standard_normal(lm.shape.d_model)
    weight /= np.linalg.norm(weight)
    path = SteeringPath.fit(decoder, weight)
    shape = {"n_layers": lm.shape.n_layers, "d_model": lm.shape.d_model}
    facts = {"positions": "last", "model": {"id": "random", **shape}}
    what: dict[str, FixedVector | SolvedProgram] = {}
    for mode in ("static", "adaptive"):
        logit = ProgramLogit("qp", weight, 0.0, None, mode=mode)
        what[mode] = SolvedProgram(logit, TAU, LAMBDA, Substitution(decoder), path)
    what["fixed"] = FixedVector(0.1 * rng.standard_normal(lm.shape.d_model))
    return {mode: LoadedIntervention({SITE: one}, facts) for mode, one in what.items()}


def main() -> int:
    size = arguments(__doc__).size
    lm = random_model(size, "llama")
    n, new = scaled(BATCH, size), scaled(NEW_TOKENS, size)
    prompts = texts(n, PROMPT_TOKENS - 1, PROMPT_TOKENS - 1)
    rows = tokenize(lm.tokenizer, prompts, prepend_bos=True)
    batch = pad(rows, lm.tokenizer, side="left", prepend_bos=True).to(lm.device)

    def plain() -> None:
        lm.model.generate(
            input_ids=batch.ids,
            attention_mask=batch.mask.long(),
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=False,
            pad_token_id=0,
        )

    def steered(one: LoadedIntervention) -> None:
        with one.apply(lm.model, lm.tokenizer, check_name=False):
            plain()

    loaded = interventions(lm, scaled(D_SAE, size))
    runs = [lambda one=loaded[mode]: steered(one) for mode in ("fixed", "static", "adaptive")]
    repeats = {"tiny": 1, "quick": 5}.get(size, 10)
    library, fixed, static, adaptive = alternate([plain, *runs], repeats)
    work = f"{n} prompts of {PROMPT_TOKENS} tokens, {new} new"
    lines = [
        at_least("steering.apply, fixed vector / plain generate", fixed, library, 0.95, work),
        at_least("steering.apply, QP of a prompt / plain generate", static, library, 0.95, work),
        at_least("steering.apply, adaptive QP / plain generate", adaptive, library, 0.9, work),
    ]
    return report(lines, "exports", run_name(size), judged=size != "tiny")


if __name__ == "__main__":
    sys.exit(main())
