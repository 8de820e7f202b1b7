"""Training and evaluation of SAEs, their texts, and fine-tuning of language models."""
