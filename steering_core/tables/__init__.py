"""Results as people meet them: the columns of ``pareto.csv``, pictures and pages."""
