"""What stands on the pages, by role, without a browser."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from client.access.caller import Role
from client.api.pages import amount, clock
from client.pages.frame import PAGES
from client.pages.release_notes import release_notes
from client.reading.parts import Interval, SiteOperatingPoint
from client.reading.profile import SiteProfile
from client.releases.cache import LocalRelease
from common.evaluation import Metrics
from common.release import GateCheck, Lineage, ReleaseManifest, ReleaseMetrics, SiteContribution
from tests.client.pages.doors import as_caller
from tests.client.serving import RECIPE, ServedSite

ALLOWED = {
    Role.clinician: {"/", "/review-queue", "/outcomes"},
    Role.it: {"/it"},
    Role.auditor: {"/outcomes", "/it"},
}
INLINE = re.compile(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:")


@pytest.mark.parametrize("role", list(Role))
def test_each_role_finds_its_own_pages_and_no_other(site: ServedSite, role: Role) -> None:
    with as_caller(site.app, role):
        for page in PAGES:
            answer = site.call("GET", page.address)
            if page.address == "/" and role is not Role.clinician:
                assert answer.status_code == 303
                assert answer.headers["location"] in ALLOWED[role]
                continue
            assert answer.status_code == (200 if page.address in ALLOWED[role] else 403)
            menu = re.search(r"<nav.*?</nav>", answer.text, re.DOTALL)
            assert menu is not None
            assert set(re.findall(r'href="([^"]+)"', menu[0])) == ALLOWED[role]
        assert site.call("GET", "/model-version").status_code == 200


def test_who_is_signed_in_is_named_and_can_sign_out(site: ServedSite) -> None:
    assert "Sign out" not in site.call("GET", "/").text  # open access: there is nobody to sign out


def test_no_page_has_anything_inline(site: ServedSite) -> None:
    """The policy would block it; a page that needs it would be half dead and nobody would know."""
    for address in (*(page.address for page in PAGES), "/model-version"):
        text = site.call("GET", address).text
        assert not re.search(
            r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", text
        )
        for name in re.findall(r'(?:src|href)="(/static/[^"]+)"', text):
            assert site.call("GET", name).status_code == 200, name


def test_scripts_import_only_what_is_there(site: ServedSite) -> None:
    seen, waiting = set(), {"page.js", "review.js", "outcomes.js", "it.js", "frame.js"}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        answer = site.call("GET", f"/static/{name}")
        assert answer.status_code == 200, name
        assert "javascript" in answer.headers["content-type"]
        waiting |= set(re.findall(r'from "\./([\w.]+)"', answer.text)) - seen
    assert {"why.js", "similar.js", "history.js", "monitoring.js"} <= seen


def test_classes_are_named_by_the_sites_own_words(site: ServedSite) -> None:
    assert "Melanoma (mel)" in site.call("GET", "/").text
    settings = site.services.settings
    settings.recipes.mkdir(exist_ok=True)
    own = RECIPE.model_copy(update={"display": (("mel", "Maligne <b>Melanom</b>"),)})
    (settings.recipes / "dermoscopy.toml").write_text(own.toml())
    text = site.call("GET", "/").text
    assert "Maligne &lt;b&gt;Melanom" in text
    assert "<b>Melanom" not in text
    wordless = RECIPE.model_copy(update={"display": ()})
    (settings.recipes / "dermoscopy.toml").write_text(wordless.toml())
    assert "Melanoma" not in site.call("GET", "/").text, "the release's words, not the site's"
    (settings.recipes / "dermoscopy.toml").write_text("no recipe at all")
    assert "Melanoma (mel)" in site.call("GET", "/").text


def figures(auroc: float) -> Metrics:
    rates = tuple(auroc - 0.1 for _ in RECIPE.classes)
    return Metrics(
        classes=RECIPE.classes,
        count=50,
        macro_auroc=auroc,
        auroc=rates,
        accuracy=None,
        balanced_accuracy=auroc,
        majority_baseline=0.5,
        sensitivity=rates,
    )


def manifest(melanoma: LocalRelease, **lineage: object) -> ReleaseManifest:
    fields = {"campaign": "autumn", "candidate": "autumn", "rounds": 12, **lineage}
    checks = (GateCheck(name="macro-auroc", passed=False, figure=0.8, limit=0.9),)
    return melanoma.manifest.model_copy(
        update={
            "version": 4,
            "lineage": Lineage.model_validate(fields),
            "metrics": ReleaseMetrics(candidate=figures(0.8), champion=figures(0.75)),
            "gate": checks,
        }
    )


def test_the_notes_say_what_changed(melanoma: LocalRelease) -> None:
    sites = (SiteContribution(site="west", rounds=9), SiteContribution(site="east", rounds=12))
    notes = release_notes(manifest(melanoma, base_release=3, sites=sites), RECIPE)
    assert notes.story == "Trained on from version 3, in 12 rounds at 2 hospitals."
    assert notes.sites == ("east", "west")
    assert notes.failed == 1
    named = {figure.name: figure for figure in notes.figures}
    assert "Accuracy" not in named  # neither model has one
    assert named["Macro AUROC"].change == pytest.approx(0.05)
    assert named["Sensitivity for Melanoma (mel)"].before == pytest.approx(0.65)


def test_the_notes_of_a_return_and_of_a_first_model(melanoma: LocalRelease) -> None:
    back = release_notes(manifest(melanoma, restores=2, replaces=3), RECIPE)
    assert back.story == "A return to the model of version 2, in place of version 3."
    assert "from the beginning, in 12 rounds." in release_notes(manifest(melanoma), RECIPE).story
    bare = release_notes(melanoma.manifest, RECIPE)
    assert (bare.figures, bare.checks, bare.sites) == ((), (), ())


def test_of_two_thresholds_the_page_says_which_decides_here(site: ServedSite) -> None:
    engine = site.services.holder.require()
    alone = site.call("GET", "/model-version").text
    assert "The release's threshold</dt><dd>30.0 %</dd>" in alone
    assert "own threshold" not in alone
    certain = Interval(value=0.95, low=0.9, high=1.0, patients=40)
    point = SiteOperatingPoint(
        threshold=0.125, wanted_sensitivity=0.95, sensitivity=certain, specificity=None
    )
    engine.profile = SiteProfile(
        model_digest=engine.digest,
        recipe_digest=engine.recipe.digest,
        settings_digest="0" * 64,
        holdout_digest="1" * 64,
        holdout_patients=40,
        made_at=datetime(2026, 11, 21, tzinfo=UTC),
        operating_point=point,
    )
    text = site.call("GET", "/model-version").text
    assert "This site's own threshold, of the verdict</dt><dd>12.5 %</dd>" in text
    assert "The release's threshold</dt><dd>30.0 %; it decides nothing here</dd>" in text


def test_times_and_sizes_as_people_read_them() -> None:
    assert clock(None) == "–"
    assert clock(datetime(2026, 3, 1, 12, 30, tzinfo=UTC)) == "2026-03-01 12:30 UTC"
    sizes = [amount(n) for n in (0, 999, 1500, 123_456, 5e9, 2e12, 3e15)]
    assert sizes == ["0 B", "999 B", "1.5 kB", "123 kB", "5.0 GB", "2.0 TB", "3000.0 TB"]
