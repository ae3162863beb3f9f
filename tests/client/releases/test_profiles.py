"""The served model's profile follows the site's holdout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch

from client.cases.store import CaseStore
from client.inference.engine import InferenceEngine, ModelHolder
from client.inference.score_files import ScoreFiles
from client.reading.settings import ReadingSettings
from client.releases.holdout_traces import PROFILES, SCORES, forget_holdout_traces
from client.releases.profiles import ProfileFiles, ProfileKeeper
from client.releases.site_holdout import SiteHoldout
from tests.client.serving import RECIPE, picture, release, site_settings

PATIENTS = 20


class Site:
    """A keeper over a store with `PATIENTS` holdout patients, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.settings = site_settings(folder)
        self.store = CaseStore.open(self.settings)
        self.later = timedelta()
        self.holder = ModelHolder()
        self.files = ProfileFiles(self.settings.data / PROFILES)
        scores = ScoreFiles(self.settings.cache / SCORES)
        self.holdout = SiteHoldout(self.store, scores, busy=lambda: False)
        self.keeper = ProfileKeeper(
            *(self.holdout, self.holder, ReadingSettings(), self.files),
            clock=lambda: datetime.now(UTC) + self.later,
        )
        self.local = release(folder, 1)
        self.holder.swap(self.engine())
        self.add(range(PATIENTS))

    def engine(self) -> InferenceEngine:
        return InferenceEngine.load(self.local, device=torch.device("cpu"))

    def add(self, seeds: range) -> None:
        for seed in seeds:
            self.store.add(
                picture(seed),
                task=RECIPE.name,
                patient_id=f"p{seed}",
                label=RECIPE.classes[seed % 2],
                source="test",
                split="holdout",
            )

    @property
    def made_of(self) -> int | None:
        """Refresh; return how many patients the profile is of."""
        self.keeper.refresh()
        profile = self.holder.require().profile
        return None if profile is None else profile.holdout_patients


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    with closing(made.store):
        yield made


def test_it_is_made_kept_and_found_again_without_scoring(site: Site) -> None:
    assert site.made_of == PATIENTS
    (path,) = (site.settings.data / PROFILES).glob("*.json")
    assert path.stat().st_mode & 0o777 == 0o600
    forget = ScoreFiles(site.settings.cache / SCORES)
    forget.forget()
    engine = site.keeper.recall(site.engine())
    assert engine.profile == site.holder.require().profile
    path.write_bytes(b"damaged")
    assert site.keeper.recall(site.engine()).profile is None


def test_a_tenth_more_patients_or_a_day_makes_it_again(site: Site) -> None:
    assert site.made_of == PATIENTS
    site.add(range(PATIENTS, PATIENTS + 1))
    assert site.made_of == PATIENTS, "a twentieth more"
    site.later = timedelta(days=1, seconds=1)
    assert site.made_of == PATIENTS + 1
    site.later = timedelta()
    site.add(range(PATIENTS + 1, PATIENTS + 4))
    assert site.made_of == PATIENTS + 4


def test_who_withdrew_is_in_it_no_more(site: Site) -> None:
    assert site.made_of == PATIENTS
    site.store.withdraw_patient("p3")
    assert site.made_of == PATIENTS - 1
    forget_holdout_traces(site.settings.data, site.settings.cache)
    assert not list((site.settings.data / PROFILES).iterdir())
    assert site.made_of == PATIENTS - 1, "made again of those who are left"
    assert site.files.find(site.holder.require()) is not None


def test_another_table_of_settings_makes_it_again(site: Site) -> None:
    assert site.made_of == PATIENTS
    other = ProfileKeeper(site.holdout, site.holder, ReadingSettings(coverage=0.95), site.files)
    assert other.recall(site.engine()).profile is None
    before = site.holder.require().profile
    other.refresh()
    assert site.holder.require().profile != before


def test_the_thread_looks_after_what_answers_and_ends(site: Site) -> None:
    site.keeper.start()
    deadline = datetime.now(UTC) + timedelta(seconds=20)
    while site.holder.require().profile is None:
        assert datetime.now(UTC) < deadline
    site.keeper.stop()
    assert site.keeper.alarms() == ()


def test_a_database_that_is_away_is_an_alarm_and_the_model_answers(site: Site) -> None:
    database = site.settings.data / "cases.db"
    site.store.close()
    database.rename(database.with_name("away"))
    database.mkdir()
    site.keeper._guarded()
    assert len(site.keeper.alarms()) == 1
    assert site.holder.require().profile is None
    database.rmdir()
    database.with_name("away").rename(database)
    site.keeper._guarded()
    assert site.keeper.alarms() == ()
