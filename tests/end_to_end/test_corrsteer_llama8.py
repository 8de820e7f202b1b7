"""`llama8` on MMLU-Pro as configured, on tiny stand-ins served under the ids the config names."""

import importlib.util
import json
import os
import shutil
from pathlib import Path

import forked_jobs
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from steering_core.corrsteer.tasks import LETTERS
from steering_core.demo.language_model import word_tokenizer

ROOT = Path(__file__).resolve().parents[2]
SERVE = ROOT.parent / "shared" / "hub" / "serve.py"
WIDTH, N_LAYERS, N_FEATURES = 32, 4, 64
TABLES = "results/tables/corrsteer"
CELLS = {
    "corrsteer_a": f"{TABLES}/accuracy/corrsteer_a-mmlu_pro.json",
    "corrsteer_s": f"{TABLES}/ser/corrsteer_s-mmlu_pro.json",
    "fine_tuning": f"{TABLES}/accuracy/fine_tuning-mmlu_pro.json",
    "caa": f"{TABLES}/accuracy/caa-mmlu_pro.json",
}
SPARSE_METHODS = ["caa_contrastive", "qp_optimal"]  # test_sparse_methods.py has the others
SMALL = {
    "train_rows": 48,
    "min_outcomes": 1,
    "validation_rows": 12,
    "test_rows": 24,
    "bootstrap_resamples": 200,
    "few_shot": 1,
    "restrict_options": True,
    "corrsteer": {
        "tables_model": "llama8",
        "settings": {
            "arms": dict.fromkeys(["random_feature", "random_all", "spare_mi", "dsg_fisher", "caa"])
            | {"corrsteer_s": {"strategy": "single", "scale": 20.0}},
            "fine_tuning": {"method": "lora"},
            "sparse_methods": {"methods": SPARSE_METHODS, "strengths": [0.5], "tau": [0.5, 2.0]},
        },
    },
}


def write_rows(folder: Path) -> None:
    """MMLU-Pro's columns, with three to ten options and the letter as answer."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, n in (("train", 80), ("test", 40)):
        rows = []
        for i in range(n):
            size = int(rng.integers(3, 11))
            answer = int(rng.integers(3))
            rows.append(
                {
                    "question_id": i,
                    "question": f"which w{i % 50} is w{rng.integers(50)} {split}",
                    "options": [f"w{k}" for k in rng.integers(0, 50, size)],
                    "answer": LETTERS[answer],
                    "answer_index": answer,
                    "cot_content": "",
                    "category": "tiny",
                }
            )
        pd.DataFrame(rows).to_parquet(folder / f"{split}-00000-of-00001.parquet")


def write_model(folder: Path) -> None:
    words = " ".join(
        [
            *LETTERS,
            *(f"w{i}" for i in range(50)),
            "which is train test . , : or Choose one of the following options only Answer",
        ]
    )
    tokenizer = word_tokenizer([words], context_size=256)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_saes(folder: Path) -> None:
    """The files of llama_scope: a scalar JumpReLU threshold, decoder rows of any norm."""
    for layer in range(N_LAYERS):
        here = folder / f"Llama3_1-8B-Base-L{layer}R-8x"
        (here / "checkpoints").mkdir(parents=True)
        hyperparameters = {
            "d_model": WIDTH,
            "d_sae": N_FEATURES,
            "jump_relu_threshold": 0.5,
            "hook_point_in": f"blocks.{layer}.hook_resid_post",
            "dataset_average_activation_norm": {"in": 6.0, "out": 6.0},
        }
        (here / "hyperparams.json").write_text(json.dumps(hyperparameters))
        generator = torch.Generator().manual_seed(layer)
        rows = torch.randn(N_FEATURES, WIDTH, generator=generator)
        rows = rows / rows.norm(dim=1, keepdim=True)
        weights = {
            "encoder.weight": rows,
            "encoder.bias": torch.zeros(N_FEATURES),
            "decoder.weight": (3.0 * rows).T,
            "decoder.bias": torch.full((WIDTH,), 0.5),  # no part of any vector
        }
        save_file(
            {name: value.contiguous().to(torch.bfloat16) for name, value in weights.items()},
            here / "checkpoints" / "final.safetensors",
        )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    if not SERVE.is_file():
        pytest.skip("../shared/hub is absent: nothing serves the stand-ins")
    spec = importlib.util.spec_from_file_location("hub_serve_llama", SERVE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    directory = tmp_path_factory.mktemp("llama8")
    hub = directory / "hub"
    write_rows(hub / "datasets" / "rbiswasfc" / "MMLU-Pro" / "data")
    write_model(hub / "models" / "meta-llama" / "Llama-3.1-8B")
    write_saes(hub / "models" / "fnlp" / "Llama3_1-8B-Base-LXR-8x")
    server = module.serve(hub, 0)
    shutil.copy(ROOT / "config.yaml", directory)
    (directory / "small.yaml").write_text(yaml.safe_dump(SMALL))
    arguments = [
        *("--cores", "2", "--directory", str(directory)),
        *("results/llama8_mmlu_pro/corrsteer.csv", *CELLS.values()),
        *("--configfile", str(directory / "small.yaml")),
    ]
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
        "HF_HOME": str(directory / "hf"),
    }
    run = forked_jobs.run(arguments, env=environment, first_anew=True)
    server.shutdown()
    assert run.returncode == 0, run.stderr[-4000:]
    return directory


def test_every_strategy_is_in_the_table(finished):
    table = pd.read_csv(finished / "results/llama8_mmlu_pro/corrsteer.csv")
    table = table[table["seed"] == "all"].set_index("method")
    strategies = {"corrsteer_s", "corrsteer_a", "corrsteer_p"}
    assert set(table.index) == {"unsteered", *strategies, "fine_tuning", *SPARSE_METHODS}
    defined = table[table["status"] == "ok"]
    assert {"unsteered", "corrsteer_s", "corrsteer_a", "fine_tuning"} <= set(defined.index)
    assert (defined["n"] == 24).all() and defined["accuracy"].between(0, 1).all()
    assert table.loc["corrsteer_a", "layers"].split() == ["1", "2", "3"]
    undefined = table[table["status"] != "ok"]["reason"]
    assert undefined.drop(SPARSE_METHODS, errors="ignore").str.contains("validation accuracy").all()


def test_saes_sit_at_their_hook_point_and_rows_have_unit_norm(finished):
    resources = json.loads(
        (finished / "results/llama8_mmlu_pro/corrsteer/resources.json").read_text()
    )
    assert [sae["hook_name"] for sae in resources["saes"]] == [
        f"blocks.{layer}.hook_resid_post" for layer in (1, 2, 3)
    ]
    from steering_core.corrsteer.plan import Plan

    folder = finished / "results/llama8_mmlu_pro/corrsteer/seed-0/plans"
    plan = Plan.load(folder / "corrsteer_a.safetensors")
    for layer, vector in plan.vectors.items():
        best = plan.features.set_index(["layer", "rank"]).loc[(layer, 0)]
        assert np.linalg.norm(vector) == pytest.approx(abs(best["coefficient"]), rel=0.02)
        # along the feature's own row of the file, whose decoder has a bias
        here = f"Llama3_1-8B-Base-L{layer}R-8x/checkpoints/final.safetensors"
        decoder = load_file(finished / "hub/models/fnlp/Llama3_1-8B-Base-LXR-8x" / here)
        row = decoder["decoder.weight"].float().numpy()[:, int(best["feature"])]
        cosine = vector @ row / np.linalg.norm(vector) / np.linalg.norm(row)
        assert cosine == pytest.approx(np.sign(best["coefficient"]), abs=1e-3)


def test_steering_reaches_the_answers_and_options_keep_to_each_question(finished):
    folder = finished / "results/llama8_mmlu_pro/corrsteer/seed-0/answers"
    before = pd.read_parquet(folder / "unsteered.parquet")
    after = pd.read_parquet(folder / "corrsteer_s.parquet")
    assert (before["text"] != after["text"]).any()
    rows = pd.read_parquet(finished / "results/llama8_mmlu_pro/corrsteer/seed-0/examples.parquet")
    letters = rows.set_index("example_id")["letters"]
    for answers in (before, after):
        pairs = zip(answers["example_id"], answers["answer"], strict=True)
        assert all(answer in letters[example] for example, answer in pairs)


def test_cells_are_measured_or_say_why_not(finished):
    cells = {name: json.loads((finished / path).read_text()) for name, path in CELLS.items()}
    table = pd.read_csv(finished / "results/llama8_mmlu_pro/corrsteer.csv")
    measured = table.query("method == 'corrsteer_a' and seed == 'all'")["accuracy"].item()
    cell = cells["corrsteer_a"]
    assert cell["measured"] == pytest.approx(100 * measured)
    assert cell["published"] is not None
    assert cell["difference"] is None and "published for google/gemma-2-2b-it" in cell["reason"]
    assert cells["corrsteer_s"]["published"] == 0.5 and cells["corrsteer_s"]["n"] == 24
    assert cells["fine_tuning"]["n"] == 24 and cells["fine_tuning"]["published"] == 35.32
    assert cells["caa"]["status"] == "undefined" and cells["caa"]["measured"] is None
    assert "no method caa" in cells["caa"]["reason"]
