"""The tiny model with tokenizers that have some of BOS, pad and end token, SAEs and texts of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from sae_lens import StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parent.parent
PAD, BOS, EOS, UNK = range(4)
#: Id of the word "w0".
FIRST_WORD = 4
#: Settings of a run that stops at the activations.
SETTINGS = {
    "rows_per_class": 40,
    "n_prompts": 2,
    "n_validation_prompts": 0,
    "new_tokens": 2,
    "max_tokens": 16,
    "layers": [1],
    "layer": 1,
    "device": "cpu",
}


def special_tokenizer(*, bos: bool = True, pad: bool = True, eos: bool = True):
    """A tokenizer of the words w0 to w59 that has these special tokens, and the ids of all four."""
    words = ["<pad>", "<bos>", "<eos>", "<unk>", *(f"w{i}" for i in range(60))]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    has = {"bos": bos, "pad": pad, "eos": eos, "unk": True}
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, **{f"{k}_token": f"<{k}>" for k, there in has.items() if there}
    )


def save_model(tiny_model: Path, where: Path, **special: bool) -> Path:
    """Save the tiny model with another tokenizer."""
    shutil.copytree(tiny_model, where, ignore=shutil.ignore_patterns("*token*"))
    special_tokenizer(**special).save_pretrained(where)
    return where


def save_sae(where: Path, *, prepend_bos: bool) -> Path:
    """Save an SAE of layer 1 under ``layer_1``."""
    metadata = SAEMetadata(hook_name="blocks.1.hook_resid_post", prepend_bos=prepend_bos)
    StandardSAE(StandardSAEConfig(d_in=32, d_sae=20, metadata=metadata)).save_model(
        str(where / "layer_1")
    )
    return where


def write_task(folder: Path) -> dict[str, Any]:
    """Write labelled texts, a concept and a lexicon; return the task that reads them."""
    rng = np.random.default_rng(0)
    rows = [
        {"text": " ".join(f"w{i}" for i in rng.integers(60, size=rng.integers(3, 9))), "label": k}
        for k in (0, 1)
        for _ in range(50)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(lines, encoding="utf-8")
    concept = {
        "concept": "words",
        "prompts": ["w1 w2", "w3 w4 w5"],
        "contrast": [{"positive": f"w{i} w6", "negative": f"w{i} w7"} for i in range(4)],
        "personas": {"positive": "w8 ", "negative": "w9 "},
        "queries": ["w10 w11", "w12 w13"],
    }
    (folder / "concept.yaml").write_text(yaml.safe_dump(concept), encoding="utf-8")
    lexicon = {"positive": ["w1"], "negative": ["w2"]}
    (folder / "lexicon.json").write_text(json.dumps(lexicon), encoding="utf-8")
    return {
        "dataset": str(folder / "rows.jsonl"),
        "text": "text",
        "label": "label",
        "concept": str(folder / "concept.yaml"),
        "classifier": {"lexicon": str(folder / "lexicon.json")},
    }


def configuration(models_: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the project with an experiment ``{model}_words`` for each model."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    config["models"].update(models_)
    config["tasks"]["words"] = task
    for name in models_:
        words = {"model": name, "task": "words", "settings": SETTINGS}
        config["experiments"][f"{name}_words"] = words
    return config
