"""Writes the module as an OCI image layout: `image.py MODULE FOLDER [--format image|artifact]`.

`image` holds `plugin.wasm` in one tar+gzip layer, the compatible variant of the Wasm image specification
(https://github.com/solo-io/wasm/blob/master/spec/spec-compat.md). `artifact` holds the module itself as one
of two layers (spec.md beside it). Istio's and Envoy Gateway's fetchers accept both.

The same module, version, revision and time make the same bytes on every machine. This file needs only the
standard library.
"""

import argparse
import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tomllib
import zlib
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FORMATS = ["image", "artifact"]
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
WASM_CONFIG_TYPE = "application/vnd.module.wasm.config.v1+json"
WASM_CONTENT_TYPE = "application/vnd.module.wasm.content.layer.v1+wasm"
_REF_NAME = "org.opencontainers.image.ref.name"
# The fetchers look for this name only.
_PLUGIN = "plugin.wasm"
# The module is built from these. If they have changes, no commit describes the module.
_SOURCES = ["src", "Cargo.toml", "Cargo.lock", "Makefile", "rust-toolchain.toml"]
_STORED_BLOCK_BYTES = 65_535  # the largest stored block (RFC 1951, 3.2.4)


class ImageError(Exception):
    """The image cannot be written; the message says why."""


def write(module: Path, folder: Path, format: str, annotations: dict[str, str]) -> str:
    """Writes the layout into `folder`, replaces an earlier layout, and returns the manifest's digest."""
    content = module.read_bytes()
    if not content.startswith(b"\0asm"):
        raise ImageError(f"{module}: expected a WebAssembly module, but found other bytes")
    if folder.exists():
        if not (folder / "oci-layout").is_file():
            raise ImageError(f"{folder}: expected an OCI image layout or nothing, but found another file or folder")
        shutil.rmtree(folder)
    (folder / "blobs" / "sha256").mkdir(parents=True)
    _write_json(folder / "oci-layout", {"imageLayoutVersion": "1.0.0"})
    parts = _image(folder, content, annotations) if format == "image" else _artifact(folder, content)
    head = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE}
    manifest = _add_json(folder, MANIFEST_TYPE, head | parts | {"annotations": annotations})
    named = manifest | {"annotations": {_REF_NAME: annotations[_key("version")]}}
    _write_json(folder / "index.json", {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [named]})
    return manifest["digest"]


def digest(folder: Path) -> str:
    """Returns the digest of the one manifest of a layout."""
    return _manifest(folder)["digest"]


def version(folder: Path) -> str:
    """Returns the version in a layout's index."""
    return _manifest(folder)["annotations"][_REF_NAME]


def annotations(root: Path = ROOT) -> dict[str, str]:
    """Returns the annotations of the image, from Cargo.toml and Git, without those that they do not have.

    `created` is $SOURCE_DATE_EPOCH, else the time of the commit, so it is the same for everybody.
    """
    cargo = tomllib.loads((root / "Cargo.toml").read_text())
    package = cargo["workspace"]["package"] | cargo["package"]
    workspace = cargo["workspace"]["package"]
    known = {"title": package["name"], "description": package["description"]}
    for key, name in {"version": "version", "license": "licenses", "repository": "source"}.items():
        value = workspace.get(key) or package.get(key)
        if value is not None:
            known[name] = value
    revision, seconds = _commit(root)
    if revision is not None:
        known["revision"] = revision
    if (seconds := os.environ.get("SOURCE_DATE_EPOCH") or seconds) is not None:
        known["created"] = datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {_key(name): value for name, value in sorted(known.items())}


def tar(files: dict[str, bytes]) -> bytes:
    """Returns a tar archive of files that have no time and no owner."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as writer:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), 0o644, 0
            writer.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def gzip(content: bytes) -> bytes:
    """Returns a gzip stream of stored blocks (RFC 1951, 3.2.4; RFC 1952).

    Not compressed: versions of zlib compress differently, and so the digest would differ.
    """
    blocks = [content[at : at + _STORED_BLOCK_BYTES] for at in range(0, len(content), _STORED_BLOCK_BYTES)] or [b""]
    # Method deflate, no flags, no mtime, no extra flags, OS unknown.
    stream = [b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"]
    for index, block in enumerate(blocks):
        is_last = index == len(blocks) - 1
        stream += [struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF), block]
    stream.append(struct.pack("<II", zlib.crc32(content), len(content) % 2**32))
    return b"".join(stream)


def _image(folder: Path, module: bytes, annotations: dict[str, str]) -> dict:
    archive = tar({_PLUGIN: module})
    config = {
        # Readers that choose by platform look for this one; the module itself runs on every platform.
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": annotations},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(archive).hexdigest()}"]},
    }
    if created := annotations.get(_key("created")):
        config["created"] = created
    return {
        "config": _add_json(folder, CONFIG_TYPE, config),
        "layers": [_add(folder, LAYER_TYPE, gzip(archive))],
    }


def _artifact(folder: Path, module: bytes) -> dict:
    return {
        "artifactType": WASM_CONFIG_TYPE,
        "config": _add(folder, EMPTY_TYPE, b"{}"),
        # Exactly two layers: Istio's fetcher refuses any other number.
        "layers": [
            _add_json(folder, WASM_CONFIG_TYPE, {"type": "envoy_proxy"}),
            _add(folder, WASM_CONTENT_TYPE, module),
        ],
    }


def _manifest(folder: Path) -> dict:
    (manifest,) = json.loads((folder / "index.json").read_text())["manifests"]
    return manifest


def _add(folder: Path, media_type: str, content: bytes) -> dict:
    sha256 = hashlib.sha256(content).hexdigest()
    (folder / "blobs" / "sha256" / sha256).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{sha256}", "size": len(content)}


def _add_json(folder: Path, media_type: str, value: dict) -> dict:
    return _add(folder, media_type, _json(value))


def _write_json(file: Path, value: dict) -> None:
    file.write_bytes(_json(value))


def _json(value: dict) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _key(name: str) -> str:
    return f"org.opencontainers.image.{name}"


def _commit(root: Path) -> tuple[str | None, str | None]:
    """Returns hash and time of the commit that the module is built from, None if no commit describes it."""
    def git(*arguments: str) -> str | None:
        try:
            result = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True)
        except FileNotFoundError:
            return None
        return result.stdout.strip() if result.returncode == 0 else None

    if git("status", "--porcelain", "--", *_SOURCES) != "":
        return None, None
    shown = git("show", "--no-patch", "--format=%H %ct", "HEAD")
    return tuple(shown.split()) if shown else (None, None)


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the module as an OCI image layout.")
    parser.add_argument("module", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0])
    options = parser.parse_args()
    known = annotations()
    try:
        manifest = write(options.module, options.folder, options.format, known)
    except (ImageError, OSError) as error:
        sys.exit(str(error))
    print(f"{options.folder}: {options.format}, version {known[_key('version')]}, digest")
    print(manifest)


if __name__ == "__main__":
    main()
