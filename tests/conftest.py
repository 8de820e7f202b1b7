"""Shared fixtures. The hub of public data is used where ``../shared/hub`` is there."""

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

import osqp  # noqa: F401 - before PuLP, which Snakemake imports: after it OSQP crashes
import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parent.parent
HUB = ROOT.parent / "shared" / "hub"

sys.path.insert(0, str(ROOT))
# Nothing is timed in tests: a busy machine is no failure.
# `make test` draws the same examples every time, `make stress` new ones.
settings.register_profile(
    "untimed",
    deadline=None,
    derandomize="STEERING_NEW_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("untimed")
# No test may write to the user's cache or reach a network; set before transformers is imported.
_HOME = tempfile.TemporaryDirectory(prefix="hf-home-")
os.environ["HF_HOME"] = _HOME.name
os.environ["WANDB_MODE"] = "disabled"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Else every job of a workflow compiles the package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
if "PYTEST_XDIST_WORKER" in os.environ:  # a core for each worker; jobs of workflows set their own
    os.environ.setdefault("OMP_NUM_THREADS", "1")
for _name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
    os.environ.pop(_name, None)


def _serve() -> str:
    """Start the hub on a free port and return its address; a dead one without the hub."""
    if not (HUB / "serve.py").is_file():
        return "http://127.0.0.1:9"
    spec = importlib.util.spec_from_file_location("hub_serve", HUB / "serve.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return f"http://127.0.0.1:{module.serve(HUB, 0).server_address[1]}"


os.environ["HF_ENDPOINT"] = _serve()
# Worlds that are made once for all workers; they inherit the name of the folder.
if "STEERING_TEST_WORLDS" not in os.environ or "PYTEST_XDIST_WORKER" not in os.environ:
    _WORLDS = tempfile.TemporaryDirectory(prefix="worlds-", ignore_cleanup_errors=True)
    os.environ["STEERING_TEST_WORLDS"] = _WORLDS.name


_WHOLE_WORKFLOWS = ("tests/reliability/", "tests/cluster/", "tests/end_to_end/")
#: Files that share what is kept in the memory of their process, or add to one world.
_TOGETHER = {
    "gpt2 on sst2": (
        "tests/end_to_end/test_gpt2_sst2.py",
        "tests/reliability/test_fetch_rule.py",
        "tests/reliability/test_offline.py",
    ),
    "the small demo": ("tests/end_to_end/test_demo.py", "tests/end_to_end/test_tutorials.py"),
    "the parsed workflow": (
        "tests/test_rules.py",
        "tests/test_deviations_stages.py",
        "tests/test_deviations_corrsteer_stages.py",
        "tests/runtime/test_provenance.py",
        "tests/config/test_references.py",
    ),
}
#: The longest first: else one worker ends long after the others. Worlds that several files read are
#: made once for all workers (shared_worlds.py).
_FIRST = (
    "tests/cluster/test_slurm.py",
    "tests/end_to_end/test_corrsteer_llama8.py",
    *_TOGETHER["gpt2 on sst2"],
    *_TOGETHER["the small demo"],
    "tests/reliability/test_kills.py",
    "tests/end_to_end/test_smollm2.py",
    "tests/reliability/test_axbench_concepts.py",
    "tests/reliability/test_determinism.py",
    "tests/reliability/test_reruns.py",
    "tests/reliability/test_both_halves.py",
    "tests/end_to_end/test_corrsteer_xstest.py",
    *_TOGETHER["the parsed workflow"],
    "tests/metrics/test_api_judge_real_server.py",
    "tests/exports/test_conditions.py",
    "tests/test_early_checks.py",
    "tests/training/test_training_rules.py",
)


class ByRun(LoadScopeScheduling):
    """Workers take whole files, and those that belong together as one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return next((run for run, files in _TOGETHER.items() if file in files), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log) -> ByRun:
    """Schedule by :class:`ByRun` where the tests share several workers."""
    return ByRun(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of whole workflows first: they take longest."""

    def rank(item: pytest.Item) -> int:
        file = item.nodeid.split("::")[0]
        if file in _FIRST:
            return _FIRST.index(file)
        return len(_FIRST) + (not file.startswith(_WHOLE_WORKFLOWS))

    items.sort(key=rank)


@pytest.fixture(scope="session")
def hub() -> str:
    """Address of the hub; skips where the hub's files are absent."""
    if not (HUB / "serve.py").is_file():
        pytest.skip("../shared/hub is absent: no real datasets or stand-in models to run on")
    return os.environ["HF_ENDPOINT"]


@pytest.fixture(scope="session")
def gpt2(hub):
    """The GPT-2 stand-in of the hub."""
    from steering_core.config.model import Model, SAESource
    from steering_core.models.language_model import load_language_model

    source = SAESource(release="gpt2-small-res-jb", id="blocks.{layer}.hook_resid_pre")
    return load_language_model(Model(id="gpt2", sae=source), "cpu")


@pytest.fixture(scope="session")
def gpt2_sae(hub):
    """Its SAE at layer 7."""
    from steering_core.config.model import SAESource
    from steering_core.models.sparse_autoencoder import load_sae

    return load_sae(SAESource(release="gpt2-small-res-jb", id="blocks.{layer}.hook_resid_pre"), 7)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A random four-layer Llama of width 32 with a word tokenizer, as a local directory."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<pad>", "<bos>", "<eos>", "<unk>", *(f"w{i}" for i in range(60))]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
    )
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
        # Wider than the default, so that predictions differ from token to token.
        for parameter in model.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path_factory.mktemp("tiny") / "model"
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def tiny(tiny_model):
    """The tiny model, loaded."""
    from steering_core.config.model import Model, SAESource
    from steering_core.models.language_model import load_language_model

    source = SAESource(path="unused/layer_{layer}")
    return load_language_model(Model(id=str(tiny_model), sae=source), "cpu")


@pytest.fixture(scope="session")
def rows_stand_alone():
    """Skip where the matrix product of this machine depends on the number of rows."""
    import torch

    from steering_core.models.tokens import ROW_STEP, WIDTH_STEP

    chance = torch.Generator().manual_seed(0)
    for inner, outer in ((32, 64), (64, 32), (32, 32)):
        weight = torch.randn(outer, inner, generator=chance)
        rows = torch.randn(20 * WIDTH_STEP, inner, generator=chance)
        whole = torch.nn.functional.linear(rows, weight)
        for n in (ROW_STEP, WIDTH_STEP, 3 * ROW_STEP, 9 * WIDTH_STEP):
            if not torch.equal(torch.nn.functional.linear(rows[:n], weight), whole[:n]):
                pytest.skip("here a matrix product depends on the number of rows")
