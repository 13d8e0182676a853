"""The pages: their links, their shell commands, make's targets, and the front page's filter in a real Envoy.

Commands stand in blocks ```sh. Each of them runs in a test, or the sentence before its block says that it needs a
cluster or Docker.
"""

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

import tools
from shared_envoys import SharedTopology
from test_differential import sidespan
from topology import MODULE, Lane, connection_manager
from traffic import Client, new_context

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
EXAMPLES = ROOT / "examples"
NEEDS_MORE = re.compile(r"\bneeds? (?:a\s+cluster|Docker)\b")
# Commands that `test_commands_run` runs as the pages have them.
RUN_HERE = re.compile(
    r"(?:echo .*\|\s+)?target/release/sidespan (?:explain|replay) .*"
    r"|export DEBUG_TOKEN_KEY=.*|token=\$\(target/release/sidespan token .*\)"
    r"|envoy --mode validate -c envoy/envoy\.yaml"
    r"|istioctl validate -f .*"
    r"|sha256sum target/sidespan\.wasm",
    re.DOTALL,
)
# Where the other commands run: a test, or a file that runs them.
RUN_BY = {
    r"make demo": "tests/test_demo.py::test_demo_shows_every_trace_and_what_was_dropped",
    r"make (?:test|wasm|lint|deny)|cargo test -p sidespan|make wasm && python3 tests/run\.py tests/test_tags\.py -q": (
        ".github/workflows/ci.yaml"
    ),
    r"cargo check": "Makefile",
    r"make (?:harness|dist)": ".github/workflows/release.yaml",
    r"make replay SCENARIOS=.*": "harness/tests/it/scenarios.rs",
    r"sidespan (?:explain|replay|token)": "harness/tests/it/main.rs",
    r"make image": "tests/test_image.py::test_make_writes_the_image_and_takes_the_format",
    r"make push REGISTRY=.*": "tests/test_image.py::test_make_pushes_and_prints_the_url",
    r"python3 release/crane\.py auth login .*": "tests/test_image.py::test_a_login_of_dockers_configuration_is_used",
    r"python3 release/crane\.py digest .*": "tests/test_image.py::test_a_pushed_image_comes_back_byte_for_byte",
    r"mkdir image && tar -xf .*|python3 release/push\.py image .*": (
        "tests/test_release.py::test_the_image_of_the_archive_is_pushed"
    ),
    r"python3 release/notes\.py v0\.1\.0": "tests/test_release.py::test_notes_are_the_section_of_the_version",
    r"sha256sum --check SHA256SUMS": "tests/test_release.py::test_the_sums_are_those_of_all_files",
    r"curl -s '(?:localhost|127\.0\.0\.1):9901/stats\?filter=sidespan'.*": (
        "tests/test_operations.py::test_counters_are_those_that_the_page_shows"
    ),
    r"envoy --mode validate(?: -c \S+)?": (
        "tests/test_invalid_configuration.py::test_a_start_is_refused_as_a_listener_is"
    ),
    r"envoy -c examples/envoys-own-tracer/envoy\.yaml": "tests/test_own_tracer.py::test_which_requests_have_a_span",
    r"cd /etc/envoy|cp sidespan\.yaml new\.yaml|\$EDITOR new\.yaml|mv new\.yaml sidespan\.yaml": (
        "tests/test_plain_envoy.py::test_a_file_that_changes_is_read_and_a_wrong_one_is_not"
    ),
    r"istioctl (?:validate|analyze)": "tests/test_istioctl.py::test_every_manifest_is_valid",
    r"kubectl kustomize istio/kustomize/overlays/staging": (
        "tests/test_manifests.py::test_overlay_makes_the_plugin_of_its_example"
    ),
    r"egctl experimental validate -f .*": "tests/test_envoy_gateway.py::test_the_manifests_are_valid",
    r"prometheus --config\.file=envoy/monitoring/prometheus\.yaml": (
        "tests/test_monitoring.py::test_shipped_files_are_valid"
    ),
    r"export (?:PORT|OTEL_EXPORTER_OTLP_ENDPOINT)=.*|cd examples/apps/(?:node|go|python) && .*"
    r"|(?:make wasm && )?envoy -c envoy/envoy\.yaml|python3 envoy/service\.py .*"
    r"|curl -s http://127\.0\.0\.1:10000/call .*": (
        "tests/test_apps.py::test_request_through_three_applications_is_one_trace"
    ),
    r"export BACKEND_ENDPOINT=.*|otelcol-contrib (?:validate )?--config examples/collector/gateway/collector\.yaml": (
        "tests/test_collector_tiers.py::test_the_gateway_passes_spans_on"
    ),
    r"SAMPLERS=.*": "tests/test_collector_tiers.py::test_no_trace_is_split_between_samplers",
}
PROGRAMS = (
    "cargo|cp|crane|curl|cd|docker|echo|egctl|envoy|export|go|helm|istioctl|kubectl|linkerd|make|mkdir|mv|npm|openssl"
    "|otelcol-contrib|prometheus|python3|sed|sha256sum|sidespan|skopeo|tar|target/release/sidespan"
)
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


class Command(NamedTuple):
    """A command of a page; `says` is the text around it that can say what it needs."""

    page: str
    text: str
    says: str


def commands(page: Path) -> list[Command]:
    """Returns the commands of a page's blocks, each with the paragraph before its block."""
    name, text = str(page.relative_to(ROOT)), page.read_text()
    found = []
    for block in re.finditer(r"^( *)```sh\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
        paragraph = text[: block.start()].rstrip("\n").rpartition("\n\n")[2]
        lines = [line.removeprefix(block[1]) for line in block[2].splitlines()]
        found += [Command(name, command, paragraph) for command in joined(lines)]
    return found


def joined(lines: list[str]) -> list[str]:
    """Returns the commands of these lines; a command ends with its line, unless its text goes on."""
    found, begun = [], ""
    for line in lines:
        begun += line + "\n"
        if begun.strip() and is_complete(begun):
            found.append(begun.strip())
            begun = ""
    assert not begun.strip(), begun
    return found


def is_complete(text: str) -> bool:
    try:
        shlex.split(text)
    except ValueError:  # An open quotation mark.
        return False
    return not text.rstrip().endswith(("\\", "|", "&&"))


def inline_commands(page: Path) -> list[Command]:
    """Returns the commands in a page's sentences, each with the section that it is in."""
    name = str(page.relative_to(ROOT))
    sections = re.split(r"^(?=#+ )", text_of(page), flags=re.MULTILINE)
    spans = ((re.sub(r"\s+", " ", span), section) for section in sections for span in re.findall(r"`([^`]+)`", section))
    return [Command(name, span, section) for span, section in spans if re.match(rf"(?:{PROGRAMS}) (?!=)", span)]


def where(command: str) -> str | None:
    """Returns where a command runs, None if it does not."""
    if RUN_HERE.fullmatch(command):
        return "tests/test_pages.py::test_commands_run"
    return next((test for pattern, test in RUN_BY.items() if re.fullmatch(pattern, command, re.DOTALL)), None)


def runs_or_says(command: Command) -> bool:
    return bool(NEEDS_MORE.search(command.says)) or where(command.text) is not None


ALL_COMMANDS = [command for page in PAGES for command in commands(page)]
RUN = [command for command in ALL_COMMANDS if RUN_HERE.fullmatch(command.text) and not NEEDS_MORE.search(command.says)]


def test_commands_run_in_a_test_or_say_what_they_need():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    of_make = re.compile(rf"make (?:{'|'.join(targets)})")
    sentences = [command for page in PAGES for command in inline_commands(page)]
    sentences = [command for command in sentences if not of_make.match(command.text)]
    assert len(ALL_COMMANDS) > 80 and len(sentences) > 5
    assert [command for command in [*ALL_COMMANDS, *sentences] if not runs_or_says(command)] == []


def test_commands_run_where_it_is_said():
    missing = []
    for place in RUN_BY.values():
        file, _, test = place.partition("::")
        path = ROOT / file
        if not path.is_file() or test and f"def {test}(" not in path.read_text():
            missing.append(place)
    assert missing == []
    texts = [command.text for page in PAGES for command in [*commands(page), *inline_commands(page)]]
    unused = [pattern for pattern in RUN_BY if not any(re.fullmatch(pattern, text, re.DOTALL) for text in texts)]
    assert unused == []


def test_scenarios_of_commands_are_those_of_make():
    replayed = [text for _, text, _ in ALL_COMMANDS if text.startswith("make replay")]
    assert len(replayed) > 12
    for text in replayed:
        assert re.search(r"SCENARIOS=(?:\"\$\(echo )?examples/[\w-]+/\*?scenario\.yaml", text), text
        assert list(ROOT.glob(re.search(r"examples/[\w*/-]+\.yaml", text)[0])), text


@pytest.mark.parametrize(
    "page, expected",
    [
        ("This needs a cluster:\n\n```sh\nkubectl get pod\n```\n", []),
        ("This needs a\ncluster:\n\n```sh\nkubectl get pod\n```\n", []),
        ("```sh\nmake demo\n```\n", []),
        ("```sh\nkubectl get pod\n```\n", ["kubectl get pod"]),
        ("This needs a cluster.\n\nThis:\n\n```sh\nkubectl get pod\n```\n", ["kubectl get pod"]),
        ("```sh\nmake demo\nkubectl get pod |\n    grep x\n```\n", ["kubectl get pod |\n    grep x"]),
        ("- Here:\n\n  ```sh\n  kubectl get \\\n      pod\n  ```\n", ["kubectl get \\\n    pod"]),
        ("Say `kubectl get pod` to it.\n", ["kubectl get pod"]),
        ("# A\n\nIt needs a cluster.\n\n# B\n\n`kubectl get pod`, `kubectl`\n", ["kubectl get pod"]),
    ],
)
def test_a_command_that_nobody_runs_is_noticed(tmp_path, monkeypatch, page, expected):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    file = tmp_path / "page.md"
    file.write_text(page)
    found = [*commands(file), *inline_commands(file)]
    assert [command.text for command in found if not runs_or_says(command)] == expected


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_commands_stand_in_blocks_of_their_own(page):
    text = page.read_text()
    languages = re.findall(r"^ *```(\S*)\n.*?^ *```$", text, re.MULTILINE | re.DOTALL)
    assert set(languages) <= {"", "js", "sh", "yaml"}
    assert re.findall(rf"^ {{4,}}(?:{PROGRAMS}) .*", re.sub(r"^( *)```.*?^ *```$", "", text, flags=re.M | re.S), re.M) == []


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, newest_envoy):
    """A checkout after `make wasm` and `make harness`, and an environment with the programs that users have."""
    folder = tmp_path_factory.mktemp("checkout")
    for entry in ROOT.iterdir():
        if entry.name != "target":
            (folder / entry.name).symlink_to(entry)
    programs = {
        folder / "target" / "sidespan.wasm": MODULE,
        folder / "target" / "release" / "sidespan": sidespan(),
        folder / "bin" / "envoy": newest_envoy,
        folder / "bin" / "istioctl": tools.go_program(ROOT / "tests" / "istioctl"),
    }
    for link, program in programs.items():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(program).resolve())
    policy = next(yaml.safe_load_all((ROOT / "envoy" / "gateway" / "policy-image.yaml").read_text()))
    (folder / "config.yaml").write_text(yaml.safe_dump(policy["spec"]["wasm"][0]["config"]))
    return folder, os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}


@pytest.mark.parametrize("page", dict.fromkeys(command.page for command in RUN))
def test_commands_run(checkout, page):
    folder, environment = checkout
    script = "\n".join(["set -euo pipefail", *(command.text for command in RUN if command.page == page)])
    ran = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("\ndecision: ") == script.count("sidespan explain")
    if "sidespan token" in script:
        assert "decision: force (rule debug-token)" in ran.stdout


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_files_that_a_page_names_exist(page):
    folders = "src|tests|harness|envoy|istio|examples|docs|release"
    named = re.findall(rf"`((?:{folders}|\.github)/[\w./-]+)`", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


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
    with SharedTopology({"": Lane(change=paste)}, envoy=outermost_envoy) as running, Client(running, "1.1") as client:
        client.through("", "/a", {"traceparent": context.traceparent("01")})
        spans = running.receiver.trace(context.trace_id, spans=3)
    assert {span.service for span in spans} == {"shop"}
