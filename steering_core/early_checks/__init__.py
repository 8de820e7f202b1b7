"""Checks of an experiment of either half before any job, and before its weights are downloaded.

:func:`check_before_any_job` lists all that can be known without a network. :func:`main` is the
command ``python -m steering_core.early_checks NAME …``, which asks the hub as well. The fetch
stages make the other checks. Each check raises or does nothing. So no result depends on this
package, and the code digests leave it out (:mod:`steering_core.runtime.digest`): an edit here, or
of what is called here, fetches nothing again.
"""

from steering_core.early_checks.command import main
from steering_core.early_checks.fetch_stage import (
    check_effect_layers,
    check_examples,
    check_items,
    check_lexicon,
)
from steering_core.early_checks.offline import check_before_any_job

__all__ = [
    "check_before_any_job",
    "check_effect_layers",
    "check_examples",
    "check_items",
    "check_lexicon",
    "main",
]
