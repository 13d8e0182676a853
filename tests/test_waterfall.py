"""How a trace looks in the terminal, compared as text."""

import pytest
from receiver import Span
from waterfall import Style, draw, printable

MS = 1_000_000


def span(
    id: str, parent: str, service: str, start_ms: float, end_ms: float, status: int = 200, **tags
) -> Span:
    return Span(
        resource={"service.name": service},
        scope="sidespan",
        trace_id="t",
        span_id=id,
        parent_span_id=parent,
        trace_state="",
        flags=1,
        name="GET",
        kind="SERVER",
        start_ns=int(start_ms * MS),
        end_ns=int(end_ms * MS),
        attributes={
            "url.path": "/cart",
            "http.response.status_code": status,
            "sidespan.reason": "ratio",
            "component": "proxy",
            **tags,
        },
        status="ERROR" if status >= 500 else "UNSET",
    )


SIBLINGS = [
    span("a", "caller", "front", 0, 10, region="eu", user="ada"),
    span("b", "a", "cart", 1, 4, region="eu"),
    span("c", "b", "store", 2, 3, region="eu"),
    span("d", "a", "price", 5, 9, status=503, region="eu", zone="b"),
]


@pytest.mark.parametrize(
    "trace, width, expected",
    [
        pytest.param(
            SIBLINGS,
            60,
            """
front      SERVER  GET /cart  ━━━━━━━━━━━━━━━━━━━    10.0 ms
│                  200 · why: ratio · user: ada
├ cart     SERVER  GET /cart    ━━━━━╸                3.0 ms
│ │                200 · why: ratio
│ └ store  SERVER  GET /cart      ━╸                  1.0 ms
│                  200 · why: ratio
└ price    SERVER  GET /cart           ╺━━━━━━━       4.0 ms
                   503 ERROR · why: ratio · zone: b
all spans          region: eu
""",
            id="siblings hang on one trunk, and what all say is said once",
        ),
        pytest.param(
            [span("a", "", "front", 0, 1, note="n" * 90)],
            60,
            """
front  SERVER  GET /cart  ━━━━━━━━━━━━━━━━━━━━━━━     1.0 ms
               200 · why: ratio · note: nnnnnnnnnnnnnnnnnnn…
""",
            id="a long tag is cut at the margin",
        ),
        pytest.param(
            [span("a", "", "front", 3, 3)],
            60,
            """
front  SERVER  GET /cart  ╸                           0.0 ms
               200 · why: ratio
""",
            id="a span without duration is still seen",
        ),
    ],
)
def test_trace_is_drawn(trace, width, expected):
    assert [
        line.rstrip() for line in draw(trace, Style(width, colour=False))
    ] == expected.strip().splitlines()


def test_no_line_is_wider_than_asked():
    for width in range(60, 101):
        assert max(map(len, draw(SIBLINGS, Style(width, colour=False)))) <= width


def test_colour_changes_no_text():
    plain = draw(SIBLINGS, Style(80, colour=False))
    coloured = draw(SIBLINGS, Style(80, colour=True))
    assert coloured != plain
    assert [strip_colour(line) for line in coloured] == plain


def strip_colour(line: str) -> str:
    parts = line.split("\x1b[")
    return parts[0] + "".join(part.partition("m")[2] for part in parts[1:])


def test_text_of_strangers_cannot_steer_the_terminal():
    assert printable("a\x1b[2Jb\r\n") == "a\ufffd[2Jb\ufffd\ufffd"
