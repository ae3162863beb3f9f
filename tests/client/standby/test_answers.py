"""The service tells its parent that a release answers, and not before."""

from __future__ import annotations

from pathlib import Path

from client.forking import ANSWERS
from tests.client.serving import FakeReleases, release, served_site, site_settings


def test_the_parent_hears_of_the_first_release_that_answers(tmp_path: Path) -> None:
    ANSWERS.take_back()
    with served_site(site_settings(tmp_path), FakeReleases()) as site:
        assert not ANSWERS, "there is no release yet"
        site.publish(release(tmp_path, 1, favours="mel"))
        assert ANSWERS
