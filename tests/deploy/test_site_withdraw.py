import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.settings import SiteSettings
from common.errors import ConfigurationError, InputRefused, NotFound
from deploy.commands.site_withdraw import withdraw
from tests.client.rounds import make_site
from tests.deploy.typer_app import single_command


@pytest.fixture
def site(tmp_path: Path) -> SiteSettings:
    return make_site(tmp_path / "site", patients=3, holdout=1)


def call(site: SiteSettings, *flags: str, typed: str = "") -> str:
    arguments = ["--site", str(site.folder), *flags]
    result = CliRunner().invoke(
        single_command(withdraw), arguments, input=typed, catch_exceptions=False
    )
    assert result.exit_code == 0
    return result.stdout


def test_one_json_document(site: SiteSettings) -> None:
    document = json.loads(call(site, "--patient", "train-1", "--json"))
    assert (document["cases"], document["side"], document["campaigns"]) == (1, "train", [])


def test_a_person_reads_it_and_never_the_id(site: SiteSettings) -> None:
    output = call(site, "--patient", "-", typed="train-1\n")
    assert "1 case withdrawn" in output
    assert "train-1" not in output
    assert "held out" in call(site, "--patient", "holdout-0")


def test_where_nothing_is_piped_in_nobody_is_asked(site: SiteSettings) -> None:
    with pytest.raises(InputRefused) as caught:
        call(site, "--patient", "-", typed="")
    assert caught.value.code == "patient-missing"


def test_an_unknown_patient_is_not_repeated(site: SiteSettings) -> None:
    with pytest.raises(NotFound) as caught:
        call(site, "--patient", "Jane Doe")
    assert "Jane" not in caught.value.line()


def test_exactly_one_of_both(site: SiteSettings) -> None:
    for flags in ((), ("--patient", "a", "--case", "b")):
        with pytest.raises(ConfigurationError):
            call(site, *flags)


def test_what_could_not_be_done_is_told_beside_the_report(site: SiteSettings) -> None:
    (site.data / "audit-head.json").write_text("no head")
    arguments = ["--site", str(site.folder), "--patient", "train-1"]
    result = CliRunner().invoke(single_command(withdraw), arguments, catch_exceptions=False)
    assert result.exit_code == 1
    assert "1 case withdrawn" in result.output
