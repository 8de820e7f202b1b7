"""A plan of vectors at several sites, generated and compared like a method."""

from contextlib import ExitStack

import numpy as np
import pandas as pd
import pytest
import torch

from steering_core.generation.sampling import Sampling
from steering_core.generation.steered_method import SteeredPlan, read_steered_method
from steering_core.generation.table import generate_method
from steering_core.methods.fixed_solutions import solve_plan, solve_prompting
from steering_core.methods.solution_vectors import PlanRows, read_plan, write_plan
from steering_core.methods.solutions import write_solutions
from steering_core.metrics.divergence import text_divergence
from steering_core.metrics.probe_effects import without_probe_effects
from steering_core.models.residual_stream import edit_residual
from steering_core.models.site import Site

SITES = [Site(1, "post", False, True), Site(2, "post", False, True)]
VECTORS = 2.0 * np.random.default_rng(0).standard_normal((2, 32)).astype(np.float32)
EXAMPLES = pd.DataFrame(
    {"example_id": ["a", "b", "c"], "split": "prompt", "text": ["w1 w2", "w3", "w4 w5 w6"]}
)
AT = dict(zip(SITES, VECTORS, strict=True))
NORM = float(np.sqrt((VECTORS.astype(float) ** 2).sum()))


@pytest.fixture
def rows():
    return PlanRows(solve_plan("mine", [1.0, 3.0], NORM, 2, EXAMPLES), AT)


@pytest.fixture
def plan(rows):
    return SteeredPlan(rows, True, "last")


def test_rows_have_the_norm_and_the_features_of_each_scale(plan):
    assert plan.points() == [0, 1]
    rows = plan.at(1, ["c", "a"])
    assert rows["example_id"].tolist() == ["c", "a"] and (rows["l0"] == 2).all()
    np.testing.assert_allclose(rows["residual_norm"], 3 * np.sqrt((VECTORS**2).sum()), rtol=1e-6)
    found = plan.intervention(rows)
    np.testing.assert_allclose(found.norms(2), rows["residual_norm"], rtol=1e-6)
    np.testing.assert_allclose(found.at[SITES[1]].vectors, np.tile(3 * VECTORS[1], (2, 1)))


def test_a_plan_is_read_as_it_was_written(rows, tmp_path):
    write_solutions(rows.rows, tmp_path / "rows")
    write_plan(tmp_path / "vectors", AT)
    back = read_plan(tmp_path / "rows", tmp_path / "vectors", "mine")
    assert list(back.vectors) == SITES and back.points() == [0, 1]
    for site in SITES:
        np.testing.assert_array_equal(back.vectors[site], AT[site])


def test_a_probe_knows_the_effect_only_where_no_earlier_site_is_steered(rows):
    assert rows.moves_alone(SITES[0]) and not rows.moves_alone(SITES[1])
    assert not rows.moves_alone(Site(1, "pre", False, True))
    own = rows.at_site(SITES[0])
    np.testing.assert_allclose(own.vectors(own.at(1, ["a"]))[0], 3 * VECTORS[0])
    nothing = without_probe_effects(rows, ["a", "b"])
    assert len(nothing) == 4 and nothing.filter(like="probe").isna().all(axis=None)


def test_kl_of_texts_is_that_of_steering_at_both_sites(tiny, plan):
    """Against hooks of our own in whole passes over each text."""
    sampling = Sampling(new_tokens=5, temperature=1.0, top_p=0.9)
    table = generate_method(tiny, EXAMPLES, plan, sampling, max_tokens=20, batch_size=2)
    found = text_divergence(tiny, table, plan, batch_tokens=40)
    assert len(table) == 6 and table["text"].notna().all()
    for row, kl in zip(table.itertuples(), found["kl_sum"], strict=True):
        start, ids = len(row.prompt_tokens) - 1, [*row.prompt_tokens, *row.new_tokens]

        def hook(vector, start=start, scale=row.strength):
            def edit(residual):
                steered = residual.clone()
                steered[0, start:] += scale * torch.tensor(vector)
                return steered

            return edit

        with torch.no_grad():
            base = tiny.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            with ExitStack() as stack:
                for site, vector in zip(SITES, VECTORS, strict=True):
                    stack.enter_context(edit_residual(tiny, site, hook(vector)))
                moved = tiny.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        terms = (moved.exp() * (moved - base)).sum(-1)[start:-1]
        assert kl == pytest.approx(float(terms.sum()), rel=2e-3, abs=1e-4)
    assert found["kl_sum"].max() > 0.1


CONCEPT = """
concept: words
prompts: [w1]
contrast: [{positive: w2 w3, negative: w4 w5}, {positive: w6 w7, negative: w8 w9}]
personas: {positive: "w10 w11 w12 ", negative: "w13 "}
queries: [w20, w21]
"""


@pytest.fixture
def prompting(tmp_path):
    """The persona of either class, read as the stages read it."""
    (tmp_path / "concept.yaml").write_text(CONCEPT)
    write_solutions(solve_prompting(EXAMPLES), tmp_path / "rows")
    files = {"solutions": str(tmp_path / "rows"), "concept": str(tmp_path / "concept.yaml")}

    def read(target_class=1):
        return read_steered_method(
            "prompting",
            files,
            SITES[0],
            positions="last",
            target_class=target_class,
            device=torch.device("cpu"),
        )

    return read


def test_prompting_continues_the_prompt_after_the_persona_of_the_target_class(tiny, prompting):
    sampling = Sampling(new_tokens=4, temperature=None)
    for target, persona in ((1, "w10 w11 w12 "), (0, "w13 ")):
        steered = prompting(target)
        made = generate_method(tiny, EXAMPLES, steered, sampling, max_tokens=4, batch_size=2)
        longer = EXAMPLES.assign(text=persona + EXAMPLES["text"])
        unsteered = SteeredPlan(
            PlanRows(solve_plan("mine", [1.0], 0.0, 0, longer), {}), True, "last"
        )
        plain = generate_method(tiny, longer, unsteered, sampling, max_tokens=20, batch_size=2)
        assert made["text"].tolist() == plain["text"].tolist()
        # The table shows the prompt itself, which alone may be cut.
        assert made["prompt"].tolist() == EXAMPLES["text"].tolist()
        assert made["plain_tokens"].map(len).tolist() == [3, 2, 4]
        assert made["prompt_tokens"].tolist() == plain["prompt_tokens"].tolist()
        assert plain["plain_tokens"].isna().all()
    assert set(made["status"]) == {"fixed"} and set(made["strength_name"]) == {"instruction"}


def test_kl_of_prompting_is_between_the_predictions_with_and_without_the_persona(tiny, prompting):
    steered = prompting()
    sampling = Sampling(new_tokens=5, temperature=1.0, top_p=0.9)
    table = generate_method(tiny, EXAMPLES, steered, sampling, max_tokens=20, batch_size=2)
    found = text_divergence(tiny, table, steered, batch_tokens=20)
    for row, got in zip(table.itertuples(), found.itertuples(), strict=True):
        sides = []
        for before in (row.prompt_tokens, row.plain_tokens):
            ids = torch.tensor([[*before, *row.new_tokens]])
            with torch.no_grad():
                logits = tiny.model(ids).logits[0].double().log_softmax(-1)
            sides.append(logits[len(before) - 1 : -1])
        after, base = sides
        kl = (after.exp() * (after - base)).sum()
        nll = -base[torch.arange(len(base)), torch.tensor(row.new_tokens)].sum()
        assert got.n_tokens == len(row.new_tokens)
        assert got.kl_sum == pytest.approx(float(kl), rel=2e-3, abs=1e-4)
        assert got.base_nll_sum == pytest.approx(float(nll), rel=1e-4)
    assert found["kl_sum"].min() > 0
