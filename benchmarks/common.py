"""Shared by the benchmarks: random models and timing."""

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from benchmarks.options import size_parser
from benchmarks.table import Times
from steering_core.models.devices import choose_device, wait_for_devices
from steering_core.models.language_model import LanguageModel, model_shape

#: Shapes of random models. The cost of a pass depends on the shape alone. ``full`` is Gemma-2-2B.
#: ``tiny`` shows that a benchmark runs to its end; its times say nothing.
SIZES = {
    "tiny": {
        "hidden_size": 32, "num_hidden_layers": 14, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 64, "vocab_size": 1024,
    },
    "quick": {
        "hidden_size": 128, "num_hidden_layers": 26, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 512, "vocab_size": 2048,
    },
    "small": {
        "hidden_size": 256, "num_hidden_layers": 26, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 1024, "vocab_size": 8192,
    },
    "full": {
        "hidden_size": 2304, "num_hidden_layers": 26, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 256, "intermediate_size": 9216,
        "vocab_size": 256_000,
    },
}  # fmt: skip


def random_model(size: str, family: str = "llama", vocabulary: int | None = None) -> LanguageModel:
    """Return a random model with a word tokenizer, without an end token, on the best device.

    ``llama`` uses sdpa attention; ``gemma2`` caps its scores and cannot. On a GPU it is bfloat16.
    """
    shape = SIZES[size] | ({} if vocabulary is None else {"vocab_size": vocabulary})
    common = {"max_position_embeddings": 8192, "pad_token_id": 0, "bos_token_id": 1}
    device = choose_device("auto")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if family == "llama":
            model = LlamaForCausalLM(LlamaConfig(**shape, **common, eos_token_id=None))
        else:
            model = Gemma2ForCausalLM(Gemma2Config(**shape, **common, eos_token_id=None))
    model = model.to(device, dtype).eval().requires_grad_(False)
    model.generation_config.eos_token_id = None
    words = ["<pad>", "<bos>", "<unk>", *(f"w{i}" for i in range(1000))]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<bos>", unk_token="<unk>"
    )
    return LanguageModel(model, tokenizer, model_shape(model.config, f"random {family}"))


def texts(n: int, shortest: int, longest: int) -> list[str]:
    """Return ``n`` texts of ``shortest`` to ``longest`` words."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(shortest, longest + 1, n)
    return [" ".join(f"w{k}" for k in rng.integers(0, 1000, length)) for length in lengths]


_clock = time.perf_counter


def seconds(run: Callable[[], object]) -> float:
    """Return the time of one call; queued GPU work is finished before and after."""
    wait_for_devices()
    start = _clock()
    run()
    wait_for_devices()
    return _clock() - start


def alternate(runs: Sequence[Callable[[], object]], repeats: int) -> list[Times]:
    """Return the best time of each of ``runs`` and all times, after one round to warm up.

    The runs take turns, so that other work on the machine affects all of them alike. The best time
    counts, because other work can only add time.
    """
    for run in runs:
        run()
    times = [[seconds(run) for run in runs] for _ in range(repeats)]
    return [Times(min(rounds), rounds) for rounds in zip(*times, strict=True)]


def arguments(doc: str) -> argparse.Namespace:
    """Parse ``--tiny``, ``--quick``, ``--full`` and ``--cpu-time``, and set the clock."""
    global _clock
    parser, group = size_parser(doc)
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="one thread, and processor time of all threads in place of wall time: for a busy "
        "machine without a GPU; what runs beside the model is then not hidden",
    )
    group.add_argument(
        "--full", dest="size", action="store_const", const="full", help="Gemma-2-2B's shape"
    )
    given = parser.parse_args()
    if given.cpu_time:
        if torch.cuda.is_available():
            parser.error("--cpu-time does not see what a GPU does")
        torch.set_num_threads(1)
        _clock = time.process_time
    return given


def run_name(size: str) -> str:
    """Return a description of the run, for the heading of a table."""
    if torch.cuda.is_available():
        return f"{size} model"
    return f"{size} model, {_clock.__name__}"
