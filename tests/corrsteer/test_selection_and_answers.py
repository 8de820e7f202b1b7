"""Selection while generating, and answers under steering of several layers."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from corrsteer_world import SITE, TinySAE, at_layers, session_of, word_rows, words_task
from steered_generation import generate

from steering_core.corrsteer.answers import (
    Decoding,
    Session,
    answer,
    complete,
    option_tokens,
    undefined,
    write_answers,
)
from steering_core.corrsteer.kept_answers import answer_choice, validate_layers
from steering_core.corrsteer.plan import FEATURE_COLUMNS, Choice, Plan
from steering_core.corrsteer.report import result_table
from steering_core.corrsteer.scores import PooledStatistic
from steering_core.corrsteer.selection import make_readers, select
from steering_core.errors import DataError, ModelError
from steering_core.generation import decode
from steering_core.generation.intervention import Intervention, RowVectors
from steering_core.generation.sampling import Sampling
from steering_core.models.tokens import tokenize
from steering_core.tables.columns import validate_table

HOW = Decoding(new_tokens=4, batch_rows=4, prepend_bos=True)
STATISTICS = [PooledStatistic(), PooledStatistic("features", "generation", "mean")]
SITES = {layer: replace(SITE, layer=layer) for layer in (1, 3)}


def selected(lm, rows, how=HOW, **options):
    saes = {layer: TinySAE(lm.shape.d_model, 40, layer) for layer in SITES}
    readers = make_readers(saes, SITES, STATISTICS, lm.shape.d_model)
    return select(session_of(lm, how, sites=SITES), rows, readers, STATISTICS, **options)


def test_selection_answers_as_plain_generation_does(tiny):
    rows = word_rows(30)
    found = selected(tiny, rows)
    plain = answer(tiny, rows, words_task(), HOW, None)
    assert found.answers["text"].tolist() == plain["text"].tolist()
    assert found.answers["example_id"].tolist() == rows["example_id"].tolist()
    result = found.accumulators.parts[1, PooledStatistic()].correlation.result()
    assert (result.n, result.n_positive) == (30, int(plain["success"].sum()))
    assert 0 < result.n_positive < 30


def test_batch_size_and_order_change_nothing_but_rounding(tiny):
    rows = word_rows(30)
    one = selected(tiny, rows, replace(HOW, batch_rows=1))
    many = selected(tiny, rows.iloc[::-1].reset_index(drop=True), replace(HOW, batch_rows=7))
    for key, part in one.accumulators.parts.items():
        np.testing.assert_allclose(
            part.correlation.result().correlation,
            many.accumulators.parts[key].correlation.result().correlation,
            atol=1e-4,
        )


def mixed_rows(n=40):
    """Prompts of 2 to 50 words: several widths."""
    rng = np.random.default_rng(3)
    prompts = [
        " ".join(f"w{i}" for i in rng.integers(0, 60, int(rng.integers(2, 51)))) for _ in range(n)
    ]
    return word_rows(n).assign(prompt=prompts)


def assert_same_statistics(found, expected):
    """Counts are equal; sums are, but for rounding."""
    for key, part in found.parts.items():
        mine, other = part.correlation.result(), expected.parts[key].correlation.result()
        assert (mine.n, mine.n_positive) == (other.n, other.n_positive)
        np.testing.assert_array_equal(mine.active_positive, other.active_positive)
        for name in ("mean", "correlation", "mean_positive"):
            np.testing.assert_allclose(getattr(mine, name), getattr(other, name), atol=1e-5)


@pytest.mark.parametrize("batch_rows", [1, 3, 8, 16])
def test_answers_do_not_depend_on_batch_rows(tiny, batch_rows, monkeypatch):
    widths = []
    own = decode.continue_batch

    def noted(lm, batch, *rest):
        widths.append(batch.ids.shape)
        return own(lm, batch, *rest)

    monkeypatch.setattr(decode, "continue_batch", noted)
    rows, added = mixed_rows(), vectors(tiny)
    how = replace(HOW, batch_rows=batch_rows)
    kwargs = {"intervention": at_layers(added, SITES, (1, 3))}
    whole = answer(tiny, rows, words_task(), replace(HOW, batch_rows=40), None, **kwargs)
    wide = {shape[1] for shape in widths}
    widths.clear()
    pd.testing.assert_frame_equal(answer(tiny, rows, words_task(), how, None, **kwargs), whole)
    assert {shape[1] for shape in widths} == wide
    assert all(shape[0] == max(8, batch_rows) for shape in widths[:-3])
    assert all(shape[0] % 8 == 0 for shape in widths)


def test_out_of_memory_while_selecting_halves_and_changes_no_statistic(tiny, monkeypatch, caplog):
    rows, how = mixed_rows(), replace(HOW, batch_rows=16)
    whole = selected(tiny, rows, how)
    own, sizes = tiny.model.generate, []

    def scarce(input_ids, **options):
        sizes.append(len(input_ids))
        made = own(input_ids=input_ids, **options)  # what is captured by then must be forgotten
        if len(input_ids) > 8:
            raise torch.OutOfMemoryError("out of memory")
        return made

    monkeypatch.setattr(tiny.model, "generate", scarce)
    found = selected(tiny, rows, how)
    assert sizes[0] == 16 and set(sizes[1:]) == {8}
    assert "out of memory with 16 at a time: going on with 8" in caplog.text
    pd.testing.assert_frame_equal(found.answers, whole.answers)
    assert found.accumulators.n == whole.accumulators.n == len(rows)
    assert_same_statistics(found.accumulators, whole.accumulators)


def test_rows_that_fill_a_batch_are_not_counted(tiny):
    """Three rows in a batch of eight, as three batches of one row each."""
    rows = word_rows(3)
    together = selected(tiny, rows).accumulators
    apart = [selected(tiny, rows.iloc[[i]].reset_index(drop=True)).accumulators for i in range(3)]
    for other in apart[1:]:
        apart[0].merge(other)
    assert_same_statistics(together, apart[0])


def test_snapshots_note_the_best_feature_as_samples_come_in(tiny):
    found = selected(tiny, word_rows(30), snapshots=[8, 20, 1000])
    assert sorted(set(found.snapshots["n"])) == [8, 20, 30]
    last = found.snapshots.query(
        "n == 30 and layer == 3 and pooled_statistic == @s",
        local_dict={"s": str(PooledStatistic())},
    ).iloc[0]
    result = found.accumulators.parts[3, PooledStatistic()].correlation.result()
    assert last["feature"] == np.nanargmax(result.correlation)
    assert last["correlation"] == pytest.approx(np.nanmax(result.correlation))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_snapshot_is_of_the_first_rows_not_of_the_shortest(tiny, device, monkeypatch):
    if device == "cuda":  # one group by length, as there
        monkeypatch.setattr(
            decode,
            "width_groups",
            lambda lm, n, new: [(0, sorted(range(len(n)), key=lambda i: n[i]))],
        )
    rows, how = mixed_rows(), replace(HOW, batch_rows=16)
    batches = complete(tiny, rows, how, cuts=[5, 12])
    seen = [i for decoded, _ in batches for i in decoded.rows]
    assert sorted(seen) == list(range(40))
    assert set(seen[:5]) == set(range(5)) and set(seen[:12]) == set(range(12))
    found = selected(tiny, rows, how, snapshots=[5, 12]).snapshots
    first = selected(tiny, rows.iloc[:12], how).snapshots
    assert sorted(set(found["n"])) == [5, 12, 40]
    pd.testing.assert_frame_equal(
        found[found["n"] == 12].reset_index(drop=True), first.reset_index(drop=True), atol=1e-4
    )


def test_memory_of_the_accumulators_does_not_grow(tiny):
    def size(n):
        arrays = selected(tiny, word_rows(n)).accumulators.to_arrays()
        return {name: array.nbytes for name, array in arrays.items()}

    assert size(8) == size(40)


def vectors(lm, scale=8.0):
    rng = np.random.default_rng(0)
    return {layer: scale * rng.standard_normal(lm.shape.d_model).astype("f4") for layer in SITES}


def test_all_layers_are_steered_in_one_pass_at_the_last_position(tiny):
    rows, added = word_rows(9), vectors(tiny)
    both = answer(
        tiny,
        rows,
        words_task(),
        HOW,
        None,
        intervention=at_layers(added, SITES, (1, 3)),
    )
    base = answer(tiny, rows, words_task(), HOW, None)
    assert (both["text"] != base["text"]).any()
    assert both["layers"].tolist() == [[1, 3]] * 9

    # The same with forward hooks of our own, a row at a time, without a cache.
    def hook(layer):
        def add(module, args, output):
            output[:, start - 1 :] += torch.tensor(added[layer])
            return output

        return tiny.blocks[layer].register_forward_hook(add)

    for text, prompt in zip(
        both["text"],
        tokenize(tiny.tokenizer, rows["prompt"].tolist(), prepend_bos=True),
        strict=True,
    ):
        start, ids = len(prompt), list(prompt)
        handles = [hook(1), hook(3)]
        with torch.no_grad():
            for _ in range(HOW.new_tokens):
                ids.append(int(tiny.model(torch.tensor([ids])).logits[0, -1].argmax()))
                if ids[-1] == tiny.tokenizer.eos_token_id:
                    break
        for handle in handles:
            handle.remove()
        assert text == tiny.tokenizer.decode(ids[start:], skip_special_tokens=True)


def test_a_vector_per_row_goes_to_its_row(tiny):
    rows = word_rows(6)
    each = np.random.default_rng(1).standard_normal((6, tiny.shape.d_model)).astype("f4") * 8
    together = answer(
        tiny, rows, words_task(), HOW, None, intervention=Intervention({SITES[1]: RowVectors(each)})
    )
    for i in range(6):
        alone = answer(
            tiny,
            rows.iloc[[i]].reset_index(drop=True),
            words_task(),
            HOW,
            None,
            intervention=Intervention({SITES[1]: RowVectors(each[i])}),
        )
        assert alone["text"].item() == together["text"].iloc[i]


def test_zero_steering_changes_nothing(tiny):
    rows = word_rows(8)
    zero = dict.fromkeys(SITES, np.zeros(tiny.shape.d_model, "f4"))
    steered = answer(
        tiny, rows, words_task(), HOW, None, intervention=at_layers(zero, SITES, SITES)
    )
    assert steered["text"].tolist() == answer(tiny, rows, words_task(), HOW, None)["text"].tolist()


def test_greedy_texts_are_those_of_generate(tiny):
    rows = word_rows(10)
    prompts = tokenize(tiny.tokenizer, rows["prompt"].tolist(), prepend_bos=True)
    made = generate(
        tiny, prompts, rows["example_id"].tolist(), Sampling(4, None), site=SITE, batch_size=3
    )
    texts = {
        i: text
        for decoded, got in complete(tiny, rows, HOW)
        for i, text in zip(decoded.rows, got, strict=True)
    }
    assert [texts[i] for i in range(10)] == tiny.tokenizer.batch_decode(
        made, skip_special_tokens=True
    )


def test_hooks_are_gone_after_a_failed_answer(tiny):
    rows, task = word_rows(4), words_task()
    with pytest.raises(DataError, match="not finite"):
        nan = Intervention({SITE: RowVectors(np.full(32, np.nan))})
        answer(tiny, rows, task, HOW, None, intervention=nan)
    with pytest.raises(DataError, match="another model"):
        short = Intervention({SITE: RowVectors(np.ones(7))})
        answer(tiny, rows, task, HOW, None, intervention=short)

    class Broken(type(task.success)):
        def judge(self, *args, **kwargs):
            raise RuntimeError("judge failed")

    with pytest.raises(RuntimeError, match="judge failed"):
        selected_task = replace(task, success=Broken())
        readers = make_readers({}, SITES, [PooledStatistic("raw")], tiny.shape.d_model)
        select(session_of(tiny, HOW, selected_task), rows, readers, [PooledStatistic("raw")])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in [tiny.model, *tiny.blocks])


def test_options_alone_can_be_the_first_token(tiny):
    rows = word_rows(12).assign(letters=[["w7", "w9"]] * 12)
    how = replace(HOW, restrict_options=True)
    texts = [text for _, got in complete(tiny, rows, how) for text in got]
    assert {text.split()[0] for text in texts} == {"w7", "w9"}
    with pytest.raises(ModelError, match="no options"):
        list(complete(tiny, word_rows(2), how))
    with pytest.raises(ModelError, match="not one token"):
        option_tokens(tiny.tokenizer, ["w7", "Q"])


def test_prompts_beyond_the_context_are_an_error(tiny):
    rows = word_rows(1).assign(prompt="w1 " * 80)
    with pytest.raises(DataError, match="positions"):
        list(complete(tiny, rows, HOW))


def test_undefined_answers_say_why_and_can_be_written(tiny, tmp_path):
    table = undefined(word_rows(3), "no successful sample")
    write_answers(tmp_path / "a.parquet", table)
    again = pd.read_parquet(tmp_path / "a.parquet")
    assert set(again["status"]) == {"undefined"} and again["success"].isna().all()
    assert set(again["reason"]) == {"no successful sample"}


def test_answers_on_some_layers_name_the_others_with_the_reason(tiny):
    rows, added = word_rows(3), vectors(tiny)
    run = Session(tiny, words_task(), HOW, None, False, SITES)
    empty = pd.DataFrame(columns=list(FEATURE_COLUMNS)).astype(FEATURE_COLUMNS)
    plan = Plan(empty, added, SITES, {2: "no SAE", 4: "never fires"})
    found = answer_choice(run, rows, plan, Choice((1, 3)))
    told = "no vector at layer 2: no SAE; no vector at layer 4: never fires"
    assert set(found["reason"]) == {told} and set(found["status"]) == {"ok"}
    runs = {0: {"unsteered": answer_choice(run, rows, None, None), "corrsteer_a": found}}
    table = result_table("e", runs, n_resamples=10).set_index(["method", "seed"])
    assert table.loc[("corrsteer_a", "all"), "reason"].startswith(f"3 x {told}")
    assert table.loc[("unsteered", "all"), "reason"] == ""
    whole = answer_choice(run, rows, Plan(empty, added, SITES, {}), Choice((1, 3)))
    assert set(whole["reason"]) == {""}


def test_every_layer_is_validated_alone(tiny):
    from steering_core.corrsteer.plan import FEATURE_COLUMNS, Plan

    plan = Plan(pd.DataFrame(columns=list(FEATURE_COLUMNS)), vectors(tiny), SITES, {})
    seen = []

    class Answers:
        """A session that notes which layers are steered."""

        def answer(self, rows, intervention=None):
            seen.append([] if intervention is None else intervention.layers)
            return pd.DataFrame({"success": [True, intervention is None]})

    table = validate_layers(Answers(), word_rows(2), plan)
    validate_table(table, "plans/{arm}.validation")
    assert seen == [[], [1], [3]]
    assert table["layer"].tolist() == [-1, 1, 3] and table["accuracy"].tolist() == [1.0, 0.5, 0.5]
