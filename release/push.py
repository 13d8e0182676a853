"""Pushes an image layout to a registry: `push.py FOLDER HOST/NAME[:TAG]`. The tag is the version by default.

Credentials come from Docker's configuration: $DOCKER_CONFIG/config.json, else ~/.docker/config.json.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import image
from crane import crane, tools

_LOG_IN = """The registry wants a login, or this login may not push there. Log in, then push again:
    python3 release/crane.py auth login {host} -u USER --password-stdin
or `docker login {host}`. Credentials are read from $DOCKER_CONFIG/config.json, else ~/.docker/config.json."""
_UNREACHABLE = "Nothing answers as a registry at {host}: check its name and port, and whether this machine reaches it."
_UNTRUSTED = """The certificate of {host} is not trusted here: add its authority to the system's, or name a file with it
in $SSL_CERT_FILE."""
# What to do, by what crane or the registry says.
_ADVICE = {
    r"\b401\b|\b403\b|UNAUTHORIZED|DENIED": _LOG_IN,
    r"connection refused|no such host|i/o timeout|no route to host|deadline exceeded": _UNREACHABLE,
    r"x509:": _UNTRUSTED,
}


class PushError(Exception):
    """The image is not pushed; the message says why, and what to do where that is known."""


def push(folder: Path, reference: str) -> str:
    """Pushes the one image of a layout and returns its reference by digest, `HOST/NAME@sha256:…`."""
    if not (folder / "index.json").is_file():
        raise PushError(f"{folder}: expected an OCI image layout, but found none: `make image` writes it")
    reference = tagged(reference, folder)
    result = subprocess.run([crane(), "push", folder, reference], capture_output=True, text=True)
    if result.returncode != 0:
        raise PushError(f"{reference}: not pushed\n{explained(result.stderr, reference)}")
    pushed = result.stdout.strip()
    if not pushed.endswith(f"@{image.digest(folder)}"):
        raise PushError(f"{reference}: expected the digest {image.digest(folder)}, but found {pushed}")
    return pushed


def tagged(reference: str, folder: Path) -> str:
    """Returns the reference with the layout's version as its tag, where it has none of its own."""
    if ":" in reference.rpartition("/")[2]:
        return reference
    return f"{reference}:{image.version(folder)}"


def explained(said: str, reference: str) -> str:
    """Returns what crane said, and what to do about it."""
    errors = "\n".join(line for line in said.splitlines() if line.startswith("Error: ")) or said.strip()
    host = reference.partition("/")[0]
    advice = [text.format(host=host) for pattern, text in _ADVICE.items() if re.search(pattern, errors)]
    return "\n".join([errors, *advice[:1]])


def main() -> None:
    parser = argparse.ArgumentParser(description="Pushes an OCI image layout to a registry.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("reference", metavar="HOST/NAME[:TAG]")
    options = parser.parse_args()
    try:
        pushed = push(options.folder, options.reference)
    except (PushError, tools.ToolError) as error:
        sys.exit(str(error))
    print(f"pushed, for the `url` of a WasmPlugin:\noci://{pushed}")


if __name__ == "__main__":
    main()
