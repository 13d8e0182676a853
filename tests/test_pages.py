"""What the pages say is there: their links, make's targets, and the front page's filter in a real Envoy."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from topology import Lane, Topology, connection_manager
from traffic import Client, new_context

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
EXAMPLES = ROOT / "examples"
FOLDERS = ["docs", "envoy", "examples", "istio"]
PAGES = sorted([*ROOT.glob("*.md"), *(page for name in FOLDERS for page in (ROOT / name).rglob("*.md"))])


def text_of(page: Path) -> str:
    """Returns a page without its blocks of code, whose `](` and `#` mean something else."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or anchor and anchor not in anchors(target):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere(page):
    assert broken_links(page) == []


def test_a_broken_link_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A page\n[a](page.md#a-page) [b](#a-page) [c](#b) [d](missing.md) [e](https://example.com)\n")
    assert broken_links(page) == ["#b", "missing.md"]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_targets_of_make_exist(page):
    commands = re.findall(r"(?:^    |`)make ([a-z-]+)", page.read_text(), re.MULTILINE)
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(commands) <= set(targets)


def not_in_the_index(files: list[Path], index: str) -> list[str]:
    """Returns the files that the index of the examples neither links nor covers by their folder."""
    links = re.findall(r"\]\(([^)#]+)\)", index)
    known = [(EXAMPLES / link).resolve() for link in links]
    return [str(file.relative_to(EXAMPLES)) for file in files if not {file, *file.parents} & set(known)]


def test_index_of_examples_has_every_file():
    built_from = ["Dockerfile", "package.json", "package-lock.json", "go.mod", "go.sum", "requirements.txt"]
    known = subprocess.run(["git", "ls-files", EXAMPLES], capture_output=True, text=True, check=True, cwd=ROOT)
    files = [ROOT / name for name in known.stdout.split()]
    listed = [file for file in files if file.name not in [*built_from, "README.md"]]
    assert len(listed) > 50
    assert not_in_the_index(listed, (EXAMPLES / "README.md").read_text()) == []
    assert not_in_the_index([EXAMPLES / "new.yaml"], (EXAMPLES / "README.md").read_text()) == ["new.yaml"]


def test_index_of_examples_names_tests_that_exist():
    named = set(re.findall(r"`(test_\w+\.py)`", (EXAMPLES / "README.md").read_text()))
    assert named and {name for name in named if not (ROOT / "tests" / name).is_file()} == set()


def test_front_page_is_short():
    assert len(README.read_text().splitlines()) <= 200


def test_filter_of_the_front_page_runs(outermost_envoy):
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)

    def paste(resources: dict) -> None:
        for listener in resources["listeners"]:
            chain = connection_manager(listener)["http_filters"]
            chain[:] = [*yaml.safe_load(block), chain[-1]]

    context = new_context()
    with Topology({"": Lane(change=paste)}, envoy=outermost_envoy) as running, Client(running, "1.1") as client:
        client.through("", "/a", {"traceparent": context.traceparent("01")})
        spans = running.receiver.trace(context.trace_id, spans=3)
    assert {span.service for span in spans} == {"shop"}
