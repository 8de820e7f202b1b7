"""An experiment whose interventions leave the pipeline, and prompts of many lengths."""

import pytest
import torch
from export_world import write_experiment


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny_model):
    return write_experiment(tmp_path_factory.mktemp("finished") / "mine", tiny_model)


@pytest.fixture(scope="session")
def inputs(tiny):
    """Three prompts with BOS, padded on the left."""
    rows = [[1, 9, 12, 33, 7], [1, 20], [1, 5, 41]]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}
