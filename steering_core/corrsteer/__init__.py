"""CorrSteer: steer with the features whose generation-time activation correlates with success.

Feature selection by correlation with the outcome of generated answers, coefficients from the
successful ones, steering of several layers in one pass, and evaluation paired by example
(Cho et al. 2025, arXiv:2508.12535).
"""
