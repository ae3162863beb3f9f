"""A planted patient, looked for in all that a site says: logs, answers, metrics, import reports."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from client.api import errors
from client.cases.store import CaseStore
from client.intake.importer import import_cases
from client.intake.source import ImportSource
from client.intake.tally import ImportTally
from common.recipe import load_recipe
from tests.attacks.attack import Attack, Finding
from tests.attacks.code import _Captured
from tests.client.serving import FakeReleases, picture, release, served_site, site_settings
from tests.client.stores import TASK, open_store

NAME, NUMBER = "Jane-Planted-Doe", "MRN-90125-planted"


def _found(texts: list[str]) -> int:
    return sum(NAME in text or NUMBER in text for text in texts)


def http_answers(folder: Path) -> Finding:
    """A name in file names, queries, fields, headers and paths, in good requests and bad ones."""
    settings = site_settings(folder)
    with _Captured() as lines, served_site(settings, FakeReleases(release(folder, 1))) as site:
        logging.getLogger("httpx").setLevel(logging.WARNING)  # the calling side's own log
        image = {"image": (f"{NAME}.png", picture())}
        person = {"patient_id": NUMBER, "label": "mel"}
        case = f"/cases/{'0' * 32}/confirm"
        answers = [
            site.call("POST", "/predict", files=image, params={"name": NAME}),
            site.call("POST", "/cases", files=image, data=person),
            site.call("POST", "/cases", files=image, data={**person, "label": NAME}),
            site.call("POST", "/cases", files=image, data={**person, "age": NAME}),
            site.call("POST", "/cases", files={"image": (NAME, b"no image")}, data=person),
            site.call("POST", case, json={"label": {"name": NAME}}),
            site.call("POST", case, json={"label": NAME, NUMBER: 1}),
            site.call("POST", case, content=f'{{"{NAME}'.encode()),
            site.call("GET", f"/{NAME}", headers={"X-Request-ID": NUMBER}),
            site.call("GET", "/cases"),
            site.call("GET", "/metrics"),
        ]
    texts = [a.text + str(a.headers) for a in answers] + ["\n".join(lines)]
    found = _found(texts)
    refused = sum(a.status_code >= 400 for a in answers)
    said = f"{len(answers)} requests, {refused} refused; found in {found} answers or logs"
    return Finding(found > 0, said)


def quote_the_input(patch: pytest.MonkeyPatch) -> None:
    """As FastAPI does by itself: a validation error says what was sent, and where."""

    def quoting(fault: Mapping[str, Any]) -> tuple[object, ...]:
        return (*fault["loc"], fault.get("input"))

    patch.setattr(errors, "_place", quoting)


def import_report(folder: Path) -> Finding:
    """An import of files named after patients, some of which are refused: its report and logs."""
    data = folder / "data"
    data.mkdir()
    (data / f"{NAME}.png").write_bytes(b"no image")
    (data / f"{NAME}-2.png").write_bytes(picture(2))
    rows = [f"{NAME}.png,nv,{NUMBER}", f"{NAME}-2.png,nv,{NUMBER}", f"gone-{NAME}.png,nv,{NUMBER}"]
    (data / "labels.csv").write_text("\n".join(["file,label,patient_id", *rows]))
    store: CaseStore = open_store(folder / "site")
    try:
        with _Captured() as lines:
            summary = import_cases(store, load_recipe(TASK), ImportSource(data))
    finally:
        store.close()
    found = _found([summary.model_dump_json(), "\n".join(lines)])
    return Finding(found > 0, f"{summary.refused_count} rows refused; found in {found} of 2 texts")


def show_files(patch: pytest.MonkeyPatch) -> None:
    begin = ImportTally.__init__

    def showing(tally: ImportTally, recipe: object, *, show_files: bool) -> None:
        begin(tally, recipe, show_files=True)  # type: ignore[arg-type]

    patch.setattr(ImportTally, "__init__", showing)


ATTACKS = (
    Attack(
        "http-scraping",
        "patient-data snooper",
        "a patient's name in answers, metrics and logs",
        "errors name fields, not what was typed",
        http_answers,
        quote_the_input,
    ),
    Attack(
        "import-scraping",
        "patient-data snooper",
        "a patient's name in an import's report",
        "row numbers instead of file names",
        import_report,
        show_files,
    ),
)
