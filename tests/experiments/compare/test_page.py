"""The page and the pictures: whole, without anything from elsewhere, and with the verdict at the top."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from outcomes import outcome

from rlstages.experiments.compare import figure
from rlstages.experiments.compare.page import page, write_page
from rlstages.experiments.compare.verdict import judge

FINALS = {"staged": [0.9, 0.92, 0.94, 0.91], "scratch": [0.1, 0.3, 0.2, 0.1], "clone-only": [0.5, 0.5, 0.6, 0.4]}


class Reader(HTMLParser):
    VOID = {"meta", "img", "source", "br", "link"}

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.links = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and self.open[-1:] != ["style"]:
            self.words.append(" ".join(data.split()))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return outcome(tmp_path_factory.mktemp("outcome"), FINALS)


def test_the_verdict_comes_first_and_says_how_much_and_how_sure(results):
    verdict = judge(results)
    text = page(results, verdict)
    read = Reader(text)

    assert read.open == []
    body = read.words[read.words.index("small") :]
    places = [body.index(words) for words in (verdict.headline, verdict.size, verdict.sureness, verdict.speed)]
    assert places == sorted(places) and places[-1] < body.index("Final success in the last variant")
    for arm in FINALS:
        assert arm in body


def test_the_page_needs_nothing_from_elsewhere_and_takes_both_colourings(results):
    text = page(results, judge(results))

    assert all(link.startswith("data:image/svg+xml;base64,") for link in Reader(text).links)
    assert not re.search(r"<script|@import|url\(", text)
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text


def test_names_cannot_break_out_of_the_page(tmp_path):
    results = outcome(tmp_path, {"staged": [0.9, 0.9], "scratch": [0.1, 0.1]})
    object.__setattr__(results.arms[1], "meaning", "<script>alert(1)</script>")

    text = page(results, judge(results))

    assert "<script>" not in text and "&lt;script&gt;" in text


def test_without_matplotlib_there_is_a_page_that_says_so(results, monkeypatch, tmp_path):
    monkeypatch.setattr(figure.importlib.util, "find_spec", lambda name: None)

    text = write_page(tmp_path, results, judge(results)).read_text()

    assert "pip install &#39;rlstages[plots]&#39;" in text and "<picture>" not in text
    assert judge(results).headline in text


def test_figures_are_whole_pictures_and_the_same_every_time(results, tmp_path):
    pytest.importorskip("matplotlib")
    png, svg = figure.write_figures(tmp_path, results)

    assert png.read_bytes().startswith(b"\x89PNG") and len(png.read_bytes()) > 20_000
    assert ElementTree.fromstring(svg.read_text()).tag.endswith("svg")
    before = svg.read_bytes()
    figure.write_figures(tmp_path, results)
    assert svg.read_bytes() == before
