"""The OpenAPI document: whole, valid, and what the service does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from schemathesis.specs.openapi import definitions

from client.access.guard import PUBLIC
from tests.client.serving import ServedSite
from tests.fuzz.fuzzing import fuzz, fuzzed_site

SHORT = 300


@pytest.fixture
def document(site: ServedSite) -> Any:
    return site.call("GET", "/openapi.json").json()


def operations(document: Any) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def references(value: object) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(inner) for inner in value.values()))
    if isinstance(value, list):
        return set().union(*(references(inner) for inner in value))
    return set()


def test_operation_ids_are_names_and_none_is_there_twice(document: Any) -> None:
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    assert all(name.isidentifier() for name in ids)
    assert {"predict", "predict_batch", "store_case", "infer", "model", "budget"} <= set(ids)


def test_every_operation_says_who_may_ask_and_which_errors_there_are(document: Any) -> None:
    for name, operation in operations(document):
        public = name.split(" ")[1] in PUBLIC
        assert (operation["security"] == []) == public, name
        assert bool(operation.get("x-wardround-roles")) != public, name
        assert operation["summary"], name
        assert "default" in operation["responses"], name
        error = operation["responses"]["default"]["content"]
        v2 = name.split(" ")[1].startswith("/v2")
        assert list(error) == ["application/json" if v2 else "application/problem+json"], name
    assert set(document["components"]["securitySchemes"]) == {"key", "session"}


def test_it_is_openapi_3_1(document: Any) -> None:
    assert document["openapi"].startswith("3.1")
    assert [str(fault) for fault in definitions.OPENAPI_31_VALIDATOR.iter_errors(document)] == []


def test_every_reference_leads_somewhere_and_every_schema_is_one(document: Any) -> None:
    for reference in references(document):
        found = document
        for step in reference.removeprefix("#/").split("/"):
            found = found[step.replace("~1", "/")]
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_requests_made_from_it_are_answered_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WARDROUND_SITE_ACCESS", "accounts")
    with fuzzed_site(tmp_path) as (url, key):
        tally = fuzz(url, key, number=SHORT, first_seed=1)
    with capsys.disabled():
        sys.stdout.write(f"\n{tally.text()}\n")
    assert tally.requests >= SHORT
    assert tally.server_errors == 0
    assert tally.faults == {}
