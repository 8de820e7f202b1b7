"""The page of an experiment says what was found, loads nothing, and fits a phone."""

import re
import shutil
import subprocess
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from table_data import generations_table, pareto_table

from steering_core.tables.charts import finished, note, svg_text
from steering_core.tables.columns import column_names
from steering_core.tables.experiment_page import (
    N_TEXTS,
    RESULTS,
    experiment_page,
    verdict_of,
    with_selected,
)
from steering_core.tables.norm_matched import norm_matched_panels
from steering_core.tables.pareto_figure import pareto_panels
from steering_core.tables.words import frontier_verdict

HOSTILE = "<script>alert(1)</script><img src=x onerror='a()'> \" & {{ x }}"
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def summary() -> pd.DataFrame:
    rows = [
        ("no_steering", "alpha=0", 0.0, 0.0, 0.0, 0.0, 0.0, np.nan, np.nan, np.nan),
        ("caa_mean_diff", "alpha=0.5", 0.4, 0.3, 0.5, 0.12, np.nan, 1.0, 1.0, 1.0),
        ("qp_optimal", "tau=1 at lambda=1", 0.5, 0.4, 0.6, 0.3, 12.4, 2.5, 1.6, np.nan),
        ("convex_optimal", None, *[np.nan] * 8),
    ]
    table = pd.DataFrame([("demo", *row) for row in rows], columns=column_names("summary"))
    return table


def verdict() -> dict[str, Any]:
    named = {"curve": "alpha", "kl": 0.1}
    return {
        "experiment": "demo",
        "model": "grammar-lm",
        "layer": 2,
        "headline": "To raise the share by 0.2, 12 features cost 2.5 times as much.",
        "sentences": [{"about": "power", "text": "50 prompts give an interval of 0.1."}],
        "distrust": ["a random direction reaches the effect as well"],
        "reference": {"method": "caa_mean_diff", **named},
        "sparse": {"method": "qp_optimal", **named},
        "fewest": None,
    }


def provenance() -> dict[str, Any]:
    return {
        "sources": {
            "model": {"id": "org/model", "revision": "abc"},
            "sae_revision": "def",
            "dataset": {"id": "rows.csv", "revision": "sha256:12"},
            "classifier": {"lexicon": "words.json"},
        },
        "git": {"commit": "6360fc8", "modified": True},
        "libraries": {"torch": "2", "transformers": "5", "numpy": "2.4"},
        "python": "3.11",
        "machine": "Linux x86_64",
        "config_sha256": "0" * 64,
        "code_sha256": "1" * 64,
    }


def page(**changed: Any) -> str:
    pareto = pareto_table()
    texts = generations_table().assign(strength_name=None)
    texts["selected"] = texts["strength"].eq(0.5) | texts["strength"].isna()
    given: dict[str, Any] = {
        "verdict": verdict(),
        "summary": summary(),
        "pareto": pareto,
        "norm_matched": pd.DataFrame(),
        "texts": texts,
        "judge": "P(target), classifier",
        "target": "class 1 (label of grammar)",
        "provenance": provenance(),
        "results": ["products.json", "pareto.csv", "new.csv", "generations.html"],
    }
    return experiment_page(**{**given, **changed})


class Elements(HTMLParser):
    """Elements with their attributes, and the text of the page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def test_the_page_begins_with_the_question_and_the_verdict():
    text = Elements(page()).text
    places = [
        text.index(part)
        for part in (
            "How little must be touched inside grammar-lm at layer 2",
            "12 features cost 2.5 times as much",
            "50 prompts give an interval",
            "selected strength",
            "a random direction reaches the effect as well",
            "side by side",
            "Take the vector away",
            "org/model, abc",
        )
    ]
    assert places == sorted(places)
    assert "6360fc8, with changes" in text and "words.json" in text


def test_the_short_table_has_a_row_per_method_and_shows_what_is_missing():
    html = page().split('<section id="table">')[1].split("</section>")[0]
    rows = re.findall(r"</span>(\w+)</th>(.*?)</tr>", html, re.DOTALL)
    cells = {name: re.findall(r"<td[^>]*>([^<]*)</td>", row) for name, row in rows}
    assert list(cells) == ["qp_optimal", "caa_mean_diff", "no_steering", "convex_optimal"]
    shown = ["λ = 1, τ = 1", "+0.50 (+0.40 to +0.60)", "0.3", "12.4", "2.5 (1.6 to open)"]
    assert cells["qp_optimal"] == shown
    assert cells["convex_optimal"] == ["none selected", "–", "–", "–", "–"]


def test_texts_are_those_of_the_first_prompts_at_the_selected_strength():
    html = page().split('<section id="texts">')[1].split("</section>")[0]
    articles = html.split("<article>")[1:]
    assert len(articles) == min(N_TEXTS, generations_table()["prompt_id"].nunique())
    for article in articles:
        who = re.findall(r"</span>(\w+) <span", article)
        assert who[:3] == ["no_steering", "caa_mean_diff", "qp_optimal"]


def test_a_text_without_a_solution_says_so():
    texts = generations_table().assign(strength_name=None)
    texts["selected"] = True
    texts.loc[texts["method"] == "qp_optimal", ["text", "status"]] = [None, "infeasible"]
    html = page(texts=texts)
    assert "no text" in html and '<span class="badge bad">infeasible</span>' in html


def test_only_the_first_of_several_draws_is_shown():
    texts = generations_table().assign(strength_name=None, selected=True)
    both = pd.concat([texts.assign(draw=0), texts.assign(draw=1, text="second draw")])
    assert "second draw" not in page(texts=both)


def test_all_results_are_linked_and_unknown_ones_come_last():
    links = [a["href"] for a in Elements(page()).all("a")]
    assert links == ["generations.html", "pareto.csv", "products.json", "new.csv"]


def test_exported_vectors_are_linked():
    html = page(exports=["qp_optimal"])
    assert "snakemake --cores 2 results/demo/exports/qp_optimal</code>" in html
    assert "directions.safetensors" not in html


def test_without_the_comparison_at_equal_effect_the_pareto_table_speaks():
    pareto = pareto_table()
    html = page(summary=None, verdict=verdict_of(pareto))
    assert frontier_verdict(pareto, "qp_optimal") in Elements(html).text
    part = html.split('<section id="table">')[1].split("</section>")[0]
    rows = re.findall(r"</span>(\w+)</th>", part)
    chosen = pareto[pareto["selected"]].sort_values("classifier_rate_steered", ascending=False)
    assert rows == chosen["method"].tolist()


def test_further_pictures_come_first_with_what_they_show():
    images = Elements(page(pictures={"matched.svg": "<svg/>"})).all("img")
    assert len(images) == 4
    assert images[0]["alt"] == "What each method costs at the same effect, as a picture"


def test_a_picture_of_several_panels_has_a_row_of_its_own():
    svg = '<svg version="1.1" width="{}" height="300"/>'
    html = page(pictures={"matched.svg": svg.format(940), "price.svg": svg.format(420)})
    figures = Elements(html).all("figure")
    assert [figure.get("class") for figure in figures] == ["wide", *[None] * 4]
    [moved] = [div for div in Elements(html).all("div") if div.get("class") == "sideways"]
    assert moved["tabindex"] == "0"  # it can be moved without a mouse


def test_every_product_of_the_workflow_is_explained():
    text = (Path(__file__).parents[2] / "rules" / "common.smk").read_text(encoding="utf-8")
    lists = [
        re.search(rf"^{name} = \[(.*?)\]", text, re.M | re.S)[1] for name in ("PRODUCTS", "BESIDE")
    ]
    names = re.findall(r'"([^"]+)"', "".join(lists))
    assert set(names) - {"index.html"} <= RESULTS.keys()


def test_the_page_has_no_script_and_loads_nothing():
    html = page()
    elements = Elements(html)
    assert html == page()
    assert not elements.all("script") and not elements.all("link")
    assert "default-src 'none'" in html and "@import" not in html
    sources = [image["src"] for image in elements.all("img")]
    assert len(sources) == 3 and all(s.startswith("data:image/svg+xml;base64,") for s in sources)
    assert all(image["alt"] for image in elements.all("img"))


def test_hostile_text_stays_text():
    texts = generations_table().assign(strength_name=None, selected=True)
    texts["text"] = texts["prompt"] = texts["target_score"] = HOSTILE
    calm = Elements(page())
    found = verdict() | {"headline": HOSTILE, "distrust": [HOSTILE]}
    elements = Elements(page(texts=texts, verdict=found, target=HOSTILE, judge=HOSTILE))
    assert not elements.all("script")
    assert len(elements.all("img")) == len(calm.all("img"))
    assert HOSTILE in elements.text


def test_selected_strengths_come_from_the_pareto_table():
    pareto = pareto_table()
    texts = pareto[["method", "strength_name", "strength"]].assign(text="a")
    found = with_selected(texts, pareto)
    assert len(found) == len(texts) and found["selected"].sum() == pareto["selected"].sum()
    with pytest.raises(pd.errors.MergeError):
        with_selected(texts, pd.concat([pareto, pareto]))


def browsed(directory: Path, inner: str, width: int) -> list[str]:
    """The words that the script of a page writes to the title of the page around it."""
    # A window cannot be as narrow as a phone, a frame can.
    frame = f'<iframe style="width:{width}px;border:0" srcdoc="{escape(inner)}"></iframe>'
    (directory / "page.html").write_text(f"<title></title>{frame}", encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={directory / 'profile'}", "--window-size=1400,900"]
    done = subprocess.run(
        [*command, (directory / "page.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    return re.search(r"<title>([^<]*)</title>", done.stdout)[1].split()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")
@pytest.mark.parametrize("width", [400, 1300])
def test_a_browser_shows_the_page_without_scrolling_sideways(tmp_path: Path, width: int):
    """A script is added to a copy of the page to measure it; the page itself has none.

    A picture of several panels stays large enough to be read. It is moved within its frame.
    """
    measure = (
        "<script>addEventListener('load', () => { const wide = document.documentElement;"
        "const moved = document.querySelector('.sideways');"
        "parent.document.title = [wide.scrollWidth <= innerWidth, innerWidth,"
        "[...document.images].every(i => i.naturalWidth > 0 && (i.width <= innerWidth"
        " || i.parentElement == moved)),"
        "moved.firstElementChild.width >= 760 && moved.clientWidth <= innerWidth,"
        "document.querySelector('.headline').offsetHeight > 0].join(' '); });</script>"
    )
    panels = '<svg xmlns="http://www.w3.org/2000/svg" width="940" height="300"></svg>'
    inner = re.sub(r"<meta http-equiv[^>]*>", "", page(pictures={"matched.svg": panels}))
    inner = inner.replace("</body>", f"<p>https://{'a' * 300}</p>{measure}</body>")
    assert browsed(tmp_path, inner, width) == ["true", str(width), "true", "true", "true"]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")
def test_no_picture_cuts_a_text_in_another_font(tmp_path: Path):
    """Pictures are laid out for one font. Where it is missing, another takes more room."""
    longer = {"caa_mean_diff": "mean_difference_qp_fisher", "caa_repe": "gated_mean_difference_2"}
    pareto = pareto_table().replace({"method": longer})
    drawn = [svg_text(panel) for panel in pareto_panels(pareto)]
    compared = pareto[pareto["method"] == "qp_optimal"].head(2)
    compared = compared[["experiment", "method", "strength_name", "strength"]].assign(
        direction="caa_contrastive", program_flip_rate=0.9, direction_flip_rate=0.8, n=30,
        difference=0.1, difference_ci_low=0.0, difference_ci_high=0.2,
    )  # fmt: skip
    drawn += [svg_text(one) for one in norm_matched_panels(compared, pareto).values()]
    drawn.append(svg_text(finished(note("no program of this experiment has counts to compare"))))
    shown = "".join(drawn).replace(
        "Liberation Sans, Arial, Helvetica, sans-serif", "DejaVu Sans, Verdana, sans-serif"
    )
    assert shown.count("DejaVu Sans") > 20 and len(drawn) > 3
    measure = (
        "<script>addEventListener('load', () => { const out = new Set();"
        "for (const svg of document.querySelectorAll('body > svg'))"
        " for (const text of svg.querySelectorAll('text'))"
        " if (text.getBoundingClientRect().right > svg.getBoundingClientRect().right + 1"
        " || text.getBoundingClientRect().left < svg.getBoundingClientRect().left - 1)"
        " out.add(text.textContent.replaceAll(' ', '_'));"
        "parent.document.title = ['measured', ...out].join(' '); });</script>"
    )
    assert browsed(tmp_path, f"<body>{shown}{measure}</body>", 1300) == ["measured"]
