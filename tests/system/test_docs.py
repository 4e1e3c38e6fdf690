"""The documents: links lead somewhere, files that they name are there, and every block that can run is run by a test."""

import re
from pathlib import Path

import pytest

from features.settings import REPOSITORY

PAGES = sorted(
    [*REPOSITORY.glob("*.md"), *(file for part in ("docs", "deploy") for file in (REPOSITORY / part).rglob("*.md"))]
)
RUN_BY = {
    "README.md": "system/test_clean_clone.py",
    "docs/your-own-data.md": "system/test_your_own_data.py",
    "docs/producers.md": "streaming/test_producers_guide.py",
    "docs/services.md": "system/test_clean_clone.py",
    "docs/operations.md": "system/test_clean_clone.py",
}
"""Which test runs a page's blocks of `bash` and `python`."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.S)):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            heads = [
                re.sub(r"[^\w\- ]", "", x.lower()).replace(" ", "-")
                for x in re.findall(r"^#+ (.*)$", file.read_text(), re.M)
            ]
            assert anchor in heads, target


def test_files_that_are_named_are_there() -> None:
    """In the map of the code and in the glossary: a path as it is, a bare name somewhere among our files."""
    folders = ("features", "streaming", "model", "dags", "cli", "benchmarks", "deploy")
    names = {file.name for folder in folders for file in (REPOSITORY / folder).rglob("*.*")}
    for page in ("architecture.md", "glossary.md"):
        for path in re.findall(r"`([\w./*-]+\.(?:py|js|json|c|yaml)|\w[\w/]*/)`", (REPOSITORY / "docs" / page).read_text()):
            assert path in names or list(REPOSITORY.glob(path)), f"{page}: {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_blocks_that_can_run_are_run(page: Path) -> None:
    languages = set(re.findall(r"^```(\w+)", page.read_text(), re.M)) & {"bash", "python", "sh", "shell"}
    name = str(page.relative_to(REPOSITORY))
    if languages:
        assert name in RUN_BY, f"no test is named that runs the blocks of {name}"
        test = (REPOSITORY / "tests" / RUN_BY[name]).read_text()
        assert page.name in test, f"{RUN_BY[name]} does not read {name}"
        for language in languages:
            assert f"{language}" in test
