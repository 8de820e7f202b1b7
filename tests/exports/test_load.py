"""A loaded intervention does on a plain model what the experiment did."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from export_world import ALPHA, BIAS, DECODER, DIRECTION, SITE, TAU, UNIT, WEIGHT
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, pipeline

from steering_core import apply_all, load_intervention
from steering_core.errors import DataError, ModelError, StorageError
from steering_core.exports.export import export_row
from steering_core.generation.adaptive import AdaptiveSolver, RowPrograms
from steering_core.generation.intervention import (
    Intervention,
    RowVectors,
    run_steered,
    steered_positions,
)
from steering_core.models.tokens import TokenBatch
from steering_core.optimize.path import SteeringPath

METHODS = ["caa_mean_diff", "single_feature", "qp_shared", "qp_optimal", "qp_adaptive", "a_plan"]
METHODS += ["socp_adaptive"]


def hooks(lm):
    """All hooks of the model; transformers leaves some of its own."""
    found = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lm.model.modules()]
    return found, "generate" in vars(lm.model)


def greedy(model, inputs, **more):
    return model.generate(
        **inputs, do_sample=False, max_new_tokens=6, min_new_tokens=6, pad_token_id=0, **more
    )


@pytest.mark.parametrize("method", METHODS)
def test_steers_with_and_without_cache_in_a_batch_as_alone_and_leaves_no_hook(
    finished, tiny, inputs, method
):
    steering, before = load_intervention(finished, method), hooks(tiny)
    plain = greedy(tiny.model, inputs)
    with steering.apply(tiny.model, tiny.tokenizer) as applied:
        steered = greedy(tiny.model, inputs)
        again = greedy(tiny.model, inputs, use_cache=False)
        for k, mask in enumerate(inputs["attention_mask"].bool()):
            alone = {name: part[k : k + 1, mask] for name, part in inputs.items()}
            assert torch.equal(greedy(tiny.model, alone)[0, -6:], steered[k, -6:])
    assert applied.unsolved() == 0 and applied.passes > 6
    assert torch.equal(steered, again)
    assert not torch.equal(steered, plain)
    assert torch.equal(greedy(tiny.model, inputs), plain)
    assert hooks(tiny) == before


@pytest.mark.parametrize("positions", ["last", "all"])
@pytest.mark.parametrize("method", ["caa_mean_diff", "qp_adaptive"])
def test_a_forward_pass_has_the_logits_of_the_experiments_own_hooks(
    finished, tiny, inputs, method, positions
):
    steering = load_intervention(finished, method)
    if method == "qp_adaptive":
        path = SteeringPath.fit(DECODER, WEIGHT)
        solver = AdaptiveSolver(path, WEIGHT, BIAS, "qp", SITE, torch.device("cpu"))
        what = RowPrograms(solver, np.full(3, TAU), np.ones(3))
    else:
        what = RowVectors(ALPHA * UNIT * DIRECTION)
    ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
    where = steered_positions(TokenBatch(ids, mask, ids == 1), positions)
    run = lambda: tiny.model(**inputs).logits  # noqa: E731
    wanted, _ = run_steered(tiny, Intervention({SITE: what}, positions), where, run)
    with steering.apply(tiny.model, tiny.tokenizer, positions=positions):
        found = run()
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert not torch.allclose(found, run(), atol=1e-2)


def test_a_program_of_a_prompt_is_solved_at_its_last_token(finished, tiny, inputs):
    hidden = tiny.model(**inputs, output_hidden_states=True).hidden_states[3][:, -1]
    shortfall = TAU - (hidden.double().numpy() @ WEIGHT + BIAS)
    vectors = SteeringPath.fit(DECODER, WEIGHT).qp(shortfall, 1.0).vector
    assert (shortfall > 0).any()
    added = []
    with load_intervention(finished, "qp_optimal").apply(tiny.model, tiny.tokenizer):
        tiny.blocks[3].register_forward_pre_hook(lambda _, args: added.append(args[0]))
        try:
            tiny.model(**inputs)
        finally:
            tiny.blocks[3]._forward_pre_hooks.clear()
    np.testing.assert_allclose((added[0][:, -1] - hidden).numpy(), vectors, atol=1e-4)
    # … and no other token moves.
    plain = tiny.model(**inputs, output_hidden_states=True).hidden_states[3]
    assert torch.equal(added[0][:, :-1], plain[:, :-1])


def test_works_in_a_pipeline(finished, tiny):
    steering = load_intervention(finished, "qp_adaptive")
    options = {"do_sample": False, "max_new_tokens": 4, "return_tensors": True, "batch_size": 2}
    run = pipeline("text-generation", model=tiny.model, tokenizer=tiny.tokenizer)
    texts = ["<bos> w1 w2 w3", "<bos> w9"]
    with steering.apply(tiny.model, tiny.tokenizer):
        found = run(texts, **options)
    (first, second) = (one[0]["generated_token_ids"] for one in found)
    with steering.apply(tiny.model, tiny.tokenizer):
        for text, tokens in zip(texts, (first, second), strict=True):
            ids = tiny.tokenizer(text, return_tensors="pt")["input_ids"]
            alone = tiny.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False,
                max_new_tokens=4, pad_token_id=0,
            )  # fmt: skip
            assert alone[0, -4:].tolist() == list(tokens)[-4:]


def test_several_add_up_and_opposite_vectors_cancel(finished, tiny, inputs):
    up = load_intervention(finished, "caa_mean_diff")
    down = load_intervention(finished, "random_direction", ALPHA)  # the opposite direction
    plain = tiny.model(**inputs).logits
    with apply_all([up, down], tiny.model, tiny.tokenizer):
        torch.testing.assert_close(tiny.model(**inputs).logits, plain, rtol=0, atol=1e-5)
    with up.apply(tiny.model, tiny.tokenizer):
        once = tiny.model(**inputs).logits
        with up.apply(tiny.model, tiny.tokenizer):
            twice = tiny.model(**inputs).logits
        assert torch.equal(tiny.model(**inputs).logits, once)
    assert not torch.allclose(once, twice, atol=1e-3)


def test_bos_and_padding_are_steered_only_on_request(finished, tiny, inputs):
    steering = load_intervention(finished, "caa_mean_diff")
    plain = tiny.model(**inputs, output_hidden_states=True).hidden_states[3]
    seen = []
    for steer_bos in (False, True):
        handle = tiny.blocks[3].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        try:
            with steering.apply(tiny.model, tiny.tokenizer, positions="all", steer_bos=steer_bos):
                tiny.model(**inputs)
        finally:
            handle.remove()
    real, bos = inputs["attention_mask"].bool(), inputs["input_ids"] == 1
    moved = [(one - plain).norm(dim=-1) > 1e-3 for one in seen]
    assert torch.equal(moved[0], real & ~bos) and torch.equal(moved[1], real)


def test_hooks_are_removed_after_an_error_too(finished, tiny):
    before = hooks(tiny)
    with pytest.raises(RuntimeError, match="mine"):
        with load_intervention(finished, "qp_adaptive").apply(tiny.model, tiny.tokenizer):
            raise RuntimeError("mine")
    assert hooks(tiny) == before


def other_model(width, layers, name=""):
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=64, hidden_size=width, intermediate_size=64,
                    num_hidden_layers=layers, num_attention_heads=4)
    )  # fmt: skip
    model.config._name_or_path = name
    return model


@pytest.mark.parametrize(
    ("width", "layers", "name", "reason"),
    [(48, 4, "", "32 wide"), (32, 3, "", "4 layers deep"), (32, 4, "org/other", "is org/other")],
)
def test_a_model_that_does_not_fit_is_refused(finished, width, layers, name, reason):
    model, steering = other_model(width, layers, name), load_intervention(finished, "a_plan")
    with pytest.raises(ModelError, match=reason), steering.apply(model):
        pass
    if name:
        with steering.apply(model, check_name=False):
            model(torch.tensor([[1, 2]]))


def test_what_is_no_model_is_refused(finished):
    steering = load_intervention(finished, "caa_mean_diff")
    with (
        pytest.raises(ModelError, match="str is no model of transformers: load it with"),
        steering.apply("org/model"),
    ):
        pass


def test_a_prompt_read_in_chunks_is_refused(finished, tiny, inputs):
    steering = load_intervention(finished, "caa_mean_diff")
    with steering.apply(tiny.model), pytest.raises(ModelError, match="prefill_chunk_size"):
        greedy(tiny.model, inputs, prefill_chunk_size=2)


@pytest.mark.parametrize("option", ["prompt_lookup_num_tokens", "assistant_model"])
def test_candidates_that_are_read_with_the_prompt_are_refused(finished, tiny, inputs, option):
    steering = load_intervention(finished, "caa_mean_diff")
    value = 3 if option == "prompt_lookup_num_tokens" else tiny.model
    with steering.apply(tiny.model), pytest.raises(ModelError, match=f"leave out {option}"):
        greedy(tiny.model, {name: part[:1] for name, part in inputs.items()}, **{option: value})


def test_a_second_call_with_a_cache_is_not_told_to_begin_with_bos(finished, tiny, inputs, caplog):
    steering = load_intervention(finished, "caa_mean_diff")
    first = {name: part[:1] for name, part in inputs.items()}
    cache = DynamicCache()
    with steering.apply(tiny.model, tiny.tokenizer):
        tokens = greedy(tiny.model, first, past_key_values=cache)
        longer = torch.cat([tokens, torch.tensor([[9, 12]])], dim=1)
        again = {"input_ids": longer, "attention_mask": torch.ones_like(longer)}
        greedy(tiny.model, again, past_key_values=cache)
    assert "BOS" not in caplog.text


def test_a_model_of_the_folder_that_one_is_in_is_compared_by_the_folders_name(
    finished, tmp_path, monkeypatch
):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    model = other_model(32, 4, ".")
    with (
        pytest.raises(ModelError, match="a vector of one model means nothing in another"),
        load_intervention(finished, "a_plan").apply(model),
    ):
        pass


@pytest.mark.parametrize(
    ("method", "given", "problem"),
    [
        ("no_steering", {}, "adds nothing"),
        ("convex_optimal", {}, "infeasible for every input"),
        ("random_direction", {}, "which strength of random_direction.* none is selected in"),
        ("caa_mean_diff", {"strength": 9.0}, "has no strength 9; give strength_index"),
        ("caa_mean_diff", {"strength_index": 7}, "has no strength number 7; it has 0: alpha 0.1"),
        ("caa_repe", {}, "no solutions of caa_repe"),
    ],
)
def test_rows_that_cannot_be_loaded(finished, method, given, problem):
    with pytest.raises(DataError, match=problem):
        load_intervention(finished, method, **given)


def test_the_strength_is_in_units_of_the_table_and_by_default_the_selected_one(finished):
    (weak,) = load_intervention(finished, "caa_mean_diff", 0.1).at.values()
    (chosen,) = load_intervention(finished, "caa_mean_diff").at.values()
    np.testing.assert_allclose(weak.vector, 0.1 * UNIT * DIRECTION)
    np.testing.assert_allclose(chosen.vector, ALPHA * UNIT * DIRECTION)


@pytest.mark.parametrize("method", METHODS)
def test_an_export_does_the_same_as_the_row_it_was_made_of(
    finished, tiny, inputs, tmp_path, method
):
    export_row(finished, method, tmp_path / "out")
    logits = []
    for steering in (load_intervention(finished, method), load_intervention(tmp_path / "out")):
        with steering.apply(tiny.model, tiny.tokenizer):
            logits.append(tiny.model(**inputs).logits)
    assert torch.equal(*logits)


def test_a_changed_export_and_a_missing_one_are_refused(finished, tmp_path):
    out = tmp_path / "out"
    export_row(finished, "caa_mean_diff", out)
    with pytest.raises(StorageError, match="exists: delete it"):
        export_row(finished, "caa_mean_diff", out)
    shutil.copy(finished / "probe.safetensors", out / "intervention.safetensors")
    with pytest.raises(StorageError, match="was changed"):
        load_intervention(out)
    with pytest.raises(StorageError, match="give the directory"):
        load_intervention(tmp_path)
    with pytest.raises(StorageError, match="is no directory"):
        load_intervention(tmp_path / "nowhere", "qp_optimal")


def test_importing_the_package_loads_no_library():
    code = "import sys, steering_core; print(*{'torch', 'numpy', 'transformers'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_lines_of_the_readme_run_as_they_stand(finished, tiny, inputs):
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(from steering_core import load_.*?)```", readme, re.DOTALL)
    known = {"model": tiny.model, "tokenizer": tiny.tokenizer, "inputs": inputs}
    exec(lines.replace("results/demo", str(finished), 1), known)
    assert known["steering"].facts["method"] == "qp_adaptive"


def test_a_decode_loop_of_the_users_own_is_steered(finished, tiny, inputs):
    steering = load_intervention(finished, "qp_adaptive")

    def mine(model, input_ids, **kwargs):
        cache, given, mask = None, input_ids, kwargs["attention_mask"]
        for _ in range(6):
            out = model(
                input_ids=given, attention_mask=mask, past_key_values=cache, use_cache=True,
                position_ids=(mask.cumsum(-1) - 1).clamp(min=0)[:, -given.shape[1] :],
            )  # fmt: skip
            cache, given = out.past_key_values, out.logits[:, -1:].argmax(-1)
            input_ids = torch.cat([input_ids, given], dim=1)
            mask = torch.cat([mask, torch.ones_like(given)], dim=1)
        return input_ids

    with torch.no_grad(), steering.apply(tiny.model, tiny.tokenizer):
        wanted = greedy(tiny.model, inputs)
        assert torch.equal(mine(tiny.model, **inputs), wanted)
        found = tiny.model.generate(**inputs, custom_generate=mine)
    assert torch.equal(found, wanted)
