"""Labelled examples, concept texts and the splits that everything downstream keeps to."""
