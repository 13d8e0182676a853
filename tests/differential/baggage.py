"""Baggage headers for the differential tests, and the classes of members that SDKs read otherwise.

Sections are those of <https://www.w3.org/TR/baggage/>.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote_plus, unquote_to_bytes

from .generator import Headers, broken

# The keys that tags ask for. Of `a%62` and `ab` one is what decoding makes of the other.
KEYS = ("account", "tenant.id", "a+b", "a%62", "ab")

_OTHER_KEYS = ("x", "Account", "tenant", "account.id", "_-!#$&'*^`|~")
_BROKEN_KEYS = ("", "acc ount", "(account)", '"account"', "é", "%61ccount", "%20account", "+account", "ab%")
_TEXTS = ("4711", "a=b", "x/y:z?@", "!#$&'()*-.", "[]{}<>|~^`", "=", "0" * 40)
_ENCODED = ("%2C", "%3b", "%25", "%22", "%00", "%C3%A9", "%e2%82%AC", "%F0%9F%98%80", "a%20b", "%20")
_NOT_UTF_8 = ("%ff", "%C3", "%C3%28", "%ED%A0%80", "%e2%82", "%F0%9F%98", "%C0%AF", "%F4%90%80%80")
_ENCODING_NOTHING = ("%", "%4", "%zz", "%-1", "%%41", "%c3%")
_FORBIDDEN = (" ", '"', "\\", "é", "\t", "a b")
_PROPERTIES = (";p", ";p=1", " ; p = 1\t;q", ";", ";account=2", ';p="x"', ";p q", ";=", ";p=%zz")
_SPACES = ("", "", "", "", "", " ", "\t", " \t ")
_SEPARATORS = (",", ",", ",", ", ", " ,\t", ",,", ", ,")


def header_sets(count: int, random: random.Random) -> list[Headers]:
    """Returns sets with one line of baggage or several, whole or broken, or now and then with none."""
    return [broken(_lines(random), random) for _ in range(count)]


@dataclass(frozen=True)
class Member:
    """What stands between two commas, and where: its place in the list of all lines, from 0."""

    key: str
    value: str
    properties: str
    text: str
    place: int
    line: int
    line_bytes: int
    # Bytes from the list's beginning to the member's end.
    end: int


@dataclass(frozen=True)
class Difference:
    """A class of members of which SDKs read another value, or a value where the filter reads none."""

    name: str
    sdks: tuple[str, ...]
    applies: Callable[[Member], bool]
    why: str


def members(headers: Headers) -> list[Member]:
    """Returns the members that are not empty and have an equals sign before their properties."""
    found, place, start = [], 0, 0
    for number, (_, line) in enumerate(headers):
        line_bytes, end = len(line.encode()), start - 1
        start += line_bytes + 1
        for part in line.split(","):
            end += 1 + len(part.encode())
            text = part.strip(" \t")
            pair, semicolon, properties = text.partition(";")
            key, equals, value = (side.strip(" \t") for side in pair.partition("="))
            if equals:
                properties = semicolon + properties
                found.append(Member(key, value, properties, text, place, number, line_bytes, end))
            place += bool(text)
    return found


def deciding(headers: Headers, key: str) -> list[Member]:
    """Returns the members that can make a difference: the one that counts, and those behind it.

    They have the key as it is written, or as an SDK decodes it.
    """
    named = [member for member in members(headers) if key in (member.key, unquote_plus(member.key).strip())]
    whole = [at for at, member in enumerate(named) if member.key == key and has_whole_value(member)]
    return named[max(whole, default=0) :]


def has_whole_value(member: Member) -> bool:
    return bool(re.fullmatch(r"[!#-+\--:<-\[\]-~]*", member.value))


def is_utf_8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


DIFFERENCES = [
    Difference(
        "a later line",
        ("python",),
        lambda member: member.line > 0,
        "W3C Baggage, HTTP header format: several headers are allowed, and are one list; Python "
        "reads the first alone.",
    ),
    Difference(
        "a percent sign in a key",
        ("python", "node"),
        lambda member: "%" in member.key,
        "W3C Baggage, key: a key is a token, in which a percent sign is a character as any. Values alone are "
        "percent-encoded; the SDKs decode keys too.",
    ),
    Difference(
        "a plus sign",
        ("python",),
        lambda member: "+" in member.key + member.value,
        "W3C Baggage, value: values are percent-encoded, and a plus sign needs no encoding; Python reads it "
        "as a space, as in a form.",
    ),
    Difference(
        "properties",
        ("python",),
        lambda member: member.properties != "",
        "W3C Baggage, property: properties are beside the value; Python leaves them in it, and passes over "
        "members whose properties break the grammar.",
    ),
    Difference(
        "an empty value",
        ("node",),
        lambda member: member.value == "",
        "W3C Baggage, value: a value has any number of characters, none too; Node passes over the member.",
    ),
    Difference(
        "encoded white space at an end",
        ("python",),
        lambda member: (text := unquote_plus(member.value)) != text.strip(),
        "W3C Baggage, value: white space around a value is not part of it, encoded white space is; Python "
        "takes off both.",
    ),
    Difference(
        "encoded bytes that are not UTF-8",
        ("node",),
        lambda member: not is_utf_8(unquote_to_bytes(member.value)),
        "W3C Baggage, value: the replacement character stands for them; Node passes over the member.",
    ),
    Difference(
        "a percent sign that encodes nothing",
        ("node",),
        lambda member: bool(re.search("%(?![0-9a-fA-F]{2})", member.value)),
        "W3C Baggage, value: it is of the characters that values have, so the member is one. RFC 3986 leaves "
        "it open what it stands for: itself, as with Python; Node passes over the member.",
    ),
    Difference(
        "forbidden characters",
        ("node",),
        lambda member: not has_whole_value(member),
        "W3C Baggage, baggage-octet: white space, quotes, backslashes and what is not ASCII are percent-"
        "encoded; what has them is no member. Node takes it.",
    ),
    Difference(
        "more than 180 members",
        ("python", "node"),
        lambda member: member.place >= 180,
        "W3C Baggage, limits: 64 members are the least that all take; more are welcome.",
    ),
    Difference(
        "more than 8,192 bytes",
        ("python", "node"),
        lambda member: member.line_bytes > 8192 or member.end > 8192,
        "W3C Baggage, limits: 8,192 bytes are the least that all take; more are welcome. Python discards the "
        "line, Node what is behind.",
    ),
    Difference(
        "a member of more than 4,096 bytes",
        ("python", "node"),
        lambda member: len(member.text.encode()) > 4096,
        "W3C Baggage, limits: a member is as long as the list may be.",
    ),
]


def _lines(random: random.Random) -> Headers:
    if random.random() < 0.06:
        return [("baggage", random.choice([_many, _long])(random))]
    return [("baggage", _line(random)) for _ in range(random.choice([1, 1, 1, 1, 2, 3]))]


def _line(random: random.Random) -> str:
    separator = random.choice(_SEPARATORS)
    return separator.join(_member(random) for _ in range(random.choice([1, 2, 3, 4, 8])))


def _many(random: random.Random) -> str:
    """Returns a list in which the keys of tags come where they do not count any more, or do just so."""
    list_members = [f"v{number}={number}" for number in range(random.choice([64, 180, 181, 220]))]
    for at in [*random.sample(range(len(list_members)), 2), -1]:
        list_members[at] = _member(random)
    return ",".join(list_members)


def _long(random: random.Random) -> str:
    key = random.choice(KEYS)
    fill = ",".join(f"v{number}={'y' * 1000}" for number in range(random.choice([0, 0, 4, 7, 8, 9])))
    length = random.choice([1, 1023, 4095, 4096, 4097, 9000]) - len(key) - 1
    list_members = [f"{key}={'x' * max(length, 0)}", fill, _member(random)]
    random.shuffle(list_members)
    return ",".join(list_members)


def _member(random: random.Random) -> str:
    key = random.choice(KEYS if random.random() < 0.7 else _OTHER_KEYS)
    key = random.choice(_BROKEN_KEYS) if random.random() < 0.05 else key
    equals = "" if random.random() < 0.03 else "="
    properties = random.choice(_PROPERTIES) if random.random() < 0.15 else ""
    before, behind, after = (random.choice(_SPACES) for _ in range(3))
    return f"{key}{before}{equals}{behind}{_value(random)}{after}{properties}"


def _value(random: random.Random) -> str:
    pieces = [random.choice(random.choice([_TEXTS, _ENCODED])) for _ in range(random.choice([0, 1, 1, 2, 3]))]
    if random.random() < 0.2:
        faulty = random.choice([_NOT_UTF_8, _ENCODING_NOTHING, _FORBIDDEN, ("+",)])
        pieces.insert(random.randint(0, len(pieces)), random.choice(faulty))
    return "".join(pieces)
