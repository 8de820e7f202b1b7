"""What steering did, measured: to probes, to predictions, to text."""
