"""Makes a release in one folder: `dist.py --image LAYOUT --binary FILE --sbom FILE MODULE FOLDER`.

    sidespan.wasm                the module
    sidespan-image.tar           its image, an OCI layout
    sidespan-manifests.tar.gz    istio/ and envoy/gateway/, with the digest of the image and the module's sum
    sidespan-TRIPLE              the binary for this platform
    sidespan.cdx.json            the crates in the module, in CycloneDX
    SHA256SUMS                   the sums of all of them, for `sha256sum --check`
"""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import image

SUMS = "SHA256SUMS"
MANIFEST_FOLDERS = ["istio", "envoy/gateway"]
# The manifests have these in place of values that only a release knows.
PLACEHOLDER_NAME = "registry.example.com/sidespan"
PLACEHOLDER_SUM = "0" * 64
_URL = re.compile(r"^[\s-]*url: *(\S+)", re.MULTILINE)


class DistError(Exception):
    """The release cannot be made; the message says why."""


def make(folder: Path, module: Path, layout: Path, binary: Path, sbom: Path, name: str) -> None:
    """Writes the release into `folder`, and replaces an earlier one. `name` is the image's, `HOST/NAME`."""
    if folder.exists():
        if not (folder / SUMS).is_file():
            raise DistError(f"{folder}: expected a release or nothing, but found another file or folder")
        shutil.rmtree(folder)
    check_sbom(json.loads(sbom.read_text()), image.annotations()["org.opencontainers.image.version"])
    manifests = filled_manifests(name, image.digest(layout), sha256(module))
    folder.mkdir(parents=True)
    shutil.copyfile(module, folder / "sidespan.wasm")
    (folder / "sidespan.cdx.json").write_text(without_paths(sbom.read_text()))
    shutil.copy(binary, folder / f"sidespan-{platform()}")
    files = {str(file.relative_to(layout)): file.read_bytes() for file in layout.rglob("*") if file.is_file()}
    (folder / "sidespan-image.tar").write_bytes(image.tar(files))
    (folder / "sidespan-manifests.tar.gz").write_bytes(image.gzip(image.tar(manifests)))
    sums = [f"{sha256(file)}  {file.name}\n" for file in sorted(folder.iterdir())]
    (folder / SUMS).write_text("".join(sums))


def filled_manifests(name: str, digest: str, module_sha256: str) -> dict[str, bytes]:
    """Returns the manifests by their paths, each with the image's digest and the module's sum in it."""
    files = [file for folder in MANIFEST_FOLDERS for file in (image.ROOT / folder).rglob("*") if file.is_file()]
    if not files:
        raise DistError(f"expected manifests in {image.ROOT}, but found none")
    named = {file.relative_to(image.ROOT).as_posix(): file for file in files}
    filled = {path: fill(path, file.read_text(), name, digest, module_sha256) for path, file in named.items()}
    return {path: text.encode() for path, text in filled.items()}


def fill(path: str, text: str, name: str, digest: str, module_sha256: str) -> str:
    """Returns a manifest with the reference of an image by its digest, and the right sum below each `url`.

    The sum beside an image is the digest of its manifest, and beside `https:` that of the module.
    """
    def sum_at(place: re.Match) -> str:
        urls = _URL.findall(text, 0, place.start())
        if not urls:
            raise DistError(f"{path}: expected a `url` above the checksum, but found none")
        return module_sha256 if urls[-1].startswith(("http://", "https://")) else digest.removeprefix("sha256:")

    text = re.sub(PLACEHOLDER_SUM, sum_at, text)
    return re.sub(rf"{re.escape(PLACEHOLDER_NAME)}:[\w.-]+", f"{name}@{digest}", text)


def check_sbom(sbom: dict, version: str) -> None:
    """Refuses a document that is no CycloneDX of the module, or that names no crates."""
    subject = sbom.get("metadata", {}).get("component", {})
    found = (sbom.get("bomFormat"), subject.get("name"), subject.get("version"))
    if found != ("CycloneDX", "sidespan", version):
        raise DistError(f"expected an SBOM in CycloneDX of sidespan {version}, but found {found}")
    crates = {component["name"] for component in sbom.get("components", [])}
    if "proxy-wasm" not in crates:
        raise DistError(f"expected proxy-wasm among the crates of the SBOM, but found {sorted(crates)}")


def without_paths(sbom: str) -> str:
    """Returns the SBOM without the checkout's path on this machine."""
    return sbom.replace(image.ROOT.as_uri(), "file://.")


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def platform() -> str:
    """Returns the triple of this platform, as Rust names it."""
    shown = subprocess.run(["rustc", "--version", "--verbose"], capture_output=True, text=True, check=True).stdout
    return re.search(r"^host: (\S+)$", shown, re.MULTILINE).group(1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes a release in one folder.")
    parser.add_argument("module", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--image", type=Path, required=True, help="the OCI layout")
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("--sbom", type=Path, required=True)
    parser.add_argument("--name", default=PLACEHOLDER_NAME, help="where the image is pushed: HOST/NAME[:TAG]")
    options = parser.parse_args()
    host, slash, rest = options.name.rpartition("/")
    name = f"{host}{slash}{rest.partition(':')[0]}"
    try:
        make(options.folder, options.module, options.image, options.binary, options.sbom, name)
    except (DistError, OSError) as error:
        sys.exit(str(error))
    print((options.folder / SUMS).read_text(), end="")


if __name__ == "__main__":
    main()
