"""How many of the SAEs that sae-lens knows are refused, as docs/models.md says."""

import re
from collections import Counter
from pathlib import Path

from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"


def reason(release: str, known_as: str, folder: str) -> str:
    """Why an SAE is refused, by its names alone; "" if its site is one that is read here."""
    text = f"{release} {known_as} {folder}".lower()
    if re.search("transcoder|clt|skip|hook_mlp_in", text):
        return "transcoder"
    if "temporal" in text:
        return "temporal"
    if "hook_z" in text or ("gemma" in text and "att" in text):
        return "hook_z"
    return ""


def test_the_page_counts_the_refused_saes_of_the_registry():
    counts = Counter(
        reason(release, known_as, folder)
        for release, found in get_pretrained_saes_directory().items()
        for known_as, folder in found.saes_map.items()
    )
    text = PAGE.read_text(encoding="utf-8").split("## The registry of sae-lens")[1].split("##")[0]
    rows = dict(re.findall(r"^\| `?(\w+)`? \| ([\d ]+) \|", text, flags=re.M))
    said = {name: int(n.replace(" ", "")) for name, n in rows.items()}
    refused = {name: n for name, n in counts.items() if name}
    assert said == {**refused, "refused": sum(refused.values()), "all": counts.total()}
