"""Whether a site could score a candidate: said before a campaign, and as it turns out to be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from client.intake.importer import import_cases
from client.intake.source import ImportSource
from client.intake.summary import ImportSummary
from client.outbox import Outbox
from client.round_handler import RoundHandler
from client.settings import SiteSettings
from common.records import Forecast, SiteReply
from common.wire import records_to_reply
from tests.client.intake.sources import write_csv, write_images
from tests.client.rounds import (
    TOY,
    base_tensors,
    change_policy,
    make_plan,
    make_site,
    no_test,
    signed,
)

MUTE = (
    {"minimum_cell": 5},
    {"release_evaluation": False},
    {"evaluations_per_day": 0},
)


@pytest.fixture
def site(tmp_path: Path) -> SiteSettings:
    """Four holdout patients of each class."""
    return make_site(tmp_path / "site", patients=8, holdout=8, minimum_cell=4)


def forecast(site: SiteSettings) -> Forecast:
    reply = RoundHandler(site).handle(signed(make_plan(purpose="preflight", campaign="asked")), {})
    assert reply.forecast is not None
    return reply.forecast


@pytest.mark.parametrize("policy", [{}, *MUTE])
def test_what_a_site_says_is_what_it_does(site: SiteSettings, policy: dict[str, object]) -> None:
    change_policy(site, **policy)
    base = base_tensors()
    handler = RoundHandler(site, self_test=no_test)
    reply = handler.handle(signed(make_plan(purpose="evaluate", base=base)), base)
    scored = reply.evaluation is not None and reply.evaluation.cases > 0
    assert forecast(site).scores is scored
    assert scored is (policy == {})


def test_a_patients_many_images_are_one_case(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", patients=0, holdout=0, minimum_cell=2)
    data = write_images(tmp_path / "data", 4)
    rows = [f"{n}.png,dark,{'one' if n < 3 else 'other'},test" for n in range(4)]
    import_cases(site, TOY, write_csv(data, "file,label,patient_id,split", *rows[:3]))
    assert not forecast(site).scores
    import_cases(site, TOY, write_csv(data, "file,label,patient_id,split", *rows))
    assert forecast(site).scores


def test_it_is_said_no_oftener_than_the_holdout_is_scored(site: SiteSettings) -> None:
    change_policy(site, minimum_cell=5, evaluations_per_day=2)
    assert [forecast(site).scores for _ in range(4)] == [False, False, True, True]


def test_what_a_policy_alone_decides_is_always_said(site: SiteSettings) -> None:
    change_policy(site, release_evaluation=False, evaluations_per_day=2)
    assert not any(forecast(site).scores for _ in range(4))


def test_only_a_no_is_on_the_wire(site: SiteSettings) -> None:
    """So an older coordinator reads what an able site says, and an older site says nothing."""
    told = forecast(site)
    assert "scores" not in told.model_dump_json()
    assert Forecast.model_validate_json(told.model_dump_json()).scores
    change_policy(site, minimum_cell=5)
    told = forecast(site)
    assert not Forecast.model_validate_json(told.model_dump_json()).scores


def sent(site: SiteSettings, **forged: object) -> SiteReply:
    request = signed(make_plan(purpose="preflight", campaign="asked"))
    with Outbox.open(site) as outbox:
        opened = outbox.opened(request, {})
        reply = RoundHandler(site).handle(request, {})
        assert reply.forecast is not None
        told = reply.forecast.model_copy(update=forged)
        return records_to_reply(outbox.send(replace(reply, forecast=told), opened))


def test_the_outbox_lets_a_no_out(site: SiteSettings) -> None:
    change_policy(site, minimum_cell=5)
    reply = sent(site)
    assert reply.forecast is not None
    assert not reply.forecast.scores


@pytest.mark.parametrize("policy", MUTE[1:])
def test_the_outbox_lets_the_cases_say_nothing_where_no_count_may_leave(
    site: SiteSettings, policy: dict[str, object]
) -> None:
    change_policy(site, **policy)
    assert sent(site).forecast is not None
    reply = sent(site, scores=True)
    assert reply.refusal is not None
    assert reply.refusal.code == "outbox-refused"


def test_the_outbox_counts_how_often_it_was_said(site: SiteSettings) -> None:
    change_policy(site, minimum_cell=5, evaluations_per_day=1)
    assert sent(site).forecast is not None
    assert sent(site, scores=False).refusal is not None


def imported(folder: Path, *labels: str, **policy: object) -> ImportSummary:
    """Import one holdout patient a label, and two training patients."""
    site = make_site(folder / "site", patients=0, holdout=0, minimum_cell=3)
    change_policy(site, **policy)
    data = write_images(folder / "data", len(labels) + 2)
    rows = [f"{n}.png,{label},h{n},test" for n, label in enumerate(labels)]
    rows += [f"{len(labels) + n}.png,{TOY.classes[n]},t{n},train" for n in range(2)]
    source: ImportSource = write_csv(data, "file,label,patient_id,split", *rows)
    return import_cases(site, TOY, source)


def told(summary: ImportSummary) -> dict[str, str]:
    return {w.code: w.message for w in summary.warnings if w.code.startswith("scores-")}


def test_an_import_warns_of_a_holdout_of_which_nothing_could_leave(tmp_path: Path) -> None:
    found = told(imported(tmp_path, "dark", "dark", "bright", "bright"))
    assert set(found) == {"scores-no-class"}
    assert "No class has 3 holdout cases" in found["scores-no-class"]
    assert "releases nothing" in found["scores-no-class"]
    assert "minimum_cell" in found["scores-no-class"]


def test_an_import_names_the_classes_of_which_nothing_could_leave(tmp_path: Path) -> None:
    found = told(imported(tmp_path, "dark", "dark", "dark", "bright"))
    assert set(found) == {"scores-few-cases"}
    assert "Of bright the holdout has" in found["scores-few-cases"]
    assert "dark" not in found["scores-few-cases"]


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"release_evaluation": False}, "release_evaluation = false"),
        ({"evaluations_per_day": 0}, "evaluations_per_day = 0"),
    ],
)
def test_an_import_warns_of_a_policy_that_releases_no_counts(
    tmp_path: Path, policy: dict[str, object], words: str
) -> None:
    found = told(imported(tmp_path, "dark", "dark", "dark", **policy))
    assert set(found) == {"scores-unreleased"}
    assert words in found["scores-unreleased"]


def test_an_import_of_enough_warns_of_nothing(tmp_path: Path) -> None:
    assert told(imported(tmp_path, *["dark", "bright"] * 3)) == {}
