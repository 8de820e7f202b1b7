"""The Hugging Face hub: its errors, further attempts, and the commits that names stand for."""
