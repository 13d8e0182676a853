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
_UNREACHABLE = "No registry answers at {host}: check its name and port, and whether this machine can reach it."
_UNTRUSTED = """The certificate of {host} is not trusted here: add its authority to the system's, or name a file with it
in $SSL_CERT_FILE."""
# Advice for an error message of crane or of the registry.
_ADVICE = {
    r"\b401\b|\b403\b|UNAUTHORIZED|DENIED": _LOG_IN,
    r"connection refused|no such host|i/o timeout|no route to host|deadline exceeded": _UNREACHABLE,
    r"x509:": _UNTRUSTED,
}


class PushError(Exception):
    """The image is not pushed; the message says why, and what to do if that is known."""


def push(folder: Path, reference: str) -> str:
    """Pushes the one image of a layout and returns its reference by digest, `HOST/NAME@sha256:…`."""
    if not (folder / "index.json").is_file():
        raise PushError(f"{folder}: expected an OCI image layout, but found none: run `make image`")
    reference = tagged(reference, folder)
    result = subprocess.run([crane(), "push", folder, reference], capture_output=True, text=True)
    if result.returncode != 0:
        raise PushError(f"{reference}: not pushed\n{explained(result.stderr, reference)}")
    pushed = result.stdout.strip()
    if not pushed.endswith(f"@{image.digest(folder)}"):
        raise PushError(f"{reference}: expected the digest {image.digest(folder)}, but found {pushed}")
    return pushed


def tagged(reference: str, folder: Path) -> str:
    """Returns the reference; if it has no tag, the tag is the layout's version."""
    if ":" in reference.rpartition("/")[2]:
        return reference
    return f"{reference}:{image.version(folder)}"


def explained(output: str, reference: str) -> str:
    """Returns the errors in crane's output, and what to do about them."""
    errors = "\n".join(line for line in output.splitlines() if line.startswith("Error: ")) or output.strip()
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
