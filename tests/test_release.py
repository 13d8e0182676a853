"""A release: its folder, its notes, its workflows, and the page with the supported versions."""

import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

import conftest
import dist
import image
import notes
import tools
from test_image import KNOWN, RELEASE, registry, run
from test_manifests import CRDS_MODULE, ROOT

HERE = Path(__file__).parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
VERSION = image.annotations()["org.opencontainers.image.version"]
COMPATIBILITY = ROOT / "docs" / "compatibility.md"
PULLED = "mirror.example.com:5000/mesh/sidespan"


def sbom(**changes) -> dict:
    subject = {"type": "library", "name": "sidespan", "version": VERSION}
    crates = [{"type": "library", "name": "proxy-wasm", "version": "0.2.5"}]
    return {"bomFormat": "CycloneDX", "metadata": {"component": subject}, "components": crates} | changes


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, module):
    """The parts of the release. A script stands for the binary, and a short document for the SBOM."""
    folder = tmp_path_factory.mktemp("inputs")
    image.write(module, folder / "image", "image", KNOWN)
    (folder / "sidespan").write_text("#!/bin/sh\necho sidespan\n")
    (folder / "sidespan").chmod(0o755)
    (folder / "sbom.json").write_text(json.dumps(sbom()))
    return folder


def make(inputs: Path, folder: Path):
    """Makes the release by its target, without a build by Cargo."""
    given = {
        "IMAGE": folder.parent / "image",
        "SBOM": inputs / "sbom.json",
        "CLI": inputs / "sidespan",
        "DIST": folder,
        "REGISTRY": f"{PULLED}:{VERSION}",
    }
    built = [f"--old-file={target}" for target in ["wasm", "harness", "sbom"]]
    result = run("make", *built, "dist", *(f"{name}={value}" for name, value in given.items()), cwd=ROOT)
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def release(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("release") / "dist"
    make(inputs, folder)
    return folder


def manifests(release: Path) -> dict[str, list]:
    with tarfile.open(release / "sidespan-manifests.tar.gz") as archive:
        texts = {entry.name: archive.extractfile(entry).read() for entry in archive.getmembers()}
    return {name: list(yaml.safe_load_all(text)) for name, text in texts.items() if name.endswith(".yaml")}


def test_a_release_has_these_files(release):
    expected = {"sidespan.wasm", "sidespan-image.tar", "sidespan-manifests.tar.gz", "sidespan.cdx.json", "SHA256SUMS"}
    assert {file.name for file in release.iterdir()} == expected | {f"sidespan-{dist.platform()}"}


def test_the_sums_are_those_of_all_files(release):
    checked = run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=release)
    assert checked.returncode == 0, checked.stderr
    files = {file.name for file in release.iterdir()} - {"SHA256SUMS"}
    assert checked.stdout.splitlines() == [f"{name}: OK" for name in sorted(files)]


def test_a_changed_file_fails_the_sums(inputs, tmp_path):
    make(inputs, tmp_path / "dist")
    with (tmp_path / "dist" / "sidespan.wasm").open("ab") as file:
        file.write(b"\0")
    checked = run("sha256sum", "--check", "SHA256SUMS", cwd=tmp_path / "dist")
    assert checked.returncode == 1 and "sidespan.wasm: FAILED" in checked.stdout


def test_the_binary_runs(release):
    assert run(release / f"sidespan-{dist.platform()}").stdout == "sidespan\n"


def test_the_image_is_in_the_archive(release, tmp_path, module):
    with tarfile.open(release / "sidespan-image.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    manifest = json.loads((tmp_path / "blobs" / "sha256" / image.digest(tmp_path).removeprefix("sha256:")).read_text())
    (layer,) = manifest["layers"]
    compressed = (tmp_path / "blobs" / "sha256" / layer["digest"].removeprefix("sha256:")).read_bytes()
    with tarfile.open(fileobj=io.BytesIO(compressed)) as archive:
        assert archive.extractfile("plugin.wasm").read() == module.read_bytes()


def test_the_image_of_the_archive_is_pushed(release, tmp_path, registry):
    (tmp_path / "sidespan-image.tar").symlink_to(release / "sidespan-image.tar")
    page = (ROOT / "docs" / "image.md").read_text()
    unpack, push = re.search(r"```sh\n(mkdir image .*)\n(python3 .*)\n```", page).groups()
    push = push.replace("release/push.py", str(ROOT / "release" / "push.py")).replace("registry.example.com", registry)
    result = run("bash", "-euc", f"{unpack}\n{push}", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].endswith(f"/mesh/sidespan@{image.digest(tmp_path / 'image')}")


def test_manifests_name_the_image_by_its_digest(release):
    texts = manifests(release)
    digest = image.digest(release.parent / "image")
    plugin = texts["istio/wasmplugin.yaml"][0]
    assert plugin["spec"]["url"] == f"oci://{PULLED}@{digest}"
    left = [name for name, documents in texts.items() if dist.PLACEHOLDER_NAME in str(documents)]
    assert left == []


def changed(before, after, path=()) -> dict:
    """Returns what differs between two documents of one shape, by where it is."""
    if isinstance(before, dict) and before.keys() == after.keys():
        return {at: it for key in before for at, it in changed(before[key], after[key], (*path, key)).items()}
    if isinstance(before, list) and len(before) == len(after):
        return {at: it for pair in zip(before, after) for at, it in changed(*pair, path).items()}
    return {} if before == after else {path: after}


def test_manifests_differ_from_the_folders_only_in_images_and_sums(release, module):
    filled = manifests(release)
    folders = [ROOT / folder for folder in dist.MANIFEST_FOLDERS]
    originals = {file.relative_to(ROOT).as_posix(): file for folder in folders for file in folder.rglob("*.yaml")}
    assert filled.keys() == originals.keys()
    digest = image.digest(release.parent / "image")
    expected = {
        "url": {f"oci://{PULLED}@{digest}", f"{PULLED}@{digest}"},
        "sha256": {digest.removeprefix("sha256:"), dist.sha256(module)},
    }
    for name, file in originals.items():
        for path, value in changed(list(yaml.safe_load_all(file.read_text())), filled[name]).items():
            assert value in expected[path[-1]], (name, path)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("oci://registry.example.com/sidespan:0.1.0", "image"),
        ("registry.example.com/sidespan:0.1.0", "image"),
        ("https://files.example.com/sidespan.wasm", "module"),
        ("http://files.example.com/sidespan.wasm", "module"),
    ],
)
def test_the_sum_below_a_url_is_that_of_the_image_or_the_module(url, expected):
    sums = {"image": "a" * 64, "module": "b" * 64}
    text = f"spec:\n- code:\n    url: {url}\n    sha256: {'0' * 64}\n"
    filled = dist.fill("a.yaml", text, PULLED, f"sha256:{sums['image']}", sums["module"])
    assert f"sha256: {sums[expected]}\n" in filled


def test_a_sum_without_a_url_is_refused():
    with pytest.raises(dist.DistError, match="a.yaml: expected a `url` above the checksum"):
        dist.fill("a.yaml", f"sha256: {'0' * 64}\nurl: a\n", PULLED, "sha256:a", "b")


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        sbom(bomFormat="SPDX"),
        sbom(metadata={}),
        sbom(metadata={"component": {"name": "sidespan", "version": "0.0.9"}}),
        sbom(metadata={"component": {"name": "sidespan-harness", "version": VERSION}}),
        sbom(components=[]),
    ],
)
def test_an_sbom_of_something_else_is_refused(wrong):
    dist.check_sbom(sbom(), VERSION)
    with pytest.raises(dist.DistError, match="expected"):
        dist.check_sbom(wrong, VERSION)


def test_the_sbom_has_no_paths_of_the_machine():
    subject = {"name": "sidespan", "version": VERSION, "bom-ref": f"path+{ROOT.as_uri()}#0.1.0"}
    text = json.dumps(sbom(metadata={"component": subject}))
    assert str(ROOT) in text and str(ROOT) not in dist.without_paths(text)


def test_the_module_has_no_paths_of_the_machine(module):
    content = module.read_bytes()
    assert b"registry/index.crates.io-" in content and b"/rustc/" in content
    assert b"/registry/index.crates.io-" not in content and b"/rustlib/src/" not in content


def test_another_folder_than_a_release_is_not_replaced(inputs, tmp_path, module):
    (tmp_path / "important").touch()
    with pytest.raises(dist.DistError, match="expected a release or nothing"):
        dist.make(tmp_path, module, inputs / "image", inputs / "sidespan", inputs / "sbom.json", PULLED)
    assert (tmp_path / "important").exists()


CHANGES = """# Changes

## [Unreleased]

- c

## [1.2.0] - 2026-01-01

### Added

- b

## [1.1.0]

- a

[1.1.0]: https://example.com
"""


def test_notes_are_the_section_of_the_version():
    assert notes.notes("v1.2.0", "1.2.0", CHANGES) == "### Added\n\n- b\n"
    assert notes.notes("v1.1.0", "1.1.0", CHANGES) == "- a\n"


@pytest.mark.parametrize(
    ("tag", "version", "reason"),
    [
        ("1.2.0", "1.2.0", "expected the tag v1.2.0"),
        ("v1.2.1", "1.2.0", "expected the tag v1.2.0"),
        ("v1.3.0", "1.3.0", "expected a section"),
        ("v1x2.0", "1x2.0", "expected a section"),
    ],
)
def test_a_tag_without_notes_is_refused(tag, version, reason):
    with pytest.raises(notes.NotesError, match=re.escape(reason)):
        notes.notes(tag, version, CHANGES)


def test_the_changelog_has_notes_for_the_next_release():
    result = run(sys.executable, RELEASE / "notes.py", f"v{VERSION}")
    unreleased = re.search(r"^## \[Unreleased\]\n(.*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE | re.DOTALL)
    # Until a version is released, its changes are collected above.
    assert result.returncode == 0 or "- " in unreleased.group(1)


@pytest.fixture(scope="module")
def actionlint():
    # Without other programs, so that every machine finds the same.
    return [tools.go_program(HERE / "actionlint"), "-shellcheck=", "-pyflakes=", "-no-color"]


def test_workflows_are_valid(actionlint):
    assert [file.name for file in WORKFLOWS] == ["ci.yaml", "release.yaml"]
    result = run(*actionlint, *WORKFLOWS)
    assert (result.returncode, result.stdout) == (0, "")


def test_a_workflow_with_a_mistake_is_noticed(actionlint, tmp_path):
    broken = tmp_path / "ci.yaml"
    broken.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "run-on:", 1))
    result = run(*actionlint, broken)
    assert result.returncode == 1 and 'unexpected key "run-on"' in result.stdout


def steps(workflow: Path) -> list[dict]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=[file.name for file in WORKFLOWS])
def test_workflows_run_targets_that_exist(workflow):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = {target for step in steps(workflow) for target in re.findall(r"^make ([a-z-]+)", step.get("run", ""))}
    assert called and called <= targets


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=[file.name for file in WORKFLOWS])
def test_actions_are_pinned_by_version(workflow):
    actions = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert actions and [action for action in actions if not re.search(r"@v\d+", action)] == []


def istio_version() -> str:
    return re.search(r"^require istio\.io/istio (\S+)$", (HERE / "istio-xds" / "go.mod").read_text(), re.MULTILINE)[1]


def gateway_version() -> str:
    text = (HERE / "envoy-gateway" / "go.mod").read_text()
    return re.search(r"github\.com/envoyproxy/gateway (v[\d.]+)", text)[1]


def versions() -> str:
    """Returns the table of what the tests run."""
    rows = {
        "Envoy": (
            ", ".join(conftest.ENVOY_VERSIONS),
            "the filter runs in it; some tests use only the oldest and the newest",
        ),
        "Istio": (f"`{istio_version()}`", "its xDS configures a real Envoy, and its fetcher loads the image"),
        "Istio's API": (f"`{CRDS_MODULE.partition('@')[2]}`", "every manifest follows its schemas strictly"),
        "Envoy Gateway": (
            f"`{gateway_version()}`",
            "it translates the policies, its fetcher loads the image, and a real Envoy runs them",
        ),
    }
    lines = [f"| {software} | {version} | {how} |" for software, (version, how) in rows.items()]
    return "\n".join(["| software | versions | what the tests do with it |", "|---|---|---|", *lines])


def test_the_supported_versions_are_the_tested_ones():
    assert versions() in COMPATIBILITY.read_text(), f"expected in {COMPATIBILITY.name}:\n{versions()}"
