"""The same files for any batch size, and numbers that agree for any shard count.

A batch size changes no file where the processor gives a row of a matrix product the same digits
whatever stands beside it. Where it does not, last digits may differ; that is tested everywhere.
"""

import numpy as np
import pandas as pd
import pytest
from steered_generation import divergence, generate
from tiny_demo import SIZES, TARGETS, copy_of, digests, finished_demo, run

from steering_core.activations.cache import cache_activations
from steering_core.activations.manifest import write_manifest
from steering_core.activations.reader import ActivationCache
from steering_core.generation.sampling import Sampling
from steering_core.models.site import Site
from steering_core.models.tokens import tokenize

SITE = Site(layer=1, stream="pre", centred=False, prepend_bos=True)


@pytest.fixture(scope="module")
def examples():
    words = np.random.default_rng(0)
    texts = [
        " ".join(f"w{i}" for i in words.integers(0, 60, words.integers(2, 20))) for _ in range(23)
    ]
    return pd.DataFrame({"example_id": [f"e{i}" for i in range(23)], "text": texts})


def cached(tiny, examples, folder, batch_tokens: int, shards: int = 1) -> np.ndarray:
    parts = [folder / f"part-{shard}.parquet" for shard in range(shards)]
    for shard, part in enumerate(parts):
        cache_activations(
            tiny, examples, [SITE], part,
            max_tokens=32, batch_tokens=batch_tokens, shard=shard, shards=shards,
            metadata={"sites": [{"hook_name": SITE.hook_name}]},
        )  # fmt: skip
    write_manifest(parts, folder / "manifest.json", expected_rows=len(examples))
    ids = examples["example_id"].tolist()
    return ActivationCache(folder / "manifest.json").matrix(SITE.hook_name, ids)


def test_the_same_settings_give_the_same_bytes(tiny, examples, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        cached(tiny, examples, tmp_path / name, 128, shards=2)
    for file in ("part-0.parquet", "part-1.parquet", "manifest.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize("batch_tokens", [16, 96, 4096])
def test_the_cache_does_not_depend_on_the_batch_size(
    tiny, examples, tmp_path, rows_stand_alone, batch_tokens
):
    for name, size in (("a", 256), ("b", batch_tokens)):
        (tmp_path / name).mkdir()
        cached(tiny, examples, tmp_path / name, size, shards=2)
    for file in ("part-0.parquet", "part-1.parquet", "manifest.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize("positions", ["last", "all"])
def test_texts_and_their_divergence_do_not_depend_on_the_batch_size(
    tiny, examples, rows_stand_alone, positions
):
    prompts = tokenize(tiny.tokenizer, examples["text"].tolist(), prepend_bos=True)
    prompts += [prompt + prompt[1:] for prompt in prompts if len(prompt) < 15]  # several widths
    names = [f"e{i}" for i in range(len(prompts))]
    vectors = np.random.default_rng(1).normal(size=(len(prompts), 32))
    sampling = Sampling(new_tokens=12, temperature=1.5, top_p=0.95)
    found = []
    for size, tokens in ((50, 4096), (7, 100), (1, 16)):
        texts = generate(
            tiny, prompts, names, sampling,
            site=SITE, vectors=vectors, positions=positions, batch_size=size,
        )  # fmt: skip
        texts[0], texts[1] = texts[0][:1], texts[1][:3]  # that ended early
        compared = divergence(
            tiny, prompts, texts,
            site=SITE, vectors=vectors, steer_prompt=positions == "all", batch_tokens=tokens,
        )  # fmt: skip
        found.append((texts, compared.kl_sum.tobytes(), compared.base_nll_sum.tobytes()))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(("batch_tokens", "shards"), [(16, 1), (64, 3), (4096, 1), (128, 4)])
def test_batches_and_shards_change_last_digits_at_most(
    tiny, examples, tmp_path, batch_tokens, shards
):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = cached(tiny, examples, tmp_path / "a", 256)
    other = cached(tiny, examples, tmp_path / "b", batch_tokens, shards)
    np.testing.assert_allclose(other, whole, rtol=0, atol=2e-6 * np.abs(whole).max())


#: What holds the configuration, or a digest of it.
OF_THE_CONFIGURATION = {"index.html", "pareto.csv", "provenance.json", "products.json"}


def test_no_file_of_a_run_depends_on_batch_sizes_or_cores(tmp_path, rows_stand_alone):
    """Both families; the settings are parameters, so all stages that read them run again."""
    directory = copy_of(finished_demo(), tmp_path / "demo")
    done = run(
        directory, *TARGETS, cores=1, forked=True,
        sizes=[*SIZES, "batch_tokens=64", "batch_prompts=1", "batch_rows=3"],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    ran = {rule for rule in ("cache_activations", "generate", "divergence", "corrsteer_select")
           if f"rule {rule}:" in done.stdout + done.stderr}  # fmt: skip
    assert len(ran) == 4
    found, expected = digests(directory), digests(finished_demo())
    differing = {name for name in expected | found if found.get(name) != expected.get(name)}
    # What a method's texts were made from holds the settings, too.
    plain = {name for name in differing if not name.endswith(".made_from")}
    assert {name.removesuffix(".sha256").split("/")[-1].lstrip(".") for name in plain} <= (
        OF_THE_CONFIGURATION
    )
    tables = [
        pd.read_csv(place / "results/demo/pareto.csv").drop(columns="config_sha256")
        for place in (directory, finished_demo())
    ]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
