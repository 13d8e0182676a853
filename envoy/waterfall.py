"""Draws one trace as a waterfall: a line a span with its bar in time, and its tags below.

frontend     SERVER  GET /cart  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━   12.1 ms
│                    200 · why: debug-header · user.id: ada
└ frontend   CLIENT  GET /cart    ╺━━━━━━━━━━━━━━━━━━━━━━━━━━━━╸      9.8 ms
                     200 · why: parent
  all spans          cloud.region: eu-west-1
"""

import os
import shutil
import sys
from dataclasses import dataclass

from receiver import Span

_WIDEST = 100
_NARROWEST = 60
_OPERATION_AT_MOST = 34
_DURATION_WIDTH = 9

# What the line below a span says of it; all other attributes are there for machines.
_STATUS = ("http.response.status_code", "error.type")
_REASON = "sidespan.reason"
_ROUTINE = (
    "http.",
    "url.",
    "server.",
    "client.",
    "network.",
    "user_agent.",
    "error.",
    "guid:",
    "component",
    "span.source",
    "response_code_details",
    _REASON,
)

_DIM, _BOLD, _RED, _GREEN = "2", "1", "31", "32"
_SERVICE_COLOURS = ("36", "35", "33", "34")


@dataclass(frozen=True)
class Style:
    """How to write to one terminal, or to what is none."""

    width: int
    colour: bool

    @classmethod
    def of_stdout(cls) -> "Style":
        columns = shutil.get_terminal_size((_WIDEST, 24)).columns
        # https://no-color.org: set and not empty means none.
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        return cls(min(max(columns, _NARROWEST), _WIDEST), colour)

    def paint(self, text: str, *codes: str) -> str:
        return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if self.colour and codes else text

    def dim(self, text: str) -> str:
        return self.paint(text, _DIM)

    def bold(self, text: str) -> str:
        return self.paint(text, _BOLD)

    def bad(self, text: str) -> str:
        return self.paint(text, _RED)

    def good(self, text: str) -> str:
        return self.paint(text, _GREEN)


@dataclass(frozen=True)
class _Row:
    span: Span
    branch: str  # what leads to the span in the tree
    below: str  # the same on the line below it


def draw(trace: list[Span], style: Style) -> list[str]:
    """Returns the lines of a waterfall, each at most `style.width` columns wide."""
    rows = _tree(trace)
    services = list(dict.fromkeys(row.span.service for row in rows))
    colours = {service: _SERVICE_COLOURS[i % len(_SERVICE_COLOURS)] for i, service in enumerate(services)}
    service_width = max(len(row.branch) + len(row.span.service) for row in rows)
    operation_width = min(max(len(_operation(row.span)) for row in rows), _OPERATION_AT_MOST)
    bar_width = style.width - service_width - operation_width - _DURATION_WIDTH - 13
    shared = _shared_tags(trace)
    begin = min(span.start_ns for span in trace)
    whole = max(max(span.end_ns for span in trace) - begin, 1)

    lines = []
    for row in rows:
        span = row.span
        failed = span.status == "ERROR"
        service = row.branch + span.service
        bar = _bar((span.start_ns - begin) / whole, (span.end_ns - begin) / whole, bar_width)
        lines.append(
            "  ".join(
                [
                    style.dim(row.branch)
                    + style.paint(span.service, colours[span.service], _BOLD)
                    + " " * (service_width - len(service)),
                    style.dim(f"{span.kind:6}"),
                    f"{_clip(_operation(span), operation_width):{operation_width}}",
                    style.paint(bar, _RED if failed else colours[span.service]),
                    f"{_duration(span):>{_DURATION_WIDTH - 1}}",
                ]
            )
        )
        indent = service_width + 10
        outcome = _outcome(span)
        own = [f"why: {span.attributes[_REASON]}", *_written(_custom_tags(span), but=shared)]
        rest = _clip("".join(f" · {tag}" for tag in own), style.width - indent - len(outcome))
        painted = style.bad(outcome) if failed else style.good(outcome)
        lines.append(f"{style.dim(f'{row.below:{indent}}')}{painted}{style.dim(rest)}")
    if shared:
        label = f"{'all spans':{indent}}"
        lines.append(style.dim(_clip(label + " · ".join(_written(shared)), style.width)))
    return lines


def _tree(trace: list[Span]) -> list[_Row]:
    known = {span.span_id for span in trace}
    children: dict[str, list[Span]] = {}
    for span in sorted(trace, key=lambda span: span.start_ns):
        # A parent outside of this trace's spans is the caller's: its child is a root here.
        parent = span.parent_span_id if span.parent_span_id in known else ""
        children.setdefault(parent, []).append(span)

    def rows(parent: str, lead: str, depth: int) -> list[_Row]:
        found = []
        siblings = children.get(parent, [])
        for span in siblings:
            last = span is siblings[-1]
            branch = f"{lead}{'└ ' if last else '├ '}" if depth else lead
            inside = f"{lead}{'  ' if last else '│ '}" if depth else lead
            found.append(_Row(span, branch, inside + ("│" if span.span_id in children else "")))
            found += rows(span.span_id, inside, depth + 1)
        return found

    return rows("", "", 0)


def _operation(span: Span) -> str:
    path = span.attributes.get("url.path")
    if path is None:  # a CLIENT span has the whole URL
        path = "/" + span.attributes.get("url.full", "").partition("://")[2].partition("/")[2]
    return printable(f"{span.name} {path.partition('?')[0]}")


def _outcome(span: Span) -> str:
    status = next((str(span.attributes[key]) for key in _STATUS if key in span.attributes), "no answer")
    return printable(f"{status} ERROR" if span.status == "ERROR" else status)


def _custom_tags(span: Span) -> dict[str, object]:
    return {key: value for key, value in span.attributes.items() if not key.startswith(_ROUTINE)}


def _shared_tags(trace: list[Span]) -> dict[str, object]:
    """Returns what all spans of a trace of several say alike, to be said once."""
    first, *others = [_custom_tags(span) for span in trace]
    return {
        key: value
        for key, value in first.items()
        if others and all(tags.get(key) == value for tags in others)
    }


def _written(tags: dict[str, object], but: dict[str, object] | None = None) -> list[str]:
    return [printable(f"{key}: {value}") for key, value in tags.items() if key not in (but or {})]


def _bar(begin: float, end: float, width: int) -> str:
    """Returns a line from `begin` to `end`, shares of the width, exact to half a column."""
    halves = width * 2
    first = min(round(begin * halves), halves - 1)
    last = max(round(end * halves), first + 1)
    cell = {(True, True): "━", (True, False): "╸", (False, True): "╺", (False, False): " "}
    covered = [first <= half < last for half in range(halves)]
    return "".join(cell[covered[i], covered[i + 1]] for i in range(0, halves, 2))


def _duration(span: Span) -> str:
    return f"{(span.end_ns - span.start_ns) / 1e6:.1f} ms"


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def printable(text: str) -> str:
    """Returns the text without what could steer the terminal: it may come from a stranger's request."""
    return "".join(character if character.isprintable() else "�" for character in str(text))
