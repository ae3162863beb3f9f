"""What the status says of scoring candidates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from client.cases.store import CaseStore
from client.intake.importer import import_cases
from client.settings import SiteSettings
from client.site_recipes import keep_recipe
from client.status.documents import Scoring
from client.status.scoring import ScoringReader
from tests.client.intake.sources import write_csv, write_images
from tests.client.rounds import TOY, change_policy, make_site

ABLE = Scoring(level="good", able=True, code=None, message="")


@pytest.fixture
def site(tmp_path: Path) -> SiteSettings:
    """Four holdout patients of each class."""
    made = make_site(tmp_path / "site", patients=8, holdout=8, minimum_cell=4)
    keep_recipe(made, TOY)
    return made.model_copy(update={"task": TOY.name})


@pytest.fixture
def reader(site: SiteSettings) -> Iterator[ScoringReader]:
    with closing(CaseStore.open(site)) as store:
        yield ScoringReader(site, store)


def code(reader: ScoringReader) -> str | None:
    found = reader.read()
    assert found is not None
    return found.code


def test_a_changed_policy_is_read_at_once(reader: ScoringReader) -> None:
    assert reader.read() == ABLE
    change_policy(reader.settings, minimum_cell=5)
    assert code(reader) == "scores-no-class"
    change_policy(reader.settings, evaluations_per_day=0)
    assert code(reader) == "scores-unreleased"


def test_some_classes_are_better_than_none(reader: ScoringReader, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", 1)
    rows = write_csv(data, "file,label,patient_id,split", "0.png,dark,another,test")
    import_cases(reader.settings, TOY, rows)
    change_policy(reader.settings, minimum_cell=5)
    found = reader.read()
    assert found is not None
    assert (found.able, found.code, found.level) == (True, "scores-few-cases", "warn")


def test_the_holdout_is_looked_at_no_oftener_than_once_a_minute(
    reader: ScoringReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("client.status.scoring.time.monotonic", lambda: clock[0])
    first = reader.read()
    clock[0] += 59
    assert reader.read() is first
    clock[0] += 2
    assert reader.read() is not first


def test_without_a_recipe_nothing_is_said(reader: ScoringReader) -> None:
    (reader.settings.recipes / f"{TOY.name}.toml").unlink()
    assert reader.read() is None
