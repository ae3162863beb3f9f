"""The documents that scripts read are the documented ones."""

import json
from pathlib import Path

import pytest
from pydantic import BaseModel

from deploy.schemas import DOCUMENTS, schema_text

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"


@pytest.mark.parametrize(("name", "document"), DOCUMENTS)
def test_schema_in_the_docs_is_the_documents_own(name: str, document: type[BaseModel]) -> None:
    written = (SCHEMAS / f"{name}.json").read_text("utf-8")
    assert written == schema_text(document), "run `python -m deploy.schemas docs/schemas`"


def test_every_schema_is_listed_in_the_commands_page() -> None:
    page = (SCHEMAS.parent / "commands.md").read_text("utf-8")
    for name, _ in DOCUMENTS:
        assert f"schemas/{name}.json" in page
    assert {p.stem for p in SCHEMAS.glob("*.json")} == {name for name, _ in DOCUMENTS}


def test_schemas_describe_objects() -> None:
    for name, _ in DOCUMENTS:
        assert json.loads((SCHEMAS / f"{name}.json").read_text("utf-8"))["type"] == "object"
