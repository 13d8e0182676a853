"""Prints the notes of a release from CHANGELOG.md: `notes.py vVERSION`. VERSION must be Cargo.toml's."""

import re
import sys

import image


class NotesError(Exception):
    """There are no notes for this tag; the message says why."""


def notes(tag: str, version: str, changelog: str) -> str:
    """Returns the section of a release."""
    if tag != f"v{version}":
        raise NotesError(f"expected the tag v{version}, of Cargo.toml's version, but found {tag}")
    heading, end = rf"^## \[{re.escape(version)}\][^\n]*\n", r"(?=^## \[|^\[|\Z)"
    section = re.search(rf"{heading}(.*?){end}", changelog, re.MULTILINE | re.DOTALL)
    if section is None or not section.group(1).strip():
        raise NotesError(f"CHANGELOG.md: expected a section [{version}] that is not empty, but found none")
    return section.group(1).strip() + "\n"


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: notes.py vVERSION")
    version = image.annotations()["org.opencontainers.image.version"]
    try:
        print(notes(sys.argv[1], version, (image.ROOT / "CHANGELOG.md").read_text()), end="")
    except NotesError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
