"""A small parser of PromQL: enough to refuse what is malformed, and to find what is asked for.

Written after https://prometheus.io/docs/prometheus/latest/querying/basics/; what dashboards and
rules here do not use (subqueries, ``@``, ``offset``, native histograms) it refuses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>(?:\d+\.\d+|\.\d+|\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    | (?P<duration>\d+(?:ms|[smhdwy]))
    | (?P<string>"(?:[^"\\]|\\.)*")
    | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
    | (?P<operator>=~|!~|==|!=|<=|>=|[-+*/%^<>=(){}\[\],])
    )""",
    re.VERBOSE,
)
AGGREGATIONS = frozenset({"sum", "min", "max", "avg", "count", "topk", "bottomk", "quantile"})
FUNCTIONS = {
    "rate": 1, "increase": 1, "delta": 1, "absent": 1, "vector": 1, "time": 0,
    "histogram_quantile": 2,
}  # fmt: skip
OF_RANGES = frozenset({"rate", "increase", "delta"})
LEVELS = (
    ("or",), ("and", "unless"), ("==", "!=", "<=", ">=", "<", ">"), ("+", "-"), ("*", "/", "%"),
)  # fmt: skip


class Malformed(ValueError):
    """Not PromQL, or more of it than this parser knows."""


@dataclass(frozen=True)
class Matcher:
    label: str
    operator: str
    value: str

    def holds(self, value: str) -> bool:
        if self.operator in ("=", "!="):
            return (value == self.value) == (self.operator == "=")
        return bool(re.fullmatch(self.value, value)) == (self.operator == "=~")


@dataclass(frozen=True)
class Selector:
    """A metric that is asked for, and how."""

    metric: str
    matchers: tuple[Matcher, ...]
    ranged: bool


@dataclass
class Query:
    """All that a query asks for.

    ``kept`` are the labels that its result has: None for all of its metrics'.
    """

    selectors: list[Selector] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)
    kept: set[str] | None = None


def parse(text: str) -> Query:
    """Return what a query asks for; `Malformed` where it is none."""
    parser = _Parser(text)
    parser.expression(0)
    if parser.peek() is not None:
        raise Malformed(f"{text}: unexpected {parser.peek()}")
    return parser.query


class _Parser:
    def __init__(self, text: str) -> None:
        self.text, self.query = text, Query()
        self.tokens: list[tuple[str, str]] = []
        place = 0
        while place < len(text.rstrip()):
            found = TOKEN.match(text, place)
            if found is None or found.lastgroup is None:
                raise Malformed(f"{text}: nothing known at {text[place:]!r}")
            self.tokens.append((found.lastgroup, found[found.lastgroup]))
            place = found.end()
        self.at = 0

    def peek(self) -> str | None:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else None

    def take(self, *wanted: str, kind: str | None = None) -> str:
        if self.at >= len(self.tokens):
            raise Malformed(f"{self.text}: ends early")
        found, value = self.tokens[self.at]
        if (wanted and value not in wanted) or (kind and found != kind):
            raise Malformed(f"{self.text}: {value!r} instead of {wanted or kind}")
        self.at += 1
        return value

    def expression(self, level: int) -> None:
        if level == len(LEVELS):
            return self.unary()
        self.expression(level + 1)
        while self.peek() in LEVELS[level]:
            self.take()
            if self.peek() == "bool":
                self.take()
            if self.peek() in ("on", "ignoring"):
                self.take()
                self.query.labels |= self.label_list()
            self.expression(level + 1)
        return None

    def unary(self) -> None:
        if self.peek() in ("-", "+"):
            self.take()
        kind = self.tokens[self.at][0] if self.at < len(self.tokens) else "end"
        if kind == "number":
            self.take()
        elif self.peek() == "(":
            self.take("(")
            self.expression(0)
            self.take(")")
        elif kind == "name":
            self.named()
        else:
            raise Malformed(f"{self.text}: {self.peek()!r} where a value should be")

    def named(self) -> None:
        name = self.take(kind="name")
        if name in AGGREGATIONS:
            self.aggregation(name)
        elif self.peek() == "(":
            self.function(name)
        else:
            self.selector(name)

    def aggregation(self, name: str) -> None:
        kept: set[str] = set()
        by = self.peek() == "by"
        if by:
            self.take("by")
            kept = self.label_list()
        self.arguments(2 if name in ("topk", "bottomk", "quantile") else 1)
        if self.peek() in ("by", "without"):
            raise Malformed(f"{self.text}: write by before the brackets")
        self.query.labels |= kept
        if name not in ("topk", "bottomk"):
            self.query.kept = kept - {"le"} if self.query.kept is None else self.query.kept & kept

    def function(self, name: str) -> None:
        if name not in FUNCTIONS:
            raise Malformed(f"{self.text}: no function {name}")
        before = len(self.query.selectors)
        self.arguments(FUNCTIONS[name])
        inside = self.query.selectors[before:]
        if name in OF_RANGES and not (len(inside) == 1 and inside[0].ranged):
            raise Malformed(f"{self.text}: {name} is of one range")

    def arguments(self, count: int) -> None:
        self.take("(")
        for number in range(count):
            if number:
                self.take(",")
            self.expression(0)
        self.take(")")

    def selector(self, name: str) -> None:
        matchers: list[Matcher] = []
        if self.peek() == "{":
            self.take("{")
            while self.peek() != "}":
                label = self.take(kind="name")
                operator = self.take("=", "!=", "=~", "!~")
                value = self.take(kind="string")[1:-1]
                matchers.append(Matcher(label, operator, value))
                if self.peek() != "}":
                    self.take(",")
            self.take("}")
        ranged = self.peek() == "["
        if ranged:
            self.take("[")
            self.take(kind="duration")
            self.take("]")
        self.query.selectors.append(Selector(name, tuple(matchers), ranged))

    def label_list(self) -> set[str]:
        found = set()
        self.take("(")
        while self.peek() != ")":
            found.add(self.take(kind="name"))
            if self.peek() != ")":
                self.take(",")
        self.take(")")
        return found
