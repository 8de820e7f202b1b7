"""SAEs trained by the rules: which texts, the training itself, and what the SAEs are worth."""
