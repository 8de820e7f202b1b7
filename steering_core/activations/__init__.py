"""Residual streams and SAE features of the examples, on disk as Parquet."""
