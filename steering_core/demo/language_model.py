"""Train the demo's language model: a small Llama with a word-level tokenizer."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from jaxtyping import Int
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from steering_core.errors import DataError
from steering_core.progress import progress
from steering_core.storage.files import atomic_directory

PAD, BOS, EOS, UNKNOWN = "<pad>", "<bos>", "<eos>", "<unk>"
_IGNORED = -100  # the loss ignores this label
# Near 1/sqrt(d_model). With the 0.02 of wide models, the attention of a model this narrow learns
# nothing for a thousand steps, and whether it then tracks the sentiment is a matter of luck.
_INITIALIZER_RANGE = 0.08


def read_texts(corpus: str | Path | Sequence[str | Path]) -> list[str]:
    """Return the column `text` of one or several Parquet files, in order.

    Raises:
        DataError: a file has no column `text`, or there is no text at all.
    """
    paths = [corpus] if isinstance(corpus, str | Path) else list(corpus)
    texts: list[str] = []
    for path in paths:
        if "text" not in pq.read_schema(path).names:
            raise DataError(f"{path} has no column 'text'")
        texts += pq.read_table(path, columns=["text"])["text"].to_pylist()
    if not texts:
        raise DataError(f"no text in {', '.join(map(str, paths))}")
    return texts


def word_tokenizer(texts: Sequence[str], *, context_size: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per word or punctuation mark of `texts`.

    It puts `<bos>` before every text, pads on the left, and decodes to words separated by single
    spaces, which is how the grammar writes: decoding gives the text back.
    """
    splitter = pre_tokenizers.Whitespace()
    found = {word for text in texts for word, _ in splitter.pre_tokenize_str(text)}
    names = [PAD, BOS, EOS, UNKNOWN, *sorted(found)]
    vocabulary = {name: index for index, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, vocabulary[BOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
        model_max_length=context_size,
        clean_up_tokenization_spaces=False,
    )


def train_language_model(
    corpus: str | Path | Sequence[str | Path],
    out_dir: str | Path,
    *,
    d_model: int = 64,
    n_layers: int = 4,
    n_heads: int = 4,
    context_size: int = 128,
    n_steps: int = 1500,
    batch_size: int = 32,
    learning_rate: float = 1.5e-3,
    weight_decay: float = 0.1,
    seed: int = 0,
    device: str = "cpu",
) -> float:
    """Train a causal language model on whole documents and save it as a Hugging Face directory.

    AdamW with a linear warm-up over the first 10 % of the steps and a cosine to zero. Equal
    arguments give equal bytes on one machine with the same number of threads.

    Args:
        corpus: Parquet files with a column `text`; documents of all files are mixed.
        out_dir: directory to write or replace, atomically.
        d_model: width of the residual stream, divisible by `2 * n_heads`.
        n_layers: number of decoder blocks.
        n_heads: attention heads of a block.
        context_size: longest document in tokens, `<bos>` and `<eos>` included.
        n_steps: optimizer steps.
        batch_size: documents per step.
        learning_rate: peak learning rate.
        weight_decay: decay of the weight matrices; norms have none.
        seed: seed of the initial weights and of the order of documents.
        device: torch device.

    Returns:
        Mean cross-entropy over the last 50 steps, in nats per token.

    Raises:
        ValueError: `d_model` does not fit `n_heads`.
        DataError: there is no text, or a document is longer than the context.
    """
    if d_model % (2 * n_heads):
        raise ValueError(f"d_model {d_model} is not divisible by 2 * n_heads = {2 * n_heads}")
    texts = read_texts(corpus)
    tokenizer = word_tokenizer(texts, context_size=context_size)
    documents = _encode(tokenizer, texts, context_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=d_model,
                intermediate_size=4 * d_model,
                num_hidden_layers=n_layers,
                num_attention_heads=n_heads,
                num_key_value_heads=n_heads,
                max_position_embeddings=context_size,
                tie_word_embeddings=False,
                initializer_range=_INITIALIZER_RANGE,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        ).to(device)
    losses = _fit(
        model,
        _batches(documents, batch_size, n_steps, tokenizer.pad_token_id, seed),
        n_steps,
        learning_rate,
        weight_decay,
    )
    with atomic_directory(out_dir) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    return float(np.mean(losses[-50:]))


def _encode(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], context_size: int
) -> list[list[int]]:
    # the length is checked below, so the tokenizer need not warn of it
    encoded = tokenizer(list(texts), verbose=False)["input_ids"]
    documents = [[*ids, tokenizer.eos_token_id] for ids in encoded]
    longest = max(map(len, documents))
    if longest > context_size:
        raise DataError(
            f"a document has {longest} tokens but context_size is {context_size}: raise it"
        )
    return documents


def _batches(
    documents: Sequence[Sequence[int]], batch_size: int, n_steps: int, pad: int, seed: int
) -> Iterator[Int[np.ndarray, "batch position"]]:
    """Yield `n_steps` right-padded batches of shuffled documents of similar lengths."""
    rng = np.random.default_rng(seed)
    lengths = np.array([len(document) for document in documents])
    pool = np.empty(0, dtype=np.int64)
    queue: list[np.ndarray] = []
    for _ in range(n_steps):
        if not queue:
            while len(pool) < 16 * batch_size:
                pool = np.concatenate([pool, rng.permutation(len(documents))])
            chunk, pool = pool[: 16 * batch_size], pool[16 * batch_size :]
            chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
            queue = [chunk.reshape(16, batch_size)[i] for i in rng.permutation(16)]
        rows = queue.pop()
        batch = np.full((batch_size, lengths[rows].max()), pad, dtype=np.int64)
        for target, row in zip(batch, rows, strict=True):
            target[: lengths[row]] = documents[row]
        yield batch


def _fit(
    model: LlamaForCausalLM,
    batches: Iterator[Int[np.ndarray, "batch position"]],
    n_steps: int,
    learning_rate: float,
    weight_decay: float,
) -> list[float]:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=learning_rate,
        betas=(0.9, 0.99),
        fused=True,
    )
    warm_up = max(1, n_steps // 10)

    def share_of_peak(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1.0 + float(np.cos(np.pi * (step - warm_up) / max(1, n_steps - warm_up))))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share_of_peak)
    model.train()
    losses: list[float] = []
    for batch in progress(batches, "training the language model", total=n_steps):
        ids = torch.from_numpy(batch).to(model.device)
        # padding is to the right of the tokens of a causal model, so only the loss must ignore it
        labels = ids.masked_fill(ids == model.config.pad_token_id, _IGNORED)
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    model.eval()
    return losses
