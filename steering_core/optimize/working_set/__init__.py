"""A solver for programs that one path cannot solve: several margins, or limits for each input.

``solver`` is where to start. It solves a small program on a working set of columns, prices every
column of the full dictionary, and repeats with the columns that would lower the objective.
``limits`` are the bounds of the coefficients, ``guards`` bound the residual along other directions,
``variants`` are the named programs of an experiment.
"""
