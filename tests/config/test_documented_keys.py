"""Tables of keys in the docs have every key of the schema, and no other."""

import re
from pathlib import Path

import pytest

from steering_core.config.corrsteer_schema import Arm
from steering_core.config.methods import METHODS
from steering_core.corrsteer.tasks import TASKS
from steering_core.data.concept import Concept

DOCS = Path(__file__).resolve().parents[2] / "docs"
TABLES = [("data.md", "The concept file", Concept), ("corrsteer.md", "The keys of an arm", Arm)]


def rows_of(page: str, heading: str) -> dict[str, str]:
    """The first column of the table under a heading, with the second."""
    text = (DOCS / page).read_text(encoding="utf-8")
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", section, flags=re.M))


@pytest.mark.parametrize(("page", "heading", "schema"), TABLES, ids=[t[1] for t in TABLES])
def test_the_table_has_every_key_in_the_order_of_the_schema(page, heading, schema):
    assert list(rows_of(page, heading)) == list(schema.model_fields)


def test_the_table_of_arms_names_the_default_first():
    for key, said in rows_of("corrsteer.md", "The keys of an arm").items():
        default = Arm.model_fields[key].default
        if isinstance(default, str):
            assert re.findall(r"`(\w+)`", said)[0] == default, key
        elif default is not None:
            assert said.startswith(str(default)), key


def test_the_table_of_methods_has_every_method():
    text = (DOCS / "methods.md").read_text(encoding="utf-8")
    names = [row.split("|")[1] for row in text.splitlines() if row.startswith("| `")]
    assert sorted(re.findall(r"`(\w+)`", " ".join(names))) == sorted(METHODS)


class Recorded(dict):
    """A row that notes which columns are read."""

    def __init__(self, row):
        super().__init__(row)
        self.read = []

    def __getitem__(self, column):
        if column not in self.read:
            self.read.append(column)
        return super().__getitem__(column)

    def get(self, column, default=None):
        return self[column] if column in self else default


ANY = dict.fromkeys(("question", "context", "problem", "prompt", "sentence"), "text")
ANY |= {"choices": ["a", "b"], "options": ["a", "b", "c"], "ans0": "a", "ans1": "b", "ans2": "c"}
OWN = {
    "mmlu": {"answer": 1},
    "mmlu_pro": {"answer": "B"},
    "gsm8k": {"answer": "1 + 1 = 2\n#### 2"},
    "bbq_ambig": {"context_condition": "ambig", "label": 0},
    "bbq_disambig": {"context_condition": "disambig", "label": 0},
    "simpleqa": {"answer": "text"},
    "xstest": {"label": "safe"},
    "sst2_choice": {"label": 1},
}


def test_the_table_of_tasks_has_every_column_that_a_task_reads():
    text = (DOCS / "corrsteer.md").read_text(encoding="utf-8")
    section = text.split("## The columns of a task\n")[1].split("\n## ")[0]
    said = {
        task: set(re.findall(r"(?:^|; |, )`(\w+)`", columns)) & (set(ANY) | {*_OTHERS})
        for tasks, columns in re.findall(r"^\| (`.*?) \| (.*) \|$", section, flags=re.M)
        for task in re.findall(r"`(\w+)`", tasks)
    }
    assert set(said) == set(TASKS)
    for name, task in TASKS.items():
        row = Recorded({**ANY, **OWN.get(name, {})})
        assert task.read(row) is not None, name
        assert said[name] == set(row.read), name


_OTHERS = {column for own in OWN.values() for column in own}
