"""What the runner imports before it forks starts no thread: a forked child could hang on its locks.

`client.runner.service.refuse_unsafe_fork` sees it on a real machine, and no site would answer then.
"""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
STARTS_THREADS = {"onnxruntime"}


def source_of(module: str) -> Path | None:
    path = ROOT / module.replace(".", "/")
    found = [p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()]
    return found[0] if found else None


def imported(body: list[ast.stmt]) -> Iterator[str]:
    """Names that are imported as a module is: not inside functions, not for types alone."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Try | ast.If) and not for_types(node):
            yield from imported(node.body)


def for_types(node: ast.Try | ast.If) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def test_nothing_that_starts_a_thread_is_imported_with_the_sites_app() -> None:
    waiting, seen = deque([["client.app"]]), {"client.app"}
    while waiting:
        chain = waiting.popleft()
        source = source_of(chain[-1])
        if source is None:
            assert chain[-1].partition(".")[0] not in STARTS_THREADS, " -> ".join(chain)
            continue
        for name in imported(ast.parse(source.read_text("utf-8")).body):
            if name not in seen:
                seen.add(name)
                waiting.append([*chain, name])
    assert "common.plan" in seen
