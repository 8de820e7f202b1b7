"""One test for each place where the published implementation departs from its description.

The numbers are those of the list of deviations. Each test would fail if the published behaviour
were present here.
"""

import runpy
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import cvxpy as cp
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from steered_generation import generate, generate_method

from steering_core.config.methods import (
    METHODS,
    WITHOUT_VECTOR,
    is_adaptive,
    is_program,
    program_of,
)
from steering_core.config.resolve import resolve
from steering_core.config.schema import Settings
from steering_core.config.task import Task
from steering_core.data.build import SPLITS, assign_splits, build_examples, build_prompts
from steering_core.data.concept import Concept, read_concept
from steering_core.data.labelled import labelled_rows
from steering_core.errors import ConfigError, DataError
from steering_core.generation.adaptive import AdaptiveSolver
from steering_core.generation.intervention import (
    Intervention,
    RowVectors,
    steer,
    steered_positions,
)
from steering_core.generation.sampling import Sampling
from steering_core.methods import (
    CAAContrastive,
    CAARepE,
    ConvexOptimalSteering,
    FitData,
    InfeasibleError,
    QPOptimalSteering,
    SingleFeature,
    TopKFeatures,
)
from steering_core.methods.base import read_direction
from steering_core.methods.directions import fit_directions, fixed_methods
from steering_core.methods.fixed_solutions import solve_fixed
from steering_core.methods.programs import grid, solve_programs
from steering_core.methods.solution_vectors import SolutionVectors
from steering_core.metrics.judges import ClassJudge
from steering_core.metrics.judging import judge_texts
from steering_core.metrics.probe_effects import probe_effects
from steering_core.models.residual_stream import last_token_residuals, read_residuals
from steering_core.models.site import Site, site_of
from steering_core.models.tokens import pad, padded_width, tokenize
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.working_set.bounds import prefilter, relevance
from steering_core.probes.linear_probe import LinearProbe
from steering_core.runtime import machine
from steering_core.storage.files import write_json
from steering_core.tables.columns import validate_table
from steering_core.tables.measured import Measured
from steering_core.tables.pareto import Subject, pareto_table

ROOT = Path(__file__).resolve().parent.parent
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
D_MODEL, D_SAE = 32, 80  # the width of the tiny model
RNG = np.random.default_rng(0)
DECODER = RNG.standard_normal((D_SAE, D_MODEL))
DECODER /= np.linalg.norm(DECODER, axis=1, keepdims=True)
SITE = Site(layer=1, stream="post", centred=False, prepend_bos=True)
TEXTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w10 w11", "w3 w1"]
SETTINGS = Settings(
    strengths=[0.5, 2.0],
    qp_tau=[0.5, 2.0],
    qp_lambda=[1.0],
    socp_tau=[0.5],
    socp_epsilon=[0.4, 5.0],
    bootstrap_resamples=50,
    n_prompts=2,
    n_validation_prompts=0,
    max_tokens=16,
    topk=5,
)


def probe_of(weight: np.ndarray, bias: float = 0.0) -> LinearProbe:
    return LinearProbe(weight, bias, (0, 1), 1.0, 0.9, (0.9, 0.9), 0.0, False, 100)


PROBE = probe_of(DECODER[7] + 0.5 * DECODER[8], -0.3)
H = RNG.standard_normal((12, D_MODEL)) + np.linspace(-2, 2, 12)[:, None] * DECODER[7]
IDS = [f"row {i}" for i in range(len(H))]


def solve(method: str, residuals: np.ndarray = H, ids: list[str] = IDS) -> SolutionVectors:
    path = SteeringPath.fit(DECODER, PROBE.weight_vector)
    return SolutionVectors(
        solve_programs(grid(method, SETTINGS), ids, residuals, PROBE, path), "unused", path
    )


def fit_data(target_class: int = 1, seed: int = 0) -> FitData:
    rng = np.random.default_rng(1)
    labels = np.arange(100) % 2
    residuals = rng.standard_normal((100, D_MODEL)) + np.outer(2 * labels - 1, DECODER[7])
    noise = [rng.standard_normal((20, D_MODEL)) * 0.2 for _ in range(4)]
    correlation = np.zeros(D_SAE)
    correlation[[0, 7, 30]] = 0.1, 0.8, -0.7
    return FitData(
        residuals,
        labels,
        contrast_positive=noise[0] + DECODER[7],
        contrast_negative=noise[1] - DECODER[7],
        persona_positive=noise[2] + DECODER[7],
        persona_negative=noise[3] - DECODER[7],
        feature_correlation=correlation,
        target_class=target_class,
        seed=seed,
    )


def batch_of(lm, texts: list[str], side: str):
    rows = tokenize(lm.tokenizer, texts, prepend_bos=True)
    return rows, pad(rows, lm.tokenizer, side=side, prepend_bos=True)


def concept(n: int = 4) -> Concept:
    return Concept(
        concept="c",
        prompts=[f"prompt {i}" for i in range(n)],
        contrast=[{"positive": f"good {i}", "negative": f"bad {i}"} for i in range(n)],
        personas={"positive": "P: ", "negative": "N: "},
        queries=[f"query {i}" for i in range(n)],
    )


def words(texts) -> list[int]:
    return [len(text.split()) + 1 for text in texts]


def examples_of(table: pd.DataFrame, task: Task, *rest):
    """Build the table of examples from the columns of a dataset."""
    questions = task.question is not None
    return build_examples(labelled_rows(table, task), *rest, questions=questions)


def labelled(n: int = 120) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"text {i}" for i in range(n)], "label": np.arange(n) % 2})


SUBJECT = Subject("e", "m", "t", 1, [], "sha256:0a", "sha256:0b")
FLAT = Task(dataset="d.csv", text="text", label="label", concept="c")


def test_01_activations_are_read_and_steered_where_the_sae_sits(tiny):
    """Published: activations at resid_pre, Gemma's SAEs and steering at resid_post."""
    site = site_of({"hook_name": "blocks.1.hook_resid_post", "prepend_bos": True}, "sae")
    before = Site(1, "pre", False, True)
    after = Site(2, "pre", False, True)
    _, batch = batch_of(tiny, TEXTS[:1], "right")
    read = read_residuals(tiny, [before, site, after], batch.ids, batch.mask)
    hidden = deepcopy(tiny.model)(batch.ids, output_hidden_states=True).hidden_states
    torch.testing.assert_close(read[site.hook_name], hidden[2])
    torch.testing.assert_close(read[before.hook_name], hidden[1])
    assert not torch.allclose(hidden[1], hidden[2])
    ones = Intervention({site: RowVectors(np.ones(D_MODEL))})
    with steer(tiny, ones, steered_positions(batch, "all")):
        steered = read_residuals(tiny, [before, after], batch.ids, batch.mask)
    torch.testing.assert_close(steered[before.hook_name], read[before.hook_name])
    moved = steered[after.hook_name] - read[after.hook_name]
    torch.testing.assert_close(moved[0, 1:], torch.ones(3, D_MODEL), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["qp_optimal", "convex_optimal"])
def test_02_every_input_has_a_solution_of_its_own(method: str):
    """Published: solved for test example 0 only, that vector applied to every input and prompt."""
    found = solve(method)
    index = found.points()[-1]
    rows = found.at(index, IDS)
    vectors = found.vectors(rows)
    logits = PROBE.decision(H + vectors)
    short = PROBE.decision(H) < rows["tau"]
    assert short.sum() >= 3
    np.testing.assert_allclose(logits[short], rows.loc[short, "tau"], atol=1e-9)
    norms = np.linalg.norm(vectors[short], axis=1)
    assert len(np.unique(norms.round(9))) == short.sum()


def test_03_solutions_are_not_multiplied_and_alpha_is_in_residual_norms(tiny, tmp_path: Path):
    """Published: the feasible δ times α = 5, while the baselines are unit vectors times α."""
    rows = solve("qp_optimal").rows
    assert not {"alpha"} & set(rows["strength_name"])
    optimal = rows[rows["status"] == "optimal"]
    vectors = solve("qp_optimal").vectors(optimal)
    after = PROBE.decision(H[[IDS.index(name) for name in optimal["example_id"]]] + vectors)
    np.testing.assert_allclose(after, optimal["tau"], atol=1e-9)  # five-fold would overshoot
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), optimal["residual_norm"])
    # Nor are they where they are added.
    _, batch = batch_of(tiny, TEXTS[:1], "left")
    after_it, mask = Site(SITE.layer + 1, "pre", False, True), batch.mask
    base = read_residuals(tiny, [after_it], batch.ids, mask)[after_it.hook_name]
    added = Intervention({SITE: RowVectors(vectors[:1])})
    with steer(tiny, added, steered_positions(batch, "last")):
        moved = read_residuals(tiny, [after_it], batch.ids, mask)[after_it.hook_name] - base
    np.testing.assert_allclose(moved[0, -1], vectors[0], rtol=1e-4, atol=1e-5)
    # The baselines' size is stored in the same unit, so that norms can be matched.
    data = fit_data()
    fit_directions(fixed_methods(SETTINGS), data, DECODER, tmp_path / "d")
    direction, unit = read_direction(tmp_path / "d", "caa_mean_diff")
    fixed = solve_fixed(grid("caa_mean_diff", SETTINGS), IDS, direction, unit)
    mean_norm = np.linalg.norm(data.residuals, axis=1).mean()
    np.testing.assert_allclose(fixed["residual_norm"], fixed["strength"] * mean_norm)


def test_03_methods_are_compared_at_equal_norm_on_the_same_rows():
    """Published: five times a feasible δ beside a unit vector times five, whatever their norms."""
    found = solve("qp_optimal")
    effects = probe_effects(found, IDS, H, PROBE, PROBE).assign(method="qp_optimal")
    solutions, effects = (frame[frame["strength_index"] == 0] for frame in (found.rows, effects))
    program = compared(solutions, effects).loc["qp_optimal"]
    outside = PROBE.decision(H) <= 0
    assert program["n_outside_eval"] == program["n_outside_eval_solved"] == outside.sum() == 7
    norm = program["residual_norm_outside_eval_mean"]
    # The probe's own direction at that norm: nothing of this norm moves its logit further.
    length = np.linalg.norm(PROBE.weight_vector)
    direction = effects.assign(probe_steered=effects["probe_base"] + norm * length)
    direction["eval_probe_steered"] = direction["probe_steered"]
    fixed = {"status": "fixed", "residual_norm": norm, "strength_name": "alpha"}
    table = compared(
        pd.concat([solutions, solutions.assign(method="caa_mean_diff", **fixed)]),
        pd.concat([effects, direction.assign(method="caa_mean_diff")]),
    )
    for column, want in (("residual_norm_outside_eval_mean", norm), ("n_outside_eval", 7)):
        assert table.loc[["caa_mean_diff", "qp_optimal"], column].tolist() == pytest.approx(
            [want, want]
        )
    gain = (effects["probe_steered"] - effects["probe_base"])[outside].mean()
    assert gain <= norm * length * (1 + 1e-9)
    # Over all rows, at some of which the program has nothing to do, it would seem to beat that.
    assert gain > program["residual_norm_mean"] * length


def test_04_padding_changes_nothing(tiny):
    """Published: left-padded batches run without an attention mask."""
    rows, _ = batch_of(tiny, TEXTS, "left")
    sampling = Sampling(new_tokens=6, temperature=None)
    arguments = {"site": SITE, "vectors": np.zeros((4, D_MODEL), np.float32) + 0.3}
    together = generate(tiny, rows, TEXTS, sampling, **arguments)
    one = {**arguments, "vectors": arguments["vectors"][:1]}
    alone = [
        generate(tiny, [row], [text], sampling, **one)[0]
        for row, text in zip(rows, TEXTS, strict=True)
    ]
    assert together == alone
    limits = {"max_tokens": 16, "batch_tokens": 4096}
    batch = last_token_residuals(tiny, TEXTS, SITE, **limits)
    single = np.concatenate([last_token_residuals(tiny, [t], SITE, **limits) for t in TEXTS])
    np.testing.assert_allclose(batch, single, atol=1e-5)


@pytest.mark.parametrize("positions", ["last", "all"])
def test_05_steering_starts_at_the_last_prompt_token_and_never_touches_bos(tiny, positions: str):
    """Published: δ is solved for the last token and added at every position, BOS included."""
    assert Settings().positions == "last"
    _, batch = batch_of(tiny, TEXTS, "left")
    vectors = torch.randn(4, D_MODEL, generator=torch.Generator().manual_seed(0)).numpy()
    seen = []

    def record(module, args, output):
        seen.append((output[0] if isinstance(output, tuple) else output).clone())

    def run(steered: bool) -> torch.Tensor:
        mask = batch.mask.long()
        if not steered:
            tiny.model(batch.ids, attention_mask=mask)
            return seen[-1]
        added = Intervention({SITE: RowVectors(vectors)})
        with steer(tiny, added, steered_positions(batch, positions)):
            late = tiny.blocks[SITE.layer].register_forward_hook(record)  # after the edit
            tiny.model(batch.ids, attention_mask=mask)
            late.remove()
        return seen[-1]

    early = tiny.blocks[SITE.layer].register_forward_hook(record)
    base = run(steered=False)
    early.remove()
    moved = (run(steered=True) - base).abs().amax(dim=2) > 1e-6
    expected = torch.zeros_like(moved)
    expected[:, -1] = True
    if positions == "all":
        expected = batch.mask & ~batch.bos
    assert moved[batch.mask].tolist() == expected[batch.mask].tolist()
    assert not moved[batch.bos].any()


def test_06_what_cannot_be_solved_is_stored_as_such(tiny):
    """Published: infeasible and failed solves become a zero vector and are scored as results."""
    method = ConvexOptimalSteering(epsilon=1e-3, tau=50.0)
    with pytest.raises(InfeasibleError):
        method.compute_steering_vector(H[0], PROBE.weight_vector, PROBE.bias, DECODER)
    prompts = pd.DataFrame({"example_id": IDS[:3], "text": TEXTS[:3]})
    settings = SETTINGS.model_copy(update={"socp_tau": [50.0], "socp_epsilon": [1e-3]})
    path = SteeringPath.fit(DECODER, PROBE.weight_vector)
    rows = solve_programs(grid("convex_optimal", settings), IDS[:3], H[:3], PROBE, path)
    assert set(rows["status"]) == {"infeasible"}
    found = SolutionVectors(rows, "unused", path)
    assert np.isnan(found.vectors(found.at(0, IDS[:3]))).all()
    effects = probe_effects(found, IDS[:3], H[:3], PROBE, PROBE)
    assert effects["probe_steered"].isna().all()
    made = generate_method(
        tiny,
        prompts,
        found,
        SITE,
        Sampling(new_tokens=2),
        positions="last",
        max_tokens=16,
        batch_size=4,
    )
    assert made["text"].isna().all() and set(made["status"]) == {"infeasible"}
    row = one_row(rows, effects, judged=(np.nan, np.nan), tokens=(0, 0), kl=(np.nan, np.nan))
    assert row["flip_rate"] == 0 and row["feasible_fraction"] == 0
    assert pd.isna(row["classifier_rate_steered"]) and "3 of 3 inputs infeasible" in row["warnings"]


def test_07_one_path_is_reused_by_every_input(monkeypatch: pytest.MonkeyPatch):
    """Published: a new problem object for each input, so the warm start has no effect."""
    fits, blocks = [], []
    fit = SteeringPath.fit
    monkeypatch.setattr(SteeringPath, "fit", lambda *a, **k: fits.append(1) or fit(*a, **k))
    method = QPOptimalSteering(tau=1.0)
    for h in H:
        method.compute_steering_vector(h, PROBE.weight_vector, PROBE.bias, DECODER)
    assert len(fits) == 1
    path = method._path
    follow = path._follower.block
    monkeypatch.setattr(path._follower, "block", lambda: blocks.append(1) or follow())
    path.qp(np.linspace(0.0, path.knots.s[-1] * 0.9, 1000), qp_lambda=1.0)
    assert blocks == []  # what was followed once is looked up


def compared(solutions: pd.DataFrame, effects: pd.DataFrame) -> pd.DataFrame:
    """The table of these methods, by method, with two prompts that none of them moves."""
    nothing = {"method": "no_steering", "strength_name": "alpha", "strength": 0.0}
    nothing |= {"status": "fixed", "l0": 0.0, "l1": 0.0, "residual_norm": 0.0}
    first = solutions[solutions["method"] == solutions["method"].iloc[0]]
    solutions = pd.concat([first.assign(**nothing), solutions])
    still = effects[effects["method"] == effects["method"].iloc[0]].assign(method="no_steering")
    for probe in ("probe", "eval_probe"):
        still[f"{probe}_steered"] = still[f"{probe}_base"]
    methods = list(dict.fromkeys(solutions["method"]))
    texts = pd.DataFrame(
        [
            {"method": name, "strength_index": 0, "example_id": prompt, "n_tokens": 1}
            for name in methods
            for prompt in ("p0", "p1")
        ]
    ).assign(kl_sum=0.0, base_nll_sum=1.0, judged=0.0, empty=0.0)
    settings = SETTINGS.model_copy(update={"methods": methods})
    measured = Measured(solutions, pd.concat([still, effects]), texts)
    return pareto_table(SUBJECT, measured, settings).set_index("method")


def one_row(
    solutions: pd.DataFrame | None = None,
    effects: pd.DataFrame | None = None,
    kl: tuple = (3.0, 6.0),
    tokens: tuple = (3, 12),
    judged: tuple = (1.0, 0.0),
) -> pd.Series:
    """The row of ``convex_optimal`` at its first strength, in a table with ``no_steering``."""
    found = solve("convex_optimal")
    solutions = found.rows if solutions is None else solutions
    effects = probe_effects(found, IDS, H, PROBE, PROBE) if effects is None else effects
    program = [frame[frame["strength_index"] == 0] for frame in (solutions, effects)]
    nothing = {"method": "no_steering", "strength_name": "alpha", "strength": 0.0}
    nothing |= {"status": "fixed", "l0": 0.0, "l1": 0.0, "residual_norm": 0.0}
    texts = pd.DataFrame(
        {
            "method": ["no_steering"] * 2 + ["convex_optimal"] * 2,
            "strength_index": 0,
            "example_id": ["p0", "p1"] * 2,
            "kl_sum": [0.0, 0.0, *kl],
            "base_nll_sum": [5.0, 5.0, *map(float, tokens)],
            "n_tokens": [5, 5, *tokens],
            "judged": [0.0, 0.0, *judged],
            "empty": 0.0,
        }
    )
    measured = Measured(
        solutions=pd.concat([program[0].assign(**nothing), program[0]]),
        probe_effects=pd.concat([program[1].assign(method=name) for name in texts.method.unique()]),
        texts=texts,
    )
    settings = SETTINGS.model_copy(update={"methods": ["no_steering", "convex_optimal"]})
    return pareto_table(SUBJECT, measured, settings).iloc[1]


def test_08_kl_is_a_mean_over_tokens():
    """Published: the KL is summed over positions and described as a mean."""
    assert one_row()["kl_mean"] == pytest.approx((3 / 3 + 6 / 12) / 2)
    longer = one_row(kl=(30.0, 60.0), tokens=(30, 120))  # ten times the text, as odd per token
    assert longer["kl_mean"] == pytest.approx(one_row()["kl_mean"])


def test_09_the_score_is_not_the_constraint_that_was_enforced():
    """Published: the headline counts the constraints that the program itself enforces."""
    judge = probe_of(np.linalg.svd(PROBE.weight_vector[None])[2][5])  # orthogonal: unmoved on w
    found = solve("convex_optimal")
    effects = probe_effects(found, IDS, H, PROBE, judge)
    steered = effects[effects["strength_index"] == 1]
    row = one_row(effects=effects[effects["strength_index"] == 1].assign(strength_index=0))
    assert (steered["probe_steered"] > 0).all() and row["flip_rate"] == 1
    outside = steered[steered["eval_probe_base"] <= 0]
    want = (outside["eval_probe_steered"] > 0).mean()
    assert row["eval_flip_rate"] == pytest.approx(want) != row["flip_rate"]
    # The rows that probe is fitted on are nobody else's.
    rows, _ = examples_of(labelled(), FLAT, concept(), SETTINGS, words)
    evaluation = set(rows.loc[rows["split"] == "evaluation", "text"])
    assert evaluation and not evaluation & set(rows.loc[rows["split"] != "evaluation", "text"])


def ready_for_a_script(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a workflow script run in this process, with its log in ``folder``."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", *machine._THREAD_VARIABLES):
        monkeypatch.setenv(name, "1")  # the script sets them; this puts them back
    monkeypatch.setenv("STEERING_THREADS", str(torch.get_num_threads()))
    (folder / "logs").mkdir()


class Files(SimpleNamespace):
    """Named files or parameters, as a script sees them."""

    def get(self, name, default=None):
        return getattr(self, name, default)

    def __iter__(self):
        return iter(vars(self).values())


class Inputs(Files):
    """Files of which some are lists, each file by itself when gone through."""

    def __iter__(self):
        for value in super().__iter__():
            yield from value if isinstance(value, list) else [value]


def test_10_queries_are_no_prompts_and_pairs_stay_together(tmp_path: Path):
    """Published: RepE is evaluated on the queries it was fitted on, and a TruthfulQA question
    falls on both sides of the split.
    """
    rows, _ = examples_of(labelled(), FLAT, concept(), SETTINGS, words)
    # RepE's queries are no prompts, and the two texts of a question share a split.
    persona = set(rows.loc[rows["split"] == "persona", "text"])
    assert not persona & set(build_prompts(concept(), SETTINGS, words)["text"])
    written = concept().model_dump() | {"queries": ["query 0", concept().prompts[0]]}
    (tmp_path / "concept.yaml").write_text(yaml.safe_dump(written))
    with pytest.raises(ConfigError, match="both a prompt and a query"):
        read_concept(tmp_path / "concept.yaml")
    table = pd.DataFrame({"q": [f"Q{i}?" for i in range(80)], "p": "yes", "n": [["no"]] * 80})
    task = Task(dataset="d.csv", question="q", positive="p", negative="n", concept="c")
    pairs, _ = examples_of(table, task, concept(), SETTINGS, words)
    pairs = pairs[pairs["split"].isin(SPLITS)]
    question = pairs["text"].str.split().str[0]  # not the group, which might be wrong
    assert pairs.groupby(question).size().eq(2).all()
    assert pairs.groupby(question)["split"].nunique().eq(1).all()


@pytest.mark.parametrize("target_class", [0, 1])
def test_11_every_method_steers_to_the_target_class(target_class: int):
    """Published: contrastive, RepE and top-k ignore the target class; single_feature is
    feature 0.
    """
    data, sign = fit_data(target_class), 1 if target_class == 1 else -1
    for method in (CAAContrastive(), CAARepE(), TopKFeatures(k=3)):
        towards = sign * (method.find(data, DECODER).vector @ DECODER[7])
        assert towards > 0.3, method.name
    single = SingleFeature().find(data, DECODER)
    assert single.features.tolist() == ([7] if target_class == 1 else [30])


@pytest.mark.parametrize("method", ["qp", "socp"])
def test_12_the_full_dictionary_is_solved(method: str):
    """Published: a prefilter whose activation half is filled up with inactive features."""
    h, w, b, tau = H[0], PROBE.weight_vector, PROBE.bias, 1.0
    delta = cp.Variable(D_SAE, nonneg=True)
    size = cp.norm(DECODER.T @ delta)
    reach = (DECODER @ w) @ delta >= tau - (h @ w + b)
    if method == "qp":
        steering = QPOptimalSteering(qp_lambda=2.0, tau=tau)
        cost = cp.sum(delta) + cp.sum_squares(DECODER.T @ delta)
        problem = cp.Problem(cp.Minimize(cost), [reach])
    else:
        epsilon = 1.02 * (tau - (h @ w + b)) / np.linalg.norm(w)  # tight: many features
        steering = ConvexOptimalSteering(epsilon=epsilon, tau=tau)
        problem = cp.Problem(cp.Minimize(cp.sum(delta)), [reach, size <= epsilon])
    problem.solve(solver="CLARABEL")
    plain = steering.compute_steering_vector(h, w, b, DECODER)
    np.testing.assert_allclose(plain, DECODER.T @ delta.value, atol=1e-4)
    # Which features are active on the input has no say in it.
    features = np.zeros(D_SAE)
    features[np.argsort(DECODER @ w)[: D_SAE // 2]] = 1.0
    np.testing.assert_array_equal(
        plain, steering.compute_steering_vector(h, w, b, DECODER, features)
    )
    # Where a prefilter is asked for, inactive features do not fill its activation half.
    active = np.arange(D_SAE) < 3
    scores = relevance(DECODER, w)
    allowed = prefilter(active.astype(float), scores, n_features=40)[0]
    relevant = scores >= np.sort(scores)[-20]
    np.testing.assert_array_equal(allowed, active | relevant)


def test_13_the_completion_alone_is_judged_and_truth_not_by_sentiment():
    """Published: the classifier scores prompt plus completion; truthfulness by sentiment."""
    heard: list[str] = []

    class Ear(ClassJudge):
        def _score(self, texts):
            heard.extend(texts)
            return np.full(len(texts), 0.9)

    table = pd.DataFrame(
        {
            "method": "m",
            "strength_index": 0,
            "draw": 0,
            "example_id": ["a", "b"],
            "prompt": ["The prompt", "Another"],
            "text": [" the completion", None],
        }
    )
    judged = judge_texts(table, Ear(), target_class=1)["judged"]
    assert heard == [" the completion"]
    assert judged.iloc[0] == 1 and np.isnan(judged.iloc[1])
    for name in ("gpt2_truthful", "gemma_truthful", "gemma_it_truthful"):
        assert resolve(CONFIG, name).task.classifier is None


@pytest.mark.parametrize("experiment", ["gpt2_truthful", "gpt2_sst2"])
def test_13_truth_without_a_judge_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experiment: str
):
    """The probe shares what is steered, and 'Istanbul.' is neither true nor false by itself."""
    ready_for_a_script(tmp_path, monkeypatch)
    rows = solve("convex_optimal").rows.query("strength_index == 1").assign(strength_index=0)
    rows["split"] = np.where(rows["example_id"].isin(IDS[:2]), "prompt", "test")
    nothing = {"method": "no_steering", "strength_name": "alpha", "strength": 0.0}
    nothing |= {"status": "fixed", "l0": 0.0, "l1": 0.0, "residual_norm": 0.0}
    rows = pd.concat([rows.assign(**nothing, tau=np.nan, epsilon=np.nan), rows])
    point = ["method", "strength_index", "example_id"]
    logits = {f"{p}_{when}": 0.5 for p in ("probe", "eval_probe") for when in ("base", "steered")}
    tables = {
        "solutions": rows,
        "effects": rows[rows["split"] == "test"][[*point, "split"]].assign(**logits),
        "divergence": rows[rows["split"] == "prompt"][point].assign(
            draw=0, kl_sum=0.1, base_nll_sum=1.0, n_tokens=2
        ),
        "judged": rows[rows["split"] == "prompt"][point].assign(
            draw=0,
            score=lambda texts: np.resize([0.3, 0.7], len(texts)),
            judged=lambda texts: texts["score"] > 0.5,
            empty=0.0,
        ),
    }
    found = {
        "layer": {"layer": 1},
        "probes": {"train": {"at_chance": False}},
        "provenance": {"config_sha256": "0" * 64, "code_sha256": "1" * 64},
    }
    for name, table in tables.items():
        table.to_parquet(tmp_path / name)
    for name, value in found.items():
        write_json(tmp_path / name, value)
    files = {name: tmp_path / name for name in (*tables, *found)}
    files |= {name: [files[name]] for name in ("divergence", "solutions")}
    settings = {"seed": 0, "bootstrap_resamples": 50, "selection_kl": 1.0, "draws": 1}
    task = resolve(CONFIG, experiment).task
    given = SimpleNamespace(
        log=[tmp_path / "logs" / "log"],
        params=Files(
            settings={**settings, "methods": ["no_steering", "convex_optimal"]},
            model={"id": "m"},
            task=task.model_dump(),
            task_name="t",
            plans=[],
        ),
        input=Inputs(**files),
        output=Files(pareto=tmp_path / "pareto.csv"),
        wildcards=Files(experiment=experiment),
    )
    script = ROOT / "workflow_scripts" / "pareto.py"
    runpy.run_path(str(script), init_globals={"snakemake": given})
    table = pd.read_csv(tmp_path / "pareto.csv")
    validate_table(table, "pareto")
    assert table["config_sha256"].eq("sha256:" + "0" * 12).all() and len(table) == 2
    if task.classifier is None:
        for said in ("judged by the evaluation probe", "shares the representation", "'Istanbul.'"):
            assert table["warnings"].str.contains(said).all()
    else:
        assert table["warnings"].isna().all()


def test_14_seed_limits_keys_and_names_all_count(tiny):
    """Published: the seed reaches one method; ``max_seq_len`` is ignored; unknown keys pass;
    result names omit α, ε, λ, layer and seed.
    """
    # The seed reaches sampling of rows, splits, the random direction and generation.
    other = SETTINGS.model_copy(update={"seed": 1, "rows_per_class": 40})
    few = SETTINGS.model_copy(update={"rows_per_class": 40})
    one, same, two = (
        examples_of(labelled(), FLAT, concept(), s, words)[0] for s in (few, few, other)
    )
    pd.testing.assert_frame_equal(one, same)
    assert set(one["text"]) != set(two["text"])
    by_text = [frame.set_index("text")["split"] for frame in (one, two)]
    common = [text for text in by_text[0].index if text in by_text[1].index]
    assert (by_text[0][common] != by_text[1][common]).any()
    all_rows = labelled().assign(group=lambda frame: frame["text"])
    splits = [assign_splits(all_rows, SETTINGS.model_copy(update={"seed": s})) for s in (0, 0, 1)]
    assert splits[0].equals(splits[1]) and not splits[0].equals(splits[2])
    random = next(m for m in fixed_methods(SETTINGS) if m.name == "random_direction")
    drawn = [random.find(fit_data(seed=s), DECODER).vector for s in (0, 0, 1)]
    assert np.array_equal(drawn[0], drawn[1]) and not np.allclose(drawn[0], drawn[2])
    rows, _ = batch_of(tiny, TEXTS, "left")
    texts = [
        generate(tiny, rows, TEXTS, Sampling(12, 1.0, 1.0, seed), site=SITE) for seed in (0, 0, 1)
    ]
    assert texts[0] == texts[1] != texts[2]
    # Texts beyond max_tokens are an error, or cut for the model as well.
    long = labelled()
    long.loc[0, "text"] = "w1 " * 40
    with pytest.raises(DataError, match="max_tokens"):
        examples_of(long, FLAT, concept(), SETTINGS, words)
    limits = {"batch_tokens": 4096}
    cut = last_token_residuals(tiny, ["w1 " * 40], SITE, max_tokens=6, **limits)
    short = last_token_residuals(tiny, ["w1 " * 5], SITE, max_tokens=64, **limits)
    np.testing.assert_allclose(cut, short, atol=1e-6)
    # An unknown key is an error that names it.
    with pytest.raises(ConfigError, match="max_seq_len: unknown key"):
        resolve({**CONFIG, "max_seq_len": 64}, "demo")
    # No two results share a name.
    sweep = Settings(qp_lambda=[0.5, 1.0], socp_tau=[0.5, 1.0])
    points = [p for method in METHODS for p in grid(method, sweep)]
    names = [(p.method, p.strength_name, p.strength) for p in points]
    assert len(set(names)) == len(names)
    parameters = [(p.method, p.tau, p.qp_lambda, p.epsilon) for p in points if is_program(p.method)]
    assert len(set(parameters)) == len(parameters)


# `prompting` and `lora` add nothing to the residual: theirs are a longer prompt and other weights.
@pytest.mark.parametrize("method", [method for method in METHODS if method not in WITHOUT_VECTOR])
def test_15_every_method_runs_through_one_cached_pass_a_token(tiny, tmp_path: Path, method: str):
    """Published: sweeps and comparisons call a method that does not exist; adaptive generation
    crashes for the SOCP and runs two passes without a KV cache for every token.
    """
    prompts = pd.DataFrame({"example_id": ["p0", "p1"], "text": TEXTS[:2]})
    residuals = last_token_residuals(tiny, TEXTS[:2], SITE, max_tokens=16, batch_tokens=64)
    settings = SETTINGS.model_copy(update={"socp_tau": [0.5], "socp_epsilon": [1e3, 1e4]})
    points = grid(method, settings)
    solver = None
    if is_program(method):
        path = SteeringPath.fit(DECODER, PROBE.weight_vector).extend(np.inf)
        rows = solve_programs(points, ["p0", "p1"], residuals, PROBE, path)
        found = SolutionVectors(rows, "unused", path)
        if is_adaptive(method):
            weight, bias = PROBE.weight_vector, PROBE.bias
            program = program_of(method)
            solver = AdaptiveSolver(path, weight, bias, program, SITE, tiny.device)
    else:
        fit_directions(fixed_methods(settings), fit_data(), DECODER, tmp_path / "d")
        rows = solve_fixed(points, ["p0", "p1"], *read_direction(tmp_path / "d", method))
        found = SolutionVectors(rows, tmp_path / "d")
    widths: list[int] = []
    count = tiny.blocks[0].register_forward_hook(
        lambda module, args, output: widths.append(
            (output[0] if isinstance(output, tuple) else output).shape[1]
        )
    )
    try:
        made = generate_method(
            tiny,
            prompts,
            found,
            SITE,
            Sampling(new_tokens=5, temperature=1.0, top_p=1.0),
            positions="last",
            max_tokens=16,
            batch_size=2,
            solver=solver,
        )
    finally:
        count.remove()
    assert made["text"].notna().all()
    assert len(made) == 2 * len(points)
    assert widths[:2] == [2, 3]  # two passes measure the cache
    del widths[:2]
    # One pass over the prompts, padded to a step of widths, then one token at a time.
    longest = max(len(row) for row in made["prompt_tokens"])
    over_prompts = [width for width in widths if width > 1]
    assert 1 <= len(over_prompts) <= len(points)
    assert set(over_prompts) == {padded_width(longest, tiny.shape.context)}
    assert len(widths) <= 5 * len(over_prompts)
