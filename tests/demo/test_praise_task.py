import pyarrow.parquet as pq

from steering_core.demo.praise_task import write_praise_task


def test_prompts_are_balanced_distinct_and_unfinished(tmp_path):
    write_praise_task(tmp_path / "a", 60, 3)
    table = pq.read_table(tmp_path / "a").to_pydict()
    assert list(table) == ["prompt", "sentiment"]
    assert sum(table["sentiment"]) == 30 and len(set(table["prompt"])) == 60
    assert not any(prompt.endswith(".") for prompt in table["prompt"])


def test_equal_seeds_give_equal_bytes(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_praise_task(tmp_path / name, 40, seed)
    contents = [(tmp_path / name).read_bytes() for name in "abc"]
    assert contents[0] == contents[1] != contents[2]
