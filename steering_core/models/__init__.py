"""Language models, SAEs, and the residual-stream site where the two meet."""
