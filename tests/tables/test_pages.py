import base64
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from table_data import features_table, generations_table

from steering_core.metrics.judges import score_label, target_scores
from steering_core.tables.features import features_page
from steering_core.tables.pages import generations_page, neuronpedia_url

HOSTILE = "<script>alert(1)</script><img src=x onerror='a()'> \" & </div> {{ x }}"


class Elements(HTMLParser):
    """Counts elements and keeps attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)

    def having(self, attribute: str, value: str) -> int:
        return sum(value in (attrs.get(attribute) or "").split() for _, attrs in self.tags)


def test_neuronpedia_url() -> None:
    url = "https://www.neuronpedia.org/gpt2-small/7-res-jb/123"
    assert neuronpedia_url("gpt2-small/7-res-jb", np.int64(123)) == url
    assert neuronpedia_url(None, 5) is None


@pytest.mark.parametrize("bad", ["gpt2-small", "", "a/b/c", "a/b?x=1", "javascript:a/b", "a /b"])
def test_neuronpedia_id_of_another_form(bad: str) -> None:
    with pytest.raises(ValueError, match="model/sae"):
        neuronpedia_url(bad, 1)


def test_neuronpedia_negative_feature() -> None:
    with pytest.raises(ValueError, match="negative"):
        neuronpedia_url("a/b", -1)


def test_generations_unsteered_first_a_column_per_method() -> None:
    page = generations_page(generations_table(), "demo")
    names = re.findall(r'aria-label="strength of (\w+)"', page)
    assert names == ["qp_optimal", "convex_optimal", "topk_features", "caa_mean_diff"]
    heads = re.findall(r'<th scope="col" data-column="\d">.*?</span>(\w+)<', page)
    assert heads == ["no_steering", *names]
    elements = Elements(page)
    assert elements.having("class", "entry") == 4 * (1 + 4 * 3)
    assert elements.count("tr") == 1 + 4
    assert elements.count("option") == 4 * 3


def test_generations_start_at_the_middle_strength() -> None:
    page = generations_page(generations_table(), "demo")
    assert re.findall(r" selected>([^<]+)<", page) == ["0.5"] * 4


def test_generations_start_at_the_selected_strength_if_there_is_one() -> None:
    df = generations_table()
    at = (df["method"] == "qp_optimal") & (df["strength"] == 1.0)
    df = df.assign(strength_name="tau at lambda=1", selected=at.where(at, pd.NA))
    shown = re.findall(r" selected>([^<]+)<", generations_page(df, "demo"))
    assert shown == ["λ = 1, τ = 1"] + ["λ = 1, τ = 0.5"] * 3


def test_generations_strength_names_tell_sweeps_apart() -> None:
    df = generations_table()
    tau = df[df["method"] == "qp_optimal"].assign(strength_name="tau")
    both = pd.concat([df.assign(strength_name=None), tau])
    options = re.findall(r"<option[^>]*>([^<]+)<", generations_page(both, "t"))
    assert {"0.5", "τ = 0.5"} <= set(options)


def test_generations_show_what_failed_as_failed() -> None:
    df = generations_table()
    df.loc[3, "text"] = None
    elements = Elements(generations_page(df, "demo"))
    assert elements.having("class", "bad") == 1
    assert "no text" in elements.text and "infeasible" in elements.text
    assert "nan" not in elements.text.lower()


@pytest.mark.parametrize("blank", ["", " \n"])
def test_generations_show_an_empty_text_as_empty(blank: str) -> None:
    df = generations_table()
    df.loc[3, "text"] = blank
    text = Elements(generations_page(df, "demo")).text
    assert "(empty)" in text and "no text" not in text


def test_generations_optional_columns_may_be_absent() -> None:
    page = generations_page(generations_table().drop(columns=["status", "target_score"]), "demo")
    assert Elements(page).having("class", "badge") == 0


@pytest.mark.parametrize(
    ("classifier", "label"),
    [
        (None, "P(target), evaluation probe"),
        ({"lexicon": "l.json", "model": None}, "target words (share), lexicon"),
        ({"lexicon": None, "model": "org/m"}, "P(target), classifier"),
    ],
)
def test_the_verdict_is_for_the_target_class_and_says_whose_it_is(classifier, label) -> None:
    df = generations_table()
    df["target_score"] = target_scores(pd.Series([0.2, np.nan] * (len(df) // 2)), target_class=0)
    page = generations_page(df, "demo", score_label(classifier))
    assert set(re.findall(r'<span class="badge">([^<]+)</span>', page)) == {f"{label}: 0.80"}
    assert target_scores(pd.Series([0.2]), target_class=1).tolist() == [0.2]


@pytest.mark.parametrize("build", [generations_page, features_page])
def test_pages_begin_with_their_warnings(build) -> None:
    df = generations_table() if build is generations_page else features_table()
    elements = Elements(build(df, "demo", warnings=["mind <this>", "and that"]))
    assert elements.having("class", "warning") == 2
    assert "Warning: mind <this>." in elements.text
    assert Elements(build(df, "demo")).having("class", "warning") == 0


def test_generations_duplicates_and_missing_columns() -> None:
    df = generations_table()
    with pytest.raises(ValueError, match="more than once"):
        generations_page(pd.concat([df, df.iloc[:1]]), "demo")
    with pytest.raises(ValueError, match="text"):
        generations_page(df.drop(columns="text"), "demo")


def test_hostile_text_stays_text() -> None:
    df = generations_table()
    for column in ("prompt_id", "prompt", "method", "text", "status", "target_score"):
        df = df.astype({column: object})
    df["strength_name"] = HOSTILE
    calm = Elements(generations_page(df, "title"))
    df.loc[1:4, ["prompt", "text", "status", "target_score"]] = HOSTILE
    df["prompt_id"] = df["prompt_id"] + HOSTILE
    df["method"] = df["method"].replace("caa_mean_diff", HOSTILE)
    page = generations_page(df, HOSTILE + " \ud800", HOSTILE, [HOSTILE])
    page.encode("utf-8")
    hostile = Elements(page)
    assert hostile.count("script") == calm.count("script") == 1
    assert hostile.count("img") == 0
    assert not any("onerror" in attrs for _, attrs in hostile.tags)
    assert "<script>alert(1)</script>" in hostile.text


def test_features_links_bars_and_values() -> None:
    df = features_table(12)
    df["url"] = [neuronpedia_url("gpt2-small/7-res-jb", f) for f in df["feature"]]
    df.loc[3, "url"] = None
    df.loc[4, "correlation"] = np.nan
    page = features_page(df, "demo")
    elements = Elements(page)
    links = [attrs["href"] for tag, attrs in elements.tags if tag == "a"]
    assert links == [url for url in df["url"] if isinstance(url, str)] and len(links) == 11
    assert elements.having("class", "bar") == 11
    assert f'data-value="{df.loc[3, "feature"]}">{df.loc[3, "feature"]}</td>' in page
    assert "nan" not in page.split("<table")[1].split("</table>")[0].lower()
    assert "share of coefficients" in elements.text


def test_features_bar_widths_are_relative_to_the_largest() -> None:
    df = features_table(3).assign(correlation=[0.5, -0.25, 0.0])
    widths = re.findall(r'bar (up|down)" style="width:([\d.]+)%', features_page(df, "t"))
    assert widths == [("up", "50.0"), ("down", "25.0"), ("up", "0.0")]


def test_features_share_is_optional_and_urls_are_checked() -> None:
    df = features_table(5).drop(columns="coefficient_share")
    assert "share of coefficients" not in features_page(df, "demo")
    with pytest.raises(ValueError, match="https"):
        features_page(df.assign(url="javascript:alert(1)"), "demo")
    with pytest.raises(ValueError, match="correlation"):
        features_page(df.drop(columns="correlation"), "demo")


@pytest.mark.parametrize("page", ["generations", "features"])
def test_pages_are_self_contained_and_reproducible(page: str) -> None:
    def build() -> str:
        if page == "generations":
            return generations_page(generations_table(), "demo")
        return features_page(features_table(), "demo")

    text = build()
    assert text == build()
    elements = Elements(text)
    assert not any(attrs.get("src") for _, attrs in elements.tags)
    assert elements.count("link") == 0 and "@import" not in text and "url(" not in text
    assert "default-src 'none'" in text and "prefers-color-scheme: dark" in text


def test_the_policy_allows_exactly_the_script_of_the_page() -> None:
    page = features_page(features_table(), "demo")
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
