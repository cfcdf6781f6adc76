"""The documentation builds without a warning, needs nothing from elsewhere, and is complete."""

import csv
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import pipelines.config
import tuning.config
from keras_zoo import card, list_models

pytest.importorskip("mkdocs")
ROOT = Path(__file__).parents[1]
FAMILIES = sorted({card(name).family for name in list_models()})
# What a browser fetches by itself, unlike what a link leads to.
FETCHED = {"img": "src", "script": "src", "iframe": "src", "source": "src", "link": "href"}


class Html(HTMLParser):
    """What a page fetches, where its links lead, and the names of its places."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.fetched, self.links, self.ids = [], [], set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        self.ids.add(named.get("id"))
        if tag == "a" and named.get("href"):
            self.links.append(named["href"])
        if named.get(FETCHED.get(tag)):
            self.fetched.append(named[FETCHED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make docs` builds it."""
    out = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return out


@pytest.fixture(scope="module")
def pages(site):
    return {page: Html(page) for page in site.rglob("*.html")}


def section(site: Path, name: str) -> str:
    """A network's part of its family's page, from its heading to the next, as text."""
    html = (site / "networks" / f"{card(name).family}.html").read_text()
    part = re.search(rf'<h3 id="{name}">.*?(?=<h[23])', html, re.DOTALL)
    return part[0]


@pytest.mark.parametrize("name", list_models())
def test_a_network_is_drawn_and_described_on_the_page_of_its_family(site, name):
    found = section(site, name)
    assert f"{card(name).parameters:,}" in found
    assert f"{card(name).gmacs:g}" in found
    if card(name).published:
        assert f"top-1 {card(name).published.top1:g}%" in found
    assert f'src="{name}.svg"' in found
    drawing = (site / "networks" / f"{name}.svg").read_text()
    assert len(re.findall("<path", drawing)) > 50


def test_what_was_measured_stands_with_its_network_and_nowhere_else(site):
    with (ROOT / "docs" / "measured.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["network"] for row in rows} <= set(list_models())
    for name in list_models():
        found = section(site, name)
        own = [row for row in rows if row["network"] == name]
        assert ("Measured results: not run." in found) == (not own)
        for row in own:
            assert f"<td>{100 * float(row['top1']):.1f}%</td>" in found
            assert f"<td>{row['commit']}</td>" in found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_familys_page_says_in_sentences_what_was_new_and_how_it_deviates(site, family):
    written = (ROOT / "docs" / "networks" / f"{family}.md").read_text()
    new = written.partition("## What was new")[2]
    assert len(re.findall(r"\.(?=\s)", new)) >= 2
    if any(card(name).paper for name in list_models() if card(name).family == family):
        assert re.search(r"[Ss]ection|The paper is that of", new)
    html = (site / "networks" / f"{family}.html").read_text()
    deviations = html.partition('id="deviations"')[2]
    docstring = (ROOT / "keras_zoo" / f"{family}.py").read_text().split('"""')[1]
    listed = len(re.findall(r"(?m)^- ", docstring.partition("Deviations")[2]))
    assert deviations.partition("</article>")[0].count("<li>") == listed


def test_a_recipe_is_on_the_page_of_its_family(site):
    for recipe in (ROOT / "pipelines" / "recipes").glob("*.*.yaml"):
        family = card(recipe.stem.partition(".")[0]).family
        assert f"--recipe {recipe.stem}" in (site / "networks" / f"{family}.html").read_text()


def test_every_config_and_each_of_its_fields_is_in_the_reference(site):
    html = (site / "reference" / "commands.html").read_text()
    for module in (pipelines.config, tuning.config):
        for name, config in vars(module).items():
            if name.endswith("Config") and config.__module__ == module.__name__:
                assert f'id="{module.__name__}.{name}"' in html
                for field in re.findall(r"(?m)^        (\w+): ", config.__doc__):
                    assert f"<code>{field}</code>" in html, (name, field)


def test_no_page_fetches_anything_from_elsewhere(site, pages):
    assert len(pages) > 20
    for page, html in pages.items():
        for address in html.fetched:
            parts = urlsplit(address)
            assert (parts.scheme, parts.netloc) == ("", ""), (page, address)
            # Those of the page for what is not found begin at the root.
            assert (page.parent / unquote(parts.path).lstrip("/")).exists(), (page, address)
    for sheet in site.rglob("*.css"):
        for address in re.findall(r"url\(\s*[\"']?([^)\"']+)|@import", sheet.read_text()):
            assert address.startswith(("data:", "#")) or not urlsplit(address).netloc, sheet


def test_every_link_within_the_site_leads_to_a_place_there_is(site, pages):
    for page, html in pages.items():
        for link in html.links:
            parts = urlsplit(link)
            # The page for what is not found knows no place of its own.
            if parts.scheme or parts.netloc or page.name == "404.html":
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), (page, link)
            if parts.fragment and target in pages and parts.fragment != "__skip":
                assert unquote(parts.fragment) in pages[target].ids, (page, link)
