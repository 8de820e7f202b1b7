"""Tiny random language models of the families that people steer, made in memory.

``FAMILIES`` names them. A model has 4 blocks, a residual stream of width 32 and 100 tokens; where
its family has sliding windows, they are shorter than the texts of the tests.

``python tests/models/tiny_families.py`` renews their table in docs/models.md.
"""

import copy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from steering_core.errors import ModelError
from steering_core.models.language_model import ModelShape, model_shape
from steering_core.storage.files import write_text

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- families: begin -->", "<!-- families: end -->"

D_MODEL, N_LAYERS, CONTEXT = 32, 4, 128
_TOKENS = {"vocab_size": 100, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
#: The commonest names of sizes, and those of GPT-2 and its kin.
_SIZES = {
    "hidden_size": D_MODEL, "intermediate_size": 64, "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT,
    **_TOKENS,
}  # fmt: skip
_WIDTH = {**_SIZES, "head_dim": 8}
_OLD = {"n_embd": D_MODEL, "n_layer": N_LAYERS, "n_head": 4, "n_positions": CONTEXT, **_TOKENS}
_WINDOW = {"sliding_window": 8}
_SLIDING, _FULL, _LINEAR = "sliding_attention", "full_attention", "linear_attention"
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
_ROUTED = {
    "moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
}  # fmt: skip
_LATENT = {
    **_SIZES, **_ROUTED, "num_key_value_heads": 4, "n_group": 2, "topk_group": 1,
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16,
    "v_head_dim": 8, "n_shared_experts": 1,
}  # fmt: skip
_DELTA = {
    "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2,
    "linear_num_value_heads": 4, "layer_types": [_LINEAR, _LINEAR, _LINEAR, _FULL],
}  # fmt: skip
_DELTA_EXPERTS = {
    **_EXPERTS, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16
}  # fmt: skip
_STATES = {"n_groups": 2, "chunk_size": 8}
_GRANITE = {
    "logits_scaling": 4.0, "embedding_multiplier": 6.0, "residual_multiplier": 0.5,
    "attention_multiplier": 0.2,
}  # fmt: skip
_GEMMA3 = {
    **_WIDTH, **_WINDOW, "query_pre_attn_scalar": 8,
    "layer_types": [_SLIDING, _SLIDING, _FULL, _SLIDING],
}  # fmt: skip
_GEMMA4 = {
    **_WIDTH, **_WINDOW, "global_head_dim": 16, "num_kv_shared_layers": 0,
    "layer_types": [_SLIDING, _FULL, _SLIDING, _FULL], "final_logit_softcapping": 3.0,
    "hidden_size_per_layer_input": 0,
}  # fmt: skip
_GEMMA4_SMALL = {
    **_GEMMA4, "num_kv_shared_layers": 2, "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 100,
}  # fmt: skip
_GEMMA4_LARGE = {**_GEMMA4, "num_global_key_value_heads": 1, "attention_k_eq_v": True}
_LLAMA4 = {
    **_WIDTH, "intermediate_size_mlp": 64, "num_local_experts": 4, "num_experts_per_tok": 1,
    "interleave_moe_layer_step": 2, "attention_chunk_size": 8, "no_rope_layers": [1, 1, 1, 0],
}  # fmt: skip

# Vision towers, never run.
_VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
_TOWER = {**_VISION, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
_QWEN_TOWER = {
    "depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "patch_size": 4,
    "out_hidden_size": D_MODEL, "num_position_embeddings": 16,
}  # fmt: skip
_QWEN_TOKENS = {
    "image_token_id": 94, "video_token_id": 95, "vision_start_token_id": 96,
    "vision_end_token_id": 97,
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """A family of models, or a kind of its checkpoints.

    Attributes:
        models: what people know it by.
        config: name of the configuration class in transformers.
        arguments: of the configuration.
        text: likewise of the text model, where images are read, too.
    """

    models: str
    config: str
    arguments: dict[str, Any] = field(default_factory=dict)
    text: tuple[str, dict[str, Any]] | None = None

    def configuration(self) -> PretrainedConfig:
        """Return a new configuration."""
        arguments = copy.deepcopy(self.arguments)
        if self.text is not None:
            kind, sizes = self.text
            arguments["text_config"] = getattr(transformers, kind)(**copy.deepcopy(sizes)).to_dict()
        return getattr(transformers, self.config)(**arguments)


FAMILIES = {
    "gpt2": Family("GPT-2", "GPT2Config", _OLD),
    "gpt_neo": Family(
        "GPT-Neo", "GPTNeoConfig",
        {"hidden_size": D_MODEL, "num_layers": N_LAYERS, "num_heads": 4, "window_size": 8,
         "max_position_embeddings": CONTEXT, "attention_types": [[["global", "local"], 2]],
         **_TOKENS},
    ),
    "gptj": Family("GPT-J", "GPTJConfig", {**_OLD, "rotary_dim": 8}),
    "gpt_neox": Family("Pythia, GPT-NeoX", "GPTNeoXConfig", _SIZES),
    "opt": Family("OPT", "OPTConfig", {**_SIZES, "ffn_dim": 64, "word_embed_proj_dim": D_MODEL}),
    "opt_projected": Family(
        "OPT-350M (embedding narrower than the stream)", "OPTConfig",
        {**_SIZES, "ffn_dim": 64, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
    ),
    "bloom": Family(
        "Bloom", "BloomConfig",
        {"hidden_size": D_MODEL, "n_layer": N_LAYERS, "n_head": 4, **_TOKENS},
    ),
    "falcon": Family(
        "Falcon", "FalconConfig",
        {"hidden_size": D_MODEL, "num_hidden_layers": N_LAYERS, "num_attention_heads": 4,
         "multi_query": True, "new_decoder_architecture": False, **_TOKENS},
    ),
    "llama": Family("Llama 1 to 3, R1-Distill-Llama, SmolLM2", "LlamaConfig", _SIZES),
    "llama4_text": Family("Llama 4 (text checkpoint)", "Llama4TextConfig", _LLAMA4),
    "llama4": Family(
        "Llama 4", "Llama4Config",
        {"vision_config": {**_TOWER, "vision_output_dim": 32, "projector_input_dim": 32,
                           "projector_output_dim": 32, "intermediate_size": 64},
         "image_token_index": 94, "boi_token_index": 95, "eoi_token_index": 96},
        ("Llama4TextConfig", _LLAMA4),
    ),
    "mistral": Family("Mistral", "MistralConfig", {**_WIDTH, **_WINDOW}),
    "ministral3": Family("Ministral 3 (text checkpoint)", "Ministral3Config", _WIDTH),
    "mistral3": Family(
        "Mistral Small 3.1, Ministral 3 (with images)", "Mistral3Config",
        {"vision_config": {**_TOWER, "model_type": "pixtral"}, "image_token_index": 94},
        ("MistralConfig", _WIDTH),
    ),
    "mixtral": Family(
        "Mixtral", "MixtralConfig", {**_WIDTH, "num_local_experts": 4, "num_experts_per_tok": 2}
    ),
    "gemma": Family("Gemma 1", "GemmaConfig", _WIDTH),
    "gemma2": Family(
        "Gemma 2", "Gemma2Config",
        {**_WIDTH, **_WINDOW, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 3.0,
         "final_logit_softcapping": 3.0},
    ),
    "gemma3_text": Family("Gemma 3 270M and 1B", "Gemma3TextConfig", _GEMMA3),
    "gemma3": Family(
        "Gemma 3 4B to 27B", "Gemma3Config",
        {"vision_config": {**_TOWER, "model_type": "siglip_vision_model"},
         "mm_tokens_per_image": 4, "image_token_index": 94, "boi_token_index": 95,
         "eoi_token_index": 96},
        ("Gemma3TextConfig", _GEMMA3),
    ),
    "gemma3n_text": Family(
        "Gemma 3n (text checkpoint)", "Gemma3nTextConfig",
        {**_WIDTH, **_WINDOW, "layer_types": [_SLIDING, _SLIDING, _SLIDING, _FULL],
         "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 100,
         "num_kv_shared_layers": 0, "altup_num_inputs": 2, "laurel_rank": 4,
         "activation_sparsity_pattern": [0.0] * 4},
    ),
    "gemma3n": Family("Gemma 3n", "Gemma3nConfig"),
    "gemma4_text": Family("Gemma 4 (head size differs by layer)", "Gemma4TextConfig", _GEMMA4),
    "gemma4_small": Family(
        "Gemma 4 E2B and E4B (blocks share keys and values)", "Gemma4TextConfig", _GEMMA4_SMALL
    ),
    "gemma4_large": Family("Gemma 4 31B", "Gemma4TextConfig", _GEMMA4_LARGE),
    "gemma4": Family(
        "Gemma 4 (with images)", "Gemma4Config",
        {"vision_config": {**_VISION, "num_attention_heads": 2, "num_key_value_heads": 2,
                           "head_dim": 8, "patch_size": 4},
         "audio_config": None, "image_token_id": 93, "video_token_id": 94, "boi_token_id": 95,
         "eoi_token_id": 96, "audio_token_id": 97, "boa_token_id": 98},
        ("Gemma4TextConfig", _GEMMA4_SMALL),
    ),
    "qwen2": Family("Qwen 2 and 2.5, R1-Distill-Qwen", "Qwen2Config", _SIZES),
    "qwen3": Family("Qwen 3", "Qwen3Config", _WIDTH),
    "qwen3_moe": Family(
        "Qwen 3 (experts)", "Qwen3MoeConfig", {**_WIDTH, **_EXPERTS, "moe_intermediate_size": 16}
    ),
    "qwen3_next": Family(
        "Qwen 3 Next", "Qwen3NextConfig", {**_WIDTH, **_DELTA, **_DELTA_EXPERTS}
    ),
    "qwen3_5_text": Family("Qwen 3.5 (text checkpoint)", "Qwen3_5TextConfig", {**_WIDTH, **_DELTA}),
    "qwen3_5": Family(
        "Qwen 3.5", "Qwen3_5Config", {"vision_config": _QWEN_TOWER, **_QWEN_TOKENS},
        ("Qwen3_5TextConfig", {**_WIDTH, **_DELTA}),
    ),
    "qwen3_5_moe": Family(
        "Qwen 3.5 (experts)", "Qwen3_5MoeConfig", {"vision_config": _QWEN_TOWER, **_QWEN_TOKENS},
        ("Qwen3_5MoeTextConfig", {**_WIDTH, **_DELTA, **_DELTA_EXPERTS}),
    ),
    "qwen3_vl": Family(
        "Qwen 3 VL", "Qwen3VLConfig",
        {"vision_config": {**_QWEN_TOWER, "deepstack_visual_indexes": [0, 1]}, **_QWEN_TOKENS},
        ("Qwen3VLTextConfig", _WIDTH),
    ),
    "gpt_oss": Family(
        "gpt-oss", "GptOssConfig",
        {**_WIDTH, **_WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "phi": Family("Phi 1 and 2", "PhiConfig", _SIZES),
    "phi3": Family("Phi 3 and 4", "Phi3Config", _SIZES),
    "olmo2": Family("OLMo 2", "Olmo2Config", _SIZES),
    "olmo3": Family("OLMo 3", "Olmo3Config", {**_SIZES, **_WINDOW}),
    "olmoe": Family("OLMoE", "OlmoeConfig", {**_SIZES, **_EXPERTS}),
    "deepseek_v2": Family("DeepSeek V2", "DeepseekV2Config", _LATENT),
    "deepseek_v3": Family("DeepSeek V3 and R1", "DeepseekV3Config", _LATENT),
    "granite": Family("Granite 3", "GraniteConfig", {**_SIZES, **_GRANITE}),
    "granitemoehybrid": Family(
        "Granite 4", "GraniteMoeHybridConfig",
        {**_SIZES, **_GRANITE, "num_local_experts": 4, "num_experts_per_tok": 2,
         "shared_intermediate_size": 32, "mamba_n_heads": 8, "mamba_d_head": 8,
         "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8,
         "layer_types": ["mamba", "mamba", "attention", "mamba"],
         "position_embedding_type": "rope"},
    ),
    "cohere": Family("Command R", "CohereConfig", {**_SIZES, "logit_scale": 0.5}),
    "cohere2": Family(
        "Command R7B, Command A", "Cohere2Config", {**_WIDTH, **_WINDOW, "logit_scale": 0.5}
    ),
    "exaone4": Family(
        "EXAONE 4", "Exaone4Config", {**_WIDTH, **_WINDOW, "sliding_window_pattern": 4}
    ),
    "glm4": Family("GLM 4", "Glm4Config", _WIDTH),
    "glm4_moe": Family(
        "GLM 4.5 and 4.6", "Glm4MoeConfig", {**_WIDTH, **_ROUTED, "n_group": 1, "topk_group": 1}
    ),
    "smollm3": Family("SmolLM3", "SmolLM3Config", {**_SIZES, "no_rope_layers": [1, 1, 1, 0]}),
    "stablelm": Family("StableLM", "StableLmConfig", _SIZES),
    "seed_oss": Family("Seed-OSS", "SeedOssConfig", _WIDTH),
    "hunyuan": Family("Hunyuan", "HunYuanDenseV1Config", _WIDTH),
    "ernie4_5": Family("ERNIE 4.5", "Ernie4_5Config", _WIDTH),
    "minimax_m2": Family(
        "MiniMax M2", "MiniMaxM2Config",
        {**_WIDTH, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "helium": Family("Helium", "HeliumConfig", _WIDTH),
    "apertus": Family("Apertus", "ApertusConfig", _SIZES),
    "lfm2": Family(
        "LFM2", "Lfm2Config",
        {**_SIZES, "layer_types": ["conv", "conv", _FULL, "conv"],
         "block_auto_adjust_ff_dim": False},
    ),
    "mamba": Family(
        "Mamba", "MambaConfig",
        {"hidden_size": D_MODEL, "num_hidden_layers": N_LAYERS, "state_size": 8, **_TOKENS},
    ),
    "mamba2": Family(
        "Mamba-2", "Mamba2Config",
        {"hidden_size": D_MODEL, "num_hidden_layers": N_LAYERS, "num_heads": 8, "head_dim": 8,
         "state_size": 8, **_STATES, **_TOKENS},
    ),
    "falcon_h1": Family(
        "Falcon H1", "FalconH1Config",
        {**_WIDTH, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8,
         "mamba_chunk_size": 8, "lm_head_multiplier": 0.5, "embedding_multiplier": 2.0},
    ),
    "nemotron_h": Family(
        "Nemotron-H, Nemotron 3", "NemotronHConfig",
        {**_WIDTH, **_STATES, "layers_block_type": ["mamba", "moe", "attention", "moe"],
         "mamba_num_heads": 8, "mamba_head_dim": 8, "ssm_state_size": 8, "n_routed_experts": 4,
         "num_experts_per_tok": 2, "moe_intermediate_size": 16,
         "moe_shared_expert_intermediate_size": 16, "n_group": 1, "topk_group": 1},
    ),
    "jamba": Family(
        "Jamba", "JambaConfig",
        {**_SIZES, **_EXPERTS, "attn_layer_period": 4, "attn_layer_offset": 2,
         "expert_layer_period": 2, "expert_layer_offset": 1, "mamba_d_state": 8,
         "mamba_expand": 2, "mamba_dt_rank": 4, "use_mamba_kernels": False},
    ),
    "zamba2": Family(
        "Zamba 2", "Zamba2Config",
        {**_SIZES, "mamba_d_state": 8, "mamba_ngroups": 1, "n_mamba_heads": 4,
         "mamba_headdim": 16, "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
         "hybrid_layer_ids": [1, 3], "num_mem_blocks": 1, "chunk_size": 8,
         "use_mamba_kernels": False},
    ),
    "bert": Family("BERT, ModernBERT and other encoders", "BertConfig", _SIZES),
    "t5": Family("T5 and other encoder-decoders", "T5Config", {"num_layers": 4, "d_model": 32}),
}  # fmt: skip


def build(config: PretrainedConfig, auto: type = AutoModelForCausalLM) -> PreTrainedModel:
    """Return a model of ``config``, with weights wide enough for predictions to differ by token.

    Norms are moved off their start, so that a wrong place before or after one shows.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = auto.from_config(copy.deepcopy(config)).eval()
        for name, weight in model.named_parameters():
            weight.requires_grad_(False)
            if "A_log" in name or "conv" in name:  # of states: they would grow without bound
                continue
            if weight.ndim > 1:
                weight.normal_(std=0.3)
            elif "norm" in name or ("bias" in name and "dt_bias" not in name):
                weight.add_(0.1 * torch.randn_like(weight))
    model.generation_config.eos_token_id = 2
    return model


@cache
def shape_or_refusal(name: str) -> ModelShape | str:
    """Return the shape that the fetch stage finds for a family, or why it refuses it."""
    try:
        return model_shape(FAMILIES[name].configuration(), name)
    except ModelError as error:
        return str(error).removeprefix(f"{name}: ")


def row(name: str) -> str:
    """Return the line of a family in the table of docs/models.md."""
    family, found = FAMILIES[name], shape_or_refusal(name)
    kind = family.configuration().model_type
    if isinstance(found, str):
        return f"| {family.models} | `{kind}` | refused: {found} |"
    return f"| {family.models} | `{kind}` | runs as {found.architecture} |"


def rows_on_page() -> list[str]:
    """Return the lines of the table as the page has it."""
    return PAGE.read_text("utf-8").split(BEGIN)[1].split(END)[0].strip().splitlines()[2:]


def main() -> None:
    """Renew the table on the page."""
    before, rest = PAGE.read_text("utf-8").split(BEGIN)
    lines = ["| models | `model_type` | |", "|---|---|---|", *map(row, FAMILIES)]
    after = rest.split(END)[1]
    write_text(PAGE, "\n".join([before + BEGIN, *lines, END + after]))


if __name__ == "__main__":
    main()
