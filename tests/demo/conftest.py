import pytest

from steering_core.demo.grammar import write_corpus
from steering_core.demo.language_model import train_language_model

TINY = {
    "d_model": 16,
    "n_layers": 2,
    "n_heads": 2,
    "n_steps": 8,
    "batch_size": 16,
    "context_size": 64,
}


@pytest.fixture(scope="session")
def demo_corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "corpus.parquet"
    write_corpus(path, 400, 0)
    return path


@pytest.fixture(scope="session")
def demo_model_dir(demo_corpus):
    path = demo_corpus.parent / "model"
    train_language_model(demo_corpus, path, **TINY, seed=1)
    return path


@pytest.fixture(scope="session")
def tiny_settings():
    return TINY
