"""What the runner finds in the service's answers and profile, and nothing where either lacks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from client.answers.answered import Answered
from client.answers.log import AnswerLog
from client.cases.store import CaseStore
from client.monitoring.reference import DriftReference
from client.monitoring.told import prediction_drift_level
from client.reading.profile import SiteProfile
from client.settings import SiteSettings
from common.database import open_database
from tests.client.monitoring.samples import CLASSES, MODEL, answers, reference
from tests.client.stores import make_site

NOW = datetime.now(UTC)


def answered(settings: SiteSettings, found: Sequence[Answered]) -> None:
    engine = open_database(settings.database)
    log = AnswerLog(engine)
    for answer in found:
        log.record(answer)
    assert log.flush()
    engine.dispose()


def profiled(settings: SiteSettings, drift: DriftReference | None, digest: str) -> None:
    profile = SiteProfile(
        model_digest=digest, recipe_digest="1" * 64, settings_digest="2" * 64,
        holdout_digest="3" * 64, holdout_patients=200, made_at=NOW, drift=drift,
    )  # fmt: skip
    folder = settings.data / "profiles"
    folder.mkdir(exist_ok=True)
    (folder / f"{digest[:8]}.json").write_text(profile.model_dump_json())


def level(settings: SiteSettings, *, fewest: int = 10) -> int | None:
    now = NOW.timestamp()
    return prediction_drift_level(settings, "toy", CLASSES, fewest=fewest, now=now)


def test_it_is_the_level_that_monitoring_finds(tmp_path: Path) -> None:
    settings = make_site(tmp_path / "site")
    CaseStore.open(settings).close()
    assert level(settings) is None  # no answers
    begun = NOW - timedelta(hours=20)
    answered(settings, answers(150, begun=begun))
    assert level(settings) is None  # no profile
    (settings.data / "profiles").mkdir()
    (settings.data / "profiles" / "damaged.json").write_text("{")
    profiled(settings, reference(), "b" * 64)
    assert level(settings) is None  # another model's
    profiled(settings, None, MODEL.digest)
    assert level(settings) is None  # too small a holdout for a reference
    profiled(settings, reference(), MODEL.digest)
    assert level(settings) == 0
    assert level(settings, fewest=151) is None
    careful = settings.monitoring.model_copy(update={"fewest": 151})
    assert level(settings.model_copy(update={"monitoring": careful})) is None
    answered(settings, answers(250, seed=5, logit=4.0, begun=begun + timedelta(hours=4)))
    assert level(settings) == 2
