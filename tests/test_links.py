"""Links of the pages lead somewhere, as far as that can be told without a network."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
SOURCES = sorted((ROOT / "keras_lottery").rglob("*.py"))
LINK = re.compile(r"\[([^\[\]]*)\]\(\s*([^()\s]+)\s*\)")
ADDRESS = re.compile(r"https?://[^\s)>\]\"'`]+")
# How an address looks on the sites that most links lead to.
FORMS = {
    "arxiv.org": r"https://arxiv\.org/abs/\d{4}\.\d{4,5}",
    "doi.org": r"https://doi\.org/10\.\d{4,}/\S+",
    "github.com": r"https://github\.com/[\w-]+/[\w.-]+(/(tree|blob|issues|pull)/\S+)?",
    "openreview.net": r"https://openreview\.net/forum\?id=[\w-]+",
}


def links(page: Path) -> Iterator[tuple[str, str]]:
    """Words and targets of a page's links, outside of code."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
    for words, target in LINK.findall(text):
        yield " ".join(words.split()), target


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), flags=re.M)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {words.replace(" ", "-") for words in kept}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_project_have_a_target(page):
    for words, target in links(page):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"[{words}]({target})"
        if anchor:
            assert anchor in anchors(file), f"[{words}]({target})"


def test_addresses_are_well_formed():
    for file in PAGES + SOURCES:
        for found in ADDRESS.findall(file.read_text("utf-8")):
            address = found.rstrip(".,;:")
            if "{" in address or (file.suffix == ".py" and address.endswith("/")):
                continue  # The rest is made, or on the next line.
            assert address.startswith("https://"), f"{address} in {file.name}"
            form = FORMS.get(address.split("/")[2], r"https://[\w.-]+\.\w+(/\S*)?")
            assert re.fullmatch(form, address), f"{address} in {file.name}"


def test_papers_are_no_older_than_their_preprints():
    """A year beside a link to arXiv is that of the preprint, or up to three later."""
    seen = 0
    for page in PAGES:
        for words, target in links(page):
            number = re.search(r"arxiv\.org/abs/(\d\d)\d\d\.", target)
            year = re.search(r"\b((?:19|20)\d\d)\b", words)
            if number and year:
                seen += 1
                late = int(year[1]) - 2000 - int(number[1])
                assert 0 <= late <= 3, f"[{words}]({target}) on {page.name}"
    assert seen > 20
