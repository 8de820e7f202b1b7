"""What surrounds every stage: its job, its machine, advice, locks, and where results come from."""
