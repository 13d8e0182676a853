"""The rooms of both crates: their order in `lib.rs`, the uses between them, and the lengths of their files.

A room is a file or a folder directly in `src/`. Each uses only the rooms below it, so there are no circles.
Inside of a room, no files use each other in a circle, but for a module and those in it.
"""

import graphlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILTER = ROOT / "src"
FILTER_ROOMS = ["plugin", "filter", "config", "export", "span", "sampling", "propagation", "http"]
CRATES = [FILTER, ROOT / "harness" / "src"]
CRATE_NAMES = ["filter", "harness"]
MAX_CODE_LINES = 400
# A longer file gives its reason in a sentence of its first comment that has these words.
REASON = f"{MAX_CODE_LINES} lines"

_LISTED = re.compile(r"^//! - \[?`(\w+)`\]?", re.MULTILINE)
_DECLARED = re.compile(r"^(?:pub(?:\(crate\))? )?mod (\w+);", re.MULTILINE)
_DECLARED_FOR_TESTS = re.compile(r"#\[cfg\(test\)\]\s*(?:pub(?:\(\w+\))? )?mod (\w+);")
_PATH = re.compile(r"\bcrate::(\w+)")
_GROUP = re.compile(r"\bcrate::\{(.*?)\};", re.DOTALL)
_SUPER = re.compile(r"\b(?:super::)+")
_USE = re.compile(r"\buse ((?:crate|super|self)::[^;]*);")
_INLINE = re.compile(r"\b(?:crate|super)(?:::\w+)+")


# The names of a module and of those around it, without the crate.
Module = tuple[str, ...]


@dataclass(frozen=True)
class Arrow:
    """One room that uses another, and the file that does."""

    source: str
    target: str
    file: Path


def source_files(crate: Path) -> list[Path]:
    """Returns the Rust files of a crate without its tests: `#[cfg(test)]` stands before their `mod`."""
    files = sorted(crate.rglob("*.rs"))
    tests = {
        folder / name
        for file in files
        for folder in [module_folder(file)]
        for module in _DECLARED_FOR_TESTS.findall(file.read_text())
        for name in (f"{module}.rs", module)
    }
    return [file for file in files if not tests.intersection([file, *file.parents])]


def module_folder(file: Path) -> Path:
    """Returns the folder in which the modules stand that a file declares."""
    return file.parent if file.name in ("lib.rs", "main.rs", "mod.rs") else file.with_suffix("")


def code_lines(text: str) -> list[str]:
    """Returns the lines of code: no blank lines, no comment lines, nothing under `#[cfg(test)]`.

    rustfmt closes an item with a brace at the indentation at which the item begins.
    """
    lines = iter(text.splitlines())
    found = []
    for line in lines:
        if line.strip() == "#[cfg(test)]":
            skip_item(lines, line.removesuffix("#[cfg(test)]"))
        elif line.strip() and not line.strip().startswith("//"):
            found.append(line)
    return found


def skip_item(lines: Iterator[str], indentation: str) -> None:
    first = next(line for line in lines if not line.strip().startswith("#["))
    if not first.rstrip().endswith((";", "}")):
        while next(lines).rstrip() not in (f"{indentation}}}", f"{indentation}}};"):
            pass


def length(text: str) -> int:
    """Returns the number of lines of code without imports, which rustfmt writes over one line or several."""
    code = "\n".join(code_lines(text)) + "\n"
    return len(re.sub(r"^(?:pub(?:\(\w+\))? )?use [^;]*;\n", "", code, flags=re.MULTILINE).splitlines())


def arrows(crate: Path) -> list[Arrow]:
    """Returns each use of another room, but for those of the crate's root, which sees all rooms."""
    found = []
    for file in source_files(crate):
        module = module_folder(file).relative_to(crate).parts
        if not module:
            continue
        room, code = module[0], "\n".join(code_lines(file.read_text()))
        names = _PATH.findall(code) + [name for group in _GROUP.findall(code) for name in grouped_names(group)]
        if any(climbed.count("super") >= len(module) for climbed in _SUPER.findall(code)):
            names.append("super")
        found += [Arrow(room, name, file.relative_to(crate)) for name in names if name != room]
    return found


def grouped_names(group: str) -> list[str]:
    """Returns the first names in `{a::{b, c}, d}`."""
    while "{" in group:
        group = re.sub(r"\{[^{}]*\}", "", group)
    return [path.strip().partition("::")[0] for path in group.split(",") if path.strip()]


def wrong_arrows(crate: Path, order: list[str]) -> list[Arrow]:
    """Returns the uses of a room that is not below the one that uses it; unknown rooms are below none."""
    below = {room: order[index + 1 :] for index, room in enumerate(order)}
    return [arrow for arrow in arrows(crate) if arrow.target not in below.get(arrow.source, [])]


def file_arrows(crate: Path) -> dict[Module, set[Module]]:
    """Returns the files that each file uses, by their modules. A module uses those in it, and they are free to use it."""
    files = {module_folder(file).relative_to(crate).parts: file for file in source_files(crate)}
    found = {module: set() for module in files}
    for module, file in files.items():
        code = "\n".join(code_lines(file.read_text()))
        paths = [path for tree in _USE.findall(code) for path in flattened(re.sub(r"\s", "", tree))]
        used = {file_of(path, module, files) for path in paths + _INLINE.findall(code)}
        found[module] |= {other for other in used if not is_around(other, module)}
        if module and module[:-1] in files:
            found[module[:-1]].add(module)
    return found


def flattened(tree: str) -> list[str]:
    """Returns the paths of `a::{b, c::{d, e}}`, which has no spaces."""
    prefix, brace, group = tree.partition("{")
    if not brace:
        return [tree]
    parts, depth = [""], 0
    for char in group.removesuffix("}"):
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [prefix + path for part in parts for path in flattened(part)]


def file_of(path: str, module: Module, files: dict[Module, Path]) -> Module:
    """Returns the module of the file that has the item of a path; empty for the crate's root."""
    first, *names = path.split("::")
    base = {"crate": (), "self": module, "super": module[:-1]}[first]
    while names and names[0] == "super":
        base, names = base[:-1], names[1:]
    found = (*base, *names)
    while found and found not in files:
        found = found[:-1]
    return found


def is_around(outer: Module, inner: Module) -> bool:
    return inner[: len(outer)] == outer


def circle(crate: Path) -> list[Module]:
    """Returns files that use each other in a circle; the last is the first again. Without one, it is empty."""
    try:
        graphlib.TopologicalSorter(file_arrows(crate)).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def rooms(crate: Path) -> set[str]:
    """Returns the files and folders of a crate's source, but for its roots."""
    return {Path(file.relative_to(crate).parts[0]).stem for file in source_files(crate)} - {"lib", "main"}


def long_files(crate: Path) -> list[tuple[str, int]]:
    """Returns the files that are too long and give no reason, with their lines of code."""
    texts = {str(file.relative_to(crate)): file.read_text() for file in source_files(crate)}
    return [
        (file, length(text))
        for file, text in texts.items()
        if length(text) > MAX_CODE_LINES and REASON not in first_comment(text)
    ]


def first_comment(text: str) -> str:
    """Returns the comment with which a file begins, on one line."""
    lines = re.match(r"(?://.*\n)*", text)[0].splitlines()
    return " ".join(line.lstrip("/! ") for line in lines)


def test_the_rooms_of_the_filter_stand_in_their_order():
    assert _LISTED.findall((FILTER / "lib.rs").read_text()) == FILTER_ROOMS


@pytest.mark.parametrize("crate", CRATES, ids=CRATE_NAMES)
def test_lib_declares_the_rooms_in_the_order_of_its_doc(crate):
    text = (crate / "lib.rs").read_text()
    listed, for_tests = _LISTED.findall(text), _DECLARED_FOR_TESTS.findall(text)
    assert [room for room in _DECLARED.findall(text) if room not in for_tests] == listed
    assert rooms(crate) == set(listed)


@pytest.mark.parametrize("crate", CRATES, ids=CRATE_NAMES)
def test_each_room_uses_only_those_below_it(crate):
    order = _LISTED.findall((crate / "lib.rs").read_text())
    assert arrows(crate), f"expected uses of other rooms in {crate}, but found none"
    assert wrong_arrows(crate, order) == []


@pytest.mark.parametrize("crate", CRATES, ids=CRATE_NAMES)
def test_no_files_use_each_other_in_a_circle(crate):
    assert any(file_arrows(crate).values()), f"expected files of {crate} that use others, but found none"
    assert circle(crate) == []


@pytest.mark.parametrize("folder", [FILTER, ROOT / "harness" / "src", ROOT / "harness" / "examples"])
def test_no_file_is_long_without_a_reason(folder):
    assert long_files(folder) == []


ORDER = ["upper", "middle", "lower"]


def crate_of(folder: Path, **files: str) -> Path:
    """Makes a crate of the rooms in ORDER with these files; `__` in a name is a folder."""
    for name, text in ({"lib": "", "upper": "", "middle__mod": "", "lower": ""} | files).items():
        file = folder / f"{name.replace('__', '/')}.rs"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "source", "target"),
    [
        ({"lower": "use crate::upper::Request;\n"}, "lower", "upper"),
        ({"lower": "use crate::{middle::{a, b}, lower};\n"}, "lower", "middle"),
        ({"lower": "fn a() {\n    crate::middle::b();\n}\n"}, "lower", "middle"),
        ({"middle__part": "pub use crate::upper::Request;\n"}, "middle", "upper"),
        ({"middle__part": "use super::super::lower::Head;\n"}, "middle", "super"),
        ({"middle__mod": "use super::lower::Head;\n"}, "middle", "super"),
        ({"lower": "#[cfg(test)]\nmod tests {\n    use super::*;\n}\nuse crate::upper::Request;\n"}, "lower", "upper"),
        ({"stray": "use crate::lower::Head;\n"}, "stray", "lower"),
    ],
)
def test_wrong_arrow_is_found(tmp_path, files, source, target):
    (found,) = wrong_arrows(crate_of(tmp_path, **files), ORDER)
    assert (found.source, found.target) == (source, target)


@pytest.mark.parametrize(
    "files",
    [
        {"upper": "use crate::{middle::{a, b}, lower};\n", "middle__mod": "use crate::lower::Head;\n"},
        {"middle__part": "use super::Other;\nuse crate::middle::Another;\n"},
        {"lower": "// Beside crate::upper::Request.\n"},
        {"lower": "#[cfg(test)]\nmod tests {\n    use crate::upper::Request;\n}\n"},
        {"lower": "#[cfg(test)]\nmod tests;\n", "lower__tests": "use crate::upper::Request;\n"},
        {"middle__mod": "#[cfg(test)]\npub mod testing;\n", "middle__testing": "use crate::upper::Request;\n"},
    ],
)
def test_arrow_that_goes_down_or_stands_in_tests_is_right(tmp_path, files):
    assert wrong_arrows(crate_of(tmp_path, **files), ORDER) == []


@pytest.mark.parametrize(
    "files",
    [
        {"middle__a": "use super::b::B;\n", "middle__b": "use crate::middle::a::A;\n"},
        {"middle__a": "use super::{\n    C,\n    b::{B, c},\n};\n", "middle__b": "fn b() {\n    super::a::a()\n}\n"},
        {"middle__a": "use super::b::B;\n", "middle__b": "use super::c::C;\n", "middle__c": "use super::a::A;\n"},
        {"middle__a": "", "middle__a__x": "use crate::middle::b::B;\n", "middle__b": "use super::a::A;\n"},
    ],
)
def test_circle_of_files_is_found(tmp_path, files):
    found = circle(crate_of(tmp_path, **files))
    assert set(found) == {tuple(name.split("__")) for name in files}


@pytest.mark.parametrize(
    "files",
    [
        {"middle__a": "use super::b::B;\nuse crate::lower::a::A;\n", "middle__b": "use super::c::C;\n"},
        # A module and those in it are one.
        {"middle__mod": "use self::a::A;\n", "middle__a": "use super::Settings;\n"},
        {"middle__a": "use super::b::B;\n", "middle__b": "#[cfg(test)]\nmod tests {\n    use super::super::a::A;\n}\n"},
    ],
)
def test_files_without_a_circle_are_right(tmp_path, files):
    assert circle(crate_of(tmp_path, **files)) == []


def test_long_file_needs_a_reason(tmp_path):
    code = "const A: u8 = 1;\n" * MAX_CODE_LINES
    imports = "use std::fmt;\npub use crate::lower::{\n    Head,\n    Line,\n};\n"
    tests = "#[cfg(test)]\nmod tests {\n    const B: u8 = 1;\n}\n"
    long = f"{code}const C: u8 = 1;\n"
    crate_of(
        tmp_path,
        upper=f"//! Requests.\n\n{imports}// Each has a name.\n{code}{tests}",
        middle__mod=f"//! Settings. They are more than\n//! 400 lines because of their tables.\n\n{long}",
        lower=f"//! Heads.\n\n// More than 400 lines.\n{long}",
    )
    assert long_files(tmp_path) == [("lower.rs", MAX_CODE_LINES + 1)]
