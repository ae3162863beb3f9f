"""The table of refusals is closed, and complete for what a round can run into."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from common import errors
from common.refusals import INTERNAL_ERROR, SITE_REFUSALS, outward_code

ROOT = Path(__file__).parents[2]
ROUND_PATH = (
    *("client/round_handler.py", "client/round_task.py", "client/policy.py"),
    *("client/base_models.py", "client/update_feedback.py"),
    "client/plan_memory.py",
    *("client/site_recipes.py", "client/privacy", "client/training"),
    *("common/plan.py", "common/model.py", "common/model_files.py", "common/dp_layers.py"),
    *("common/dp_samplers.py", "common/gradient_check.py"),
)
NOT_OF_A_ROUND = {"model-file"}  # reading a file of weights, which no round does


def raised_codes() -> set[str]:
    files: list[Path] = []
    for part in ROUND_PATH:
        path = ROOT / part
        assert path.exists(), part
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return {c for f in files for c in re.findall(r'code="([a-z0-9-]+)"', f.read_text())}


def test_every_code_of_a_round_is_explained() -> None:
    found = raised_codes()
    assert len(found) > 30
    assert found - NOT_OF_A_ROUND <= SITE_REFUSALS.keys()


def test_default_codes_of_what_a_round_raises_are_explained() -> None:
    raised = (errors.ConfigurationError, errors.RecipeError, errors.ModelError, errors.StoreError)
    assert {kind.default_code for kind in raised} <= SITE_REFUSALS.keys()


@given(st.text())
def test_nothing_else_leaves(code: str) -> None:
    assert outward_code(code) == (code if code in SITE_REFUSALS else INTERNAL_ERROR)


def test_explanations_are_sentences_without_a_sites_own_words() -> None:
    for text in SITE_REFUSALS.values():
        assert text.endswith(".") or text.endswith("?")
        assert "{" not in text


def test_the_policy_page_lists_them_all() -> None:
    page = (ROOT / "docs/site-policy.md").read_text("utf-8")
    rows = dict(re.findall(r"(?m)^\| `([a-z0-9-]+)` \| (.+) \|$", page))
    assert {c: rows.get(c) for c in SITE_REFUSALS} == dict(SITE_REFUSALS)
