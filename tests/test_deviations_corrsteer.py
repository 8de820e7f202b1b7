"""One test for each place where the published CorrSteer code departs from its description.

The numbers are those of the list of deviations. Each test would fail if the published behaviour
were present here; where it is wanted to match a number it is a named option, off by default.
What only a stage or a rule could bring back is in ``test_deviations_corrsteer_stages.py``.
"""

import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "corrsteer"))

from corrsteer_world import (  # noqa: E402
    SITE,
    TinySAE,
    at_layers,
    session_of,
    spacing_tokenizer,
    word_rows,
    words_task,
)
from transformers import AutoTokenizer  # noqa: E402

from steering_core.config.corrsteer_schema import Arm, CorrSteerSettings  # noqa: E402
from steering_core.corrsteer.accumulate import Accumulators, StreamingHistogram  # noqa: E402
from steering_core.corrsteer.answers import (  # noqa: E402
    Decoding,
    OnlyOptions,
    answer,
)
from steering_core.corrsteer.capture import capture, feature_reader, raw_reader  # noqa: E402
from steering_core.corrsteer.examples import (  # noqa: E402
    PromptOptions,
    assign_splits,
    build_examples,
    build_prompts,
    joined,
)
from steering_core.corrsteer.fine_tune import training_ids  # noqa: E402
from steering_core.corrsteer.plan import (  # noqa: E402
    Plan,
    choose,
    make_plan,
)
from steering_core.corrsteer.report import paired  # noqa: E402
from steering_core.corrsteer.scores import PooledStatistic  # noqa: E402
from steering_core.corrsteer.selection import make_readers, select  # noqa: E402
from steering_core.corrsteer.success import (  # noqa: E402
    SemanticSimilarity,
    number,
)
from steering_core.corrsteer.tasks import TASKS, Source  # noqa: E402
from steering_core.errors import ConfigError, DataError, ModelError  # noqa: E402
from steering_core.generation.decode import continue_batch  # noqa: E402
from steering_core.metrics.refusal import Refusal  # noqa: E402
from steering_core.models.residual_stream import read_residuals  # noqa: E402
from steering_core.models.resources import run_sites  # noqa: E402
from steering_core.models.tokens import pad, tokenize  # noqa: E402

RULES = "".join(path.read_text() for path in sorted(ROOT.glob("rules/corrsteer*.smk")))
HOW = Decoding(new_tokens=3, batch_rows=4)
SAE_POST = {"layer": 2, "stream": "post", "centred": False, "prepend_bos": True}


def captured(lm, reader, statistic, prompts):
    batch = pad(prompts, lm.tokenizer, side="left", prepend_bos=True)
    with capture(lm, [reader], [statistic], batch) as found:
        made = continue_batch(lm, batch, 3, [])
    return found.values(reader.site.layer, statistic), made


def test_01_an_sae_reads_and_writes_at_its_own_site(tiny):
    resources = {"saes": [SAE_POST]}
    site = run_sites(resources, published=False)[2]
    early = run_sites(resources, published=True)[2]
    assert (site.hook_name, early.hook_name) == (
        "blocks.2.hook_resid_post",
        "blocks.2.hook_resid_pre",
    )
    assert CorrSteerSettings().published_site is False
    prompt = [1, 5, 6, 7]
    reader = raw_reader(site, tiny.shape.d_model)
    batch = pad([prompt], tiny.tokenizer, side="left", prepend_bos=True)
    with capture(tiny, [reader], [PooledStatistic("raw")], batch) as found:
        continue_batch(tiny, batch, 1, [])
    mask = torch.ones(1, 4, dtype=torch.bool)
    residual = read_residuals(tiny, [site, early], torch.tensor([prompt]), mask)
    got = found.values(2, PooledStatistic("raw"))[0]
    torch.testing.assert_close(got, residual[site.hook_name][0, -1], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(got, residual[early.hook_name][0, -1], atol=1e-2)
    vector = np.ones(tiny.shape.d_model, dtype=np.float32)
    ((where, added),) = Plan(None, {2: vector}, {2: site}, {}).intervention([2]).at.items()
    assert where == site and np.array_equal(added.vectors, vector)


@pytest.mark.parametrize("seed", [0, 1, 42, 43])
def test_02_a_run_evaluates_on_its_own_split_whatever_the_seed(seed):
    items = pd.DataFrame(
        {"item_id": [str(i) for i in range(200)], "source_split": "test", "prompt": range(200)}
    ).astype({"prompt": str})
    rows, _ = assign_splits(items, Source("d", "test"), CorrSteerSettings(), seed)
    parts = {k: set(v) for k, v in rows.groupby("split")["prompt"]}
    assert not parts["train"] & parts["test"] and not parts["validation"] & parts["test"]
    assert CorrSteerSettings().published_split is False


def test_03_mask_all_pools_no_padding(tiny):
    short, long = [1, 5], [1, 9, 8, 7, 6, 5, 4]
    reader = feature_reader(TinySAE(tiny.shape.d_model, 30), SITE)
    for pooling in ("max", "mean"):
        statistic = PooledStatistic("features", "all", pooling)
        alone, made = captured(tiny, reader, statistic, [short])
        padded, _ = captured(tiny, reader, statistic, [short, long])
        torch.testing.assert_close(alone[0], padded[0], atol=1e-5, rtol=1e-5)
        # nor BOS: what is left are the prompt's other token and the tokens made, but for the last
        fed = torch.tensor([[*short, *made[0][:-1]]])
        stream = read_residuals(tiny, [SITE], fed, torch.ones_like(fed, dtype=torch.bool))
        features = reader.encode(stream[SITE.hook_name][0, 1:])
        wanted = features.amax(0) if pooling == "max" else features.mean(0)
        torch.testing.assert_close(alone[0], wanted, atol=1e-5, rtol=1e-5)
    assert CorrSteerSettings().published_mask is False


def test_04_histogram_edges_rise_and_there_is_no_fallback():
    for signed in (False, True):
        assert (np.diff(StreamingHistogram(1, signed=signed).edges) > 0).all()
    made = Accumulators({(1, PooledStatistic()): 2})
    made.parts[1, PooledStatistic()].update(
        torch.tensor([[1.0, 0.0]] * 4), np.array([1, 0, 1, 0], bool)
    )
    with pytest.raises(ValueError, match="no fallback"):
        plan(Arm(score="mutual_information"), made)


def world(n=300):
    rng = np.random.default_rng(0)
    success = rng.random(n) < 0.5
    made = Accumulators({(layer, PooledStatistic()): 4 for layer in (1, 2)})
    for layer in (1, 2):
        values = rng.random((n, 4))
        values[:, 1] = success + rng.random(n) / layer  # for success, clearest at layer 2
        values[:, 2] = ~success + rng.random(n)  # against it
        made.parts[layer, PooledStatistic()].update(torch.tensor(values), success)
    return made


def plan(arm, accumulators=None):
    return make_plan(
        arm,
        accumulators or world(),
        {1: SITE, 2: replace(SITE, layer=2)},
        lambda layer, features: np.eye(4)[features],
        task_pooling="max",
        keep=4,
        seed=0,
    )


def test_05_signs_and_strategies_do_what_their_names_say():
    best = {
        sign: plan(Arm(sign=sign)).features.query("rank == 0") for sign in ("positive", "negative")
    }
    assert best["positive"]["feature"].tolist() == [1, 1]
    assert best["negative"]["feature"].tolist() == [2, 2]
    made = plan(Arm())
    accuracy = pd.DataFrame({"layer": [-1, 1, 2], "accuracy": [0.5, 0.6, 0.4]})
    assert choose("single", made).layers == (2,)  # one feature, not one of every layer
    assert choose("all", made).layers == (1, 2)  # no validation
    assert choose("pruned", made, accuracy).layers == (1,)


def test_06_numbers_of_gsm8k_and_its_few_shot_prompts(tiny_model):
    assert number("#### 1,080") == 1080 and number("#### 72.00") == Decimal(72)
    items = pd.DataFrame(
        {
            "item_id": [str(i) for i in range(40)],
            "source_split": "train",
            "prompt": [f"w1 w{i}\n" for i in range(40)],
            "gold": "#### 1",
            "worked": "w2 #### 1",
            "letters": [[]] * 40,
        }
    )
    rows, _ = build_examples(
        items,
        TASKS["gsm8k"],
        Source("d", "train"),
        CorrSteerSettings(few_shot=2),
        AutoTokenizer.from_pretrained(tiny_model),
        seed=0,
        prepend_bos=True,
        max_tokens=60,
    )
    assert rows.loc[rows["split"] == "test", "prompt"].str.count("#### 1").eq(2).all()


def test_07_selection_and_evaluation_ask_alike(tiny):
    """Both read prompts from one table and decode with one object."""
    rows = word_rows(12).assign(letters=[["w7", "w9"]] * 12)
    how = replace(HOW, restrict_options=True)
    readers = [raw_reader(SITE, tiny.shape.d_model)]
    selected = select(session_of(tiny, how), rows, readers, [PooledStatistic("raw")])
    evaluated = answer(tiny, rows, words_task(), how, None)
    assert selected.answers["text"].tolist() == evaluated["text"].tolist()
    assert set(evaluated["text"].str.split().str[0]) == {"w7", "w9"}
    assert RULES.count("settings=settings(*ANSWERING") == 6  # every stage that answers


@pytest.mark.parametrize("stage", ["answer", "select"])
def test_08_a_failure_while_generating_leaves_no_hook(tiny, monkeypatch, stage):
    def hooks():
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in tiny.model.modules())

    before, during = hooks(), []

    def broken(self, input_ids, scores):
        during.append(hooks())
        raise RuntimeError("broken")

    monkeypatch.setattr(OnlyOptions, "__call__", broken)
    rows = word_rows(4).assign(letters=[["w7", "w9"]] * 4)
    how = replace(HOW, restrict_options=True)
    with pytest.raises(RuntimeError, match="broken"):
        if stage == "answer":
            vectors = {1: np.ones(tiny.shape.d_model, np.float32)}
            answer(
                tiny, rows, words_task(), how, None, intervention=at_layers(vectors, {1: SITE}, [1])
            )
        else:
            reader = raw_reader(SITE, tiny.shape.d_model)
            select(session_of(tiny, how), rows, [reader], [PooledStatistic("raw")])
    assert during[0] > before == hooks()


def test_09_means_count_a_position_once_and_vectors_hold_every_feature_and_no_bias(tiny):
    reader = raw_reader(SITE, tiny.shape.d_model)
    prompt = tokenize(tiny.tokenizer, ["w4 w5 w6"], prepend_bos=True)[0]
    values, made = captured(tiny, reader, PooledStatistic("raw", "generation", "mean"), [prompt])
    fed = torch.tensor([prompt + made[0][:-1]])
    residual = read_residuals(tiny, [SITE], fed, torch.ones_like(fed, dtype=torch.bool))
    wanted = residual[SITE.hook_name][0, len(prompt) - 1 :].mean(0)
    torch.testing.assert_close(values[0], wanted, atol=1e-5, rtol=1e-5)
    both = plan(Arm(per_layer=2, sign="both", coefficient="difference"))
    steered = both.features.query("layer == 1 and steered")
    expected = np.zeros(4)
    expected[steered["feature"]] = steered["coefficient"]
    np.testing.assert_allclose(both.vectors[1], expected, rtol=1e-5)
    assert set(steered["feature"]) == {1, 2}


def test_10_baselines_are_paired_by_id_and_classifiers_are_never_replaced():
    before = pd.DataFrame(
        {
            "example_id": ["a", "b"],
            "prompt": ["p", "q"],
            "gold": "A",
            "n_options": 2,
            "text": ["A", "B"],
            "answer": ["A", "B"],
            "success": [True, False],
            "status": "ok",
            "reason": "",
            "layers": [[], []],
            "strength": "",
            "norm": 0.0,
            "n_features": 0,
        }
    )
    pairs = paired(before, before.iloc[::-1])
    assert pairs["success_before"].tolist() == pairs["success_after"].tolist() == [True, False]
    with pytest.raises(DataError):
        paired(before, before.assign(example_id=["a", "c"]))
    for success in (SemanticSimilarity(), Refusal()):
        with pytest.raises(ModelError, match="not loaded"):
            success.judge(["Paris"], ["refuse"], [()])


def test_11_training_rows_prompts_and_chat_template(tiny, tiny_model):
    rows = word_rows(2).assign(worked="w5")
    keeping = replace(tiny, tokenizer=spacing_tokenizer())
    (ids, n_prompt), *_ = training_ids(keeping, rows, prepend_bos=True)
    tokens = keeping.tokenizer.convert_ids_to_tokens(ids)
    assert tokens[0] == "<bos>" and tokens[n_prompt:] == [" ", "w5", "<eos>"]  # no line break
    assert joined("w1", "w5") == " w5" and joined("w1\n", "w5") == "w5"
    row = {"prompt": "p", "label": "safe"}
    assert TASKS["xstest"].read(row).prompt.endswith("Response:")
    assert TASKS["xstest"].published_read(row).prompt.endswith("Classification:")
    assert CorrSteerSettings().published_prompt is False
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    options = PromptOptions(chat_template=True)
    with pytest.raises(ConfigError, match="chat_template"):
        build_prompts(TASKS["mmlu"], ["q"], rows.iloc[:0], options, tokenizer)
    tokenizer.chat_template = "<bos>{{ messages[0]['content'] }} w9"
    assert build_prompts(TASKS["mmlu"], ["w1"], rows.iloc[:0], options, tokenizer) == ["<bos>w1 w9"]


def test_13_statistics_keep_their_digits_around_a_large_mean():
    rng = np.random.default_rng(0)
    success = rng.random(500) < 0.5
    values = 1e7 + rng.standard_normal((500, 3)) + success[:, None]
    made = Accumulators({(1, PooledStatistic("raw")): 3})
    for start in range(0, 500, 10):
        rows = slice(start, start + 10)
        made.parts[1, PooledStatistic("raw")].update(torch.tensor(values[rows]), success[rows])
    expected = [np.corrcoef(column - 1e7, success)[0, 1] for column in values.T]
    result = made.parts[1, PooledStatistic("raw")].correlation.result()
    np.testing.assert_allclose(result.correlation, expected, atol=1e-6)


def test_a_layer_without_an_sae_is_an_error(tiny):
    with pytest.raises(ModelError, match=r"no SAE for the layers \[1\]"):
        make_readers({}, {1: SITE}, [PooledStatistic()], tiny.shape.d_model)
