"""The site's own head in service: through releases that come, are held, and answer together."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.personalisation.head import PersonalHead, PersonalHeads
from client.releases.cache import LocalRelease
from client.settings import SiteSettings
from tests.client.personalisation.test_personalise import favouring
from tests.client.serving import (
    FakeReleases,
    ServedSite,
    picture,
    release,
    served_site,
    site_settings,
)

HOLD = '[releases]\non_release = "hold"\n'
ACCEPT = '[releases]\non_release = "accept"\n'


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[int, LocalRelease]:
    folder = tmp_path_factory.mktemp("releases")
    return {version: release(folder, version) for version in (1, 2)}


def site_with_head(
    folder: Path, version: LocalRelease, *, policy: str = HOLD, **fields: object
) -> tuple[SiteSettings, PersonalHead]:
    settings = site_settings(folder, **fields)
    settings.policy.write_text(policy)
    head = favouring("mel", version.manifest)
    PersonalHeads(settings).keep(head)
    return settings, head


def answering(site: ServedSite) -> tuple[int, str | None]:
    told = site.call("GET", "/model").json()
    return told["version"], told["head_digest"]


def test_a_release_that_is_judged_and_held_takes_no_head_from_the_one_that_answers(
    tmp_path: Path, versions: dict[int, LocalRelease]
) -> None:
    settings, head = site_with_head(tmp_path, versions[1])
    releases = FakeReleases(versions[1])
    with served_site(settings, releases) as site:
        site.publish(versions[2])
        assert site.services.watcher.desk.state.newest(2) is not None
        assert answering(site) == (1, head.digest)
    with served_site(settings, releases) as site:
        assert answering(site) == (1, head.digest)


@pytest.mark.parametrize("back", [False, True], ids=["held", "rolled-back"])
def test_a_head_goes_and_comes_while_the_newest_release_is_not_the_one_that_answers(
    tmp_path: Path, versions: dict[int, LocalRelease], *, back: bool
) -> None:
    settings, head = site_with_head(tmp_path, versions[1], policy=ACCEPT if back else HOLD)
    heads = PersonalHeads(settings)
    with served_site(settings, FakeReleases(versions[1])) as site:
        watcher = site.services.watcher
        site.publish(versions[2])
        if back:
            watcher.roll_back(by="it-anna")
            assert answering(site) == (1, None), "it went with the release that came after"
            heads.keep(head)
            watcher.poll()
        assert answering(site) == (1, head.digest)
        heads.forget()
        assert watcher.served.to_load_again
        watcher.poll()
        assert answering(site) == (1, None)
        assert not watcher.served.to_load_again
        heads.keep(head)
        watcher.poll()
        assert answering(site) == (1, head.digest)


def test_a_head_goes_with_the_release_that_takes_its_place(
    tmp_path: Path, versions: dict[int, LocalRelease]
) -> None:
    settings, _ = site_with_head(tmp_path, versions[1], policy=ACCEPT)
    with served_site(settings, FakeReleases(versions[1])) as site:
        site.publish(versions[2])
        assert answering(site) == (2, None)
    assert PersonalHeads(settings).find(versions[1].manifest.model_digest) is None


def test_older_releases_answer_together_without_a_head_and_cost_the_newest_none(
    tmp_path: Path, versions: dict[int, LocalRelease]
) -> None:
    settings, _ = site_with_head(tmp_path, versions[1], policy=ACCEPT, inference={"ensemble": 2})
    releases = FakeReleases(versions[1])
    heads = PersonalHeads(settings)
    with served_site(settings, releases) as site:
        site.publish(versions[2])
        (member,) = site.services.holder.require().members
        assert (member.version, member.head_digest) == (1, None)
        head = favouring("nv", versions[2].manifest)
        heads.keep(head)
        site.services.watcher.poll()
        assert answering(site) == (2, head.digest)
    with served_site(settings, releases) as site:
        assert answering(site) == (2, head.digest)
        assert [m.version for m in site.services.holder.require().members] == [1]


def test_a_head_that_is_gone_answers_no_more_though_its_release_is_gone_from_the_disk(
    tmp_path: Path, versions: dict[int, LocalRelease]
) -> None:
    settings, _ = site_with_head(tmp_path, versions[1])
    with served_site(settings, FakeReleases(versions[1])) as site:
        watcher = site.services.watcher
        site.releases.kept.clear()
        PersonalHeads(settings).forget()
        watcher.poll()
        assert site.predict(picture()).json()["code"] == "no-model"
        site.publish(versions[1])
        assert answering(site) == (1, None)


def test_a_plain_release_goes_on_where_it_cannot_take_up_a_head_and_asks_nobody_every_second(
    tmp_path: Path, versions: dict[int, LocalRelease]
) -> None:
    settings, head = site_with_head(tmp_path, versions[1])
    heads = PersonalHeads(settings)
    heads.forget()
    with served_site(settings, FakeReleases(versions[1])) as site:
        watcher = site.services.watcher
        kept = list(site.releases.kept)
        site.releases.kept.clear()
        heads.keep(head)
        watcher.poll()
        assert answering(site) == (1, None)
        assert not watcher.served.to_load_again, "the next poll tries again, not the next second"
        site.releases.kept += kept
        watcher.poll()
        assert answering(site) == (1, head.digest)
