"""The served model's profile follows the site's holdout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from client.cases.store import CaseStore
from client.inference.engine import InferenceEngine, ModelHolder
from client.inference.holdout_scores import BATCH
from client.inference.score_files import KeptRow, ScoreFiles
from client.reading.profile import SiteProfile, fit_profile
from client.reading.settings import ReadingSettings
from client.releases import profiles
from client.releases.holdout_traces import PROFILES, SCORES
from client.releases.profiles import ProfileFiles, ProfileKeeper
from client.releases.served import Interrupted
from client.releases.site_holdout import SiteHoldout
from client.withdrawal import withdraw_case, withdraw_patient
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

    def scored(self) -> dict[str, set[str]]:
        """Return the cases of which scores are on the disk, by model."""
        folder = self.settings.cache / SCORES
        return {path.stem: set(ScoreFiles(folder).find(path.stem)) for path in folder.glob("*.npz")}

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
    withdraw_patient(site.settings, "p3")
    assert not list((site.settings.data / PROFILES).iterdir())
    assert site.scored() == {}
    assert site.made_of == PATIENTS - 1, "made again of those who are left"
    assert site.files.find(site.holder.require()) is not None
    assert [len(cases) for cases in site.scored().values()] == [PATIENTS - 1]


def test_scores_of_who_is_no_holdout_case_any_more_go_at_the_next_look(site: Site) -> None:
    assert site.made_of == PATIENTS
    site.store.withdraw_patient("p3")  # as a withdrawal leaves it that is killed then
    assert site.made_of == PATIENTS - 1
    assert [len(cases) for cases in site.scored().values()] == [PATIENTS - 1]


def test_who_withdraws_while_a_release_is_judged_is_in_no_scores_afterwards(site: Site) -> None:
    assert site.made_of == PATIENTS
    newer = InferenceEngine.load(release(site.settings.folder, 2), device=torch.device("cpu"))
    gone = site.store.holdout_cases(RECIPE.name)[0].id
    batches = iter(range(1000))

    def between() -> None:
        if next(batches) == PATIENTS // BATCH - 1:
            withdraw_case(site.settings, gone)
            site.keeper.refresh()

    site.holdout.compare(newer, site.holder.require(), between)
    assert len(site.scored()) == 2
    assert [cases for cases in site.scored().values() if gone in cases] == []


def test_a_judgement_that_is_broken_off_prunes_all_the_same(site: Site) -> None:
    assert site.made_of == PATIENTS
    gone = site.store.holdout_cases(RECIPE.name)[0].id
    newer = InferenceEngine.load(release(site.settings.folder, 2), device=torch.device("cpu"))
    site.holdout.scores(newer, lambda: None)
    site.store.withdraw_case(gone)

    def between() -> None:
        raise Interrupted

    site.add(range(PATIENTS, PATIENTS + 1))
    with pytest.raises(Interrupted):
        site.holdout.compare(newer, site.holder.require(), between)
    assert [cases for cases in site.scored().values() if gone in cases] == []


def test_who_withdraws_while_a_profile_is_fitted_is_not_in_the_one_that_is_kept(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = iter(range(10))

    def fit(*given: Any, **named: Any) -> SiteProfile:
        made = fit_profile(*given, **named)
        if next(fits) == 0:
            withdraw_patient(site.settings, "p3")
        return made

    monkeypatch.setattr(profiles, "fit_profile", fit)
    newer = InferenceEngine.load(release(site.settings.folder, 2), device=torch.device("cpu"))
    site.keeper.prepare(newer, lambda: None)
    kept = site.files.find(newer)
    assert kept is not None
    assert kept == newer.profile
    assert kept.holdout_patients == PATIENTS - 1


def test_who_withdraws_while_scores_are_pruned_is_pruned_too(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert site.made_of == PATIENTS
    first, second = (case.id for case in site.store.holdout_cases(RECIPE.name)[:2])
    site.store.withdraw_case(first)
    found = ScoreFiles.find

    def find(files: ScoreFiles, key: str) -> dict[str, KeptRow]:
        rows = found(files, key)
        monkeypatch.setattr(ScoreFiles, "find", found)
        withdraw_case(site.settings, second)
        return rows

    monkeypatch.setattr(ScoreFiles, "find", find)
    site.holdout.prune(site.holder.require())
    assert [cases for cases in site.scored().values() if {first, second} & cases] == []


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
