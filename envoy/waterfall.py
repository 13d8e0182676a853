"""Draws one trace as a waterfall: a line a span with its bar in time, and its tags below.

frontend     SERVER  GET /cart  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━   12.1 ms
│                    200 · why: debug-header · user.id: ada
└ frontend   CLIENT  GET /cart    ╺━━━━━━━━━━━━━━━━━━━━━━━━━━━━╸      9.8 ms
                     200 · why: parent
  all spans          cloud.region: eu-west-1
"""

import itertools
import os
import shutil
import sys
from dataclasses import dataclass

from receiver import Span

_WIDEST = 100
_NARROWEST = 60
_OPERATION_AT_MOST = 34
_KIND_WIDTH = len("SERVER")
_DURATION_WIDTH = len("1234.5 ms")
_GAP = "  "
# Which halves of a column a bar covers.
_BAR = {(True, True): "━", (True, False): "╸", (False, True): "╺", (False, False): " "}

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
    "rpc.",
    "upstream_",
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


def draw(trace: list[Span], style: Style) -> list[str]:
    """Returns the lines of a waterfall, each at most `style.width` columns wide."""
    return _Waterfall(trace, style).lines()


@dataclass(frozen=True)
class _Row:
    span: Span
    branch: str  # what leads to the span in the tree
    below: str  # the same on the line below it

    def label(self) -> str:
        return self.branch + self.span.service


class _Waterfall:
    def __init__(self, trace: list[Span], style: Style):
        self._style = style
        self._rows = _tree(trace)
        self._shared = _shared_tags(trace)
        services = dict.fromkeys(row.span.service for row in self._rows)
        self._colours = dict(zip(services, itertools.cycle(_SERVICE_COLOURS)))
        self._label_width = max(len(row.label()) for row in self._rows)
        longest = max(len(_operation(span)) for span in trace)
        self._operation_width = min(longest, _OPERATION_AT_MOST)
        self._indent = self._label_width + len(f"{_GAP}{'':{_KIND_WIDTH}}{_GAP}")
        rest = self._indent + self._operation_width + len(_GAP) * 2 + _DURATION_WIDTH
        self._bar_width = style.width - rest
        self._begin = min(span.start_ns for span in trace)
        self._whole = max(max(span.end_ns for span in trace) - self._begin, 1)

    def lines(self) -> list[str]:
        lines = [line for row in self._rows for line in (self._span_line(row), self._tag_line(row))]
        if self._shared:
            line = f"{'all spans':{self._indent}}{' · '.join(_written(self._shared))}"
            lines.append(self._style.dim(_clip(line, self._style.width)))
        return lines

    def _span_line(self, row: _Row) -> str:
        span, style = row.span, self._style
        colour = self._colours[span.service]
        label = style.dim(row.branch) + style.paint(span.service, colour, _BOLD)
        columns = [
            label + " " * (self._label_width - len(row.label())),
            style.dim(f"{span.kind:{_KIND_WIDTH}}"),
            f"{_clip(_operation(span), self._operation_width):{self._operation_width}}",
            style.paint(self._bar(span), _RED if span.status == "ERROR" else colour),
            f"{_duration(span):>{_DURATION_WIDTH}}",
        ]
        return _GAP.join(columns)

    def _tag_line(self, row: _Row) -> str:
        span, style = row.span, self._style
        outcome = _outcome(span)
        tags = [f"why: {span.attributes[_REASON]}", *_written(_custom_tags(span), but=self._shared)]
        rest = _clip("".join(f" · {tag}" for tag in tags), style.width - self._indent - len(outcome))
        painted = style.paint(outcome, _RED if span.status == "ERROR" else _GREEN)
        return f"{style.dim(f'{row.below:{self._indent}}')}{painted}{style.dim(rest)}"

    def _bar(self, span: Span) -> str:
        """Returns a line from the span's start to its end, exact to half a column."""
        halves = self._bar_width * 2
        first = min(round((span.start_ns - self._begin) / self._whole * halves), halves - 1)
        last = max(round((span.end_ns - self._begin) / self._whole * halves), first + 1)
        covered = [first <= half < last for half in range(halves)]
        return "".join(_BAR[covered[i], covered[i + 1]] for i in range(0, halves, 2))


def _tree(trace: list[Span]) -> list[_Row]:
    known = {span.span_id for span in trace}
    children: dict[str, list[Span]] = {}
    for span in sorted(trace, key=lambda span: span.start_ns):
        # A parent outside of this trace's spans is the caller's: its child is a root here.
        parent = span.parent_span_id if span.parent_span_id in known else ""
        children.setdefault(parent, []).append(span)

    def rows(parent: str, lead: str, is_root: bool) -> list[_Row]:
        found = []
        siblings = children.get(parent, [])
        for span in siblings:
            last = span is siblings[-1]
            branch, inside = (lead, lead) if is_root else (lead + "├ ", lead + "│ ")
            if last and not is_root:
                branch, inside = lead + "└ ", lead + "  "
            found.append(_Row(span, branch, inside + ("│" if span.span_id in children else "")))
            found += rows(span.span_id, inside, is_root=False)
        return found

    return rows("", "", is_root=True)


def _operation(span: Span) -> str:
    if "http.route" in span.attributes or "rpc.method" in span.attributes:
        return printable(span.name)
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
    """Returns the attributes that all spans of a trace have alike, which are printed once."""
    first, *others = [_custom_tags(span) for span in trace]
    return {
        key: value
        for key, value in first.items()
        if others and all(tags.get(key) == value for tags in others)
    }


def _written(tags: dict[str, object], but: dict[str, object] | None = None) -> list[str]:
    return [printable(f"{key}: {value}") for key, value in tags.items() if key not in (but or {})]


def _duration(span: Span) -> str:
    return f"{(span.end_ns - span.start_ns) / 1e6:.1f} ms"


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def printable(text: str) -> str:
    """Returns the text without what could steer the terminal: it may come from a stranger's request."""
    return "".join(character if character.isprintable() else "�" for character in str(text))
