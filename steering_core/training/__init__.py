"""SAEs trained by the rules, their texts and worth; and the fine-tuning of language models."""
