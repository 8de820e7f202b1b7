"""The surroundings of every stage: its job, machine, advice, locks, and provenance of results."""
