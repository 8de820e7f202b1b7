"""SAEs and tokenizers that disagree on BOS, through the rules up to the activations."""

import pandas as pd
import yaml
from bos_worlds import BOS, FIRST_WORD, configuration, save_model, save_sae, write_task
from tiny_demo import ROOT, run


def test_an_sae_without_bos_and_a_tokenizer_without_bos_run(tiny_model, tmp_path):
    """The end token pads where there is no pad token, and the other way round."""
    made = {
        "unwanted": (save_model(tiny_model, tmp_path / "with_bos", pad=False), False),
        "absent": (save_model(tiny_model, tmp_path / "without_bos", bos=False, eos=False), True),
    }
    models = {}
    for name, (folder, prepend_bos) in made.items():
        sae = save_sae(tmp_path / f"sae_{name}", prepend_bos=prepend_bos)
        models[name] = {"id": str(folder), "sae": {"path": f"{sae}/layer_{{layer}}"}}
    config = configuration(models, write_task(tmp_path))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (tmp_path / "resources").symlink_to(ROOT / "resources")
    targets = [f"results/{name}_words/activations/manifest.json" for name in models]
    done = run(tmp_path, *targets, sizes=["device=cpu"], forked=True)
    assert done.returncode == 0, done.stderr[-6000:]
    for name in models:
        results = tmp_path / "results" / f"{name}_words"
        examples = pd.read_parquet(results / "examples.parquet").set_index("example_id")
        cached = pd.read_parquet(results / "activations" / "part-0.parquet").set_index("example_id")
        words = examples["text"].str.split().loc[cached.index]
        assert (cached["position"] == words.str.len() - 1).all()
        assert (cached["token_id"] == words.str[-1].str[1:].astype(int) + FIRST_WORD).all()
        assert (cached["token_id"] != BOS).all()
        log = (results / "logs" / "fetch.log").read_text(encoding="utf-8")
        assert log.count("has no BOS token") == (name == "absent")
