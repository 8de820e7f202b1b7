"""Tables of keys in the docs have every key of the schema, and no other."""

import re
from pathlib import Path

import pytest

from steering_core.config.corrsteer_schema import Arm
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
