import json
import re
import secrets
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from client.policy import SitePolicy
from client.privacy.accounting import Budget
from client.privacy.ledger import PrivacyLedger
from client.privacy.ledger_lines import RoundRequest
from client.settings import SiteSettings
from client.site_folder import create_site_folder
from client.site_recipes import keep_recipe
from common.database import open_database
from common.errors import ConfigurationError
from common.signing import SigningKey
from deploy.commands.site_budget import budget, read_budget
from tests.client.rounds import TOY
from tests.deploy.typer_app import single_command

BUDGET = Budget(8.0, 16.0, 1e-5, 0.5)


@pytest.fixture
def site(tmp_path: Path) -> SiteSettings:
    return create_site_folder(
        tmp_path / "north",
        name="north",
        task="toy",
        plan_keys=[SigningKey.generate().verify_key.pem()],
        policy=SitePolicy(allowed_recipes=("toy",), declared_patients=40),
    )


def spend(site: SiteSettings, campaign: str, *, without_privacy: bool = False) -> None:
    request = RoundRequest(
        campaign=campaign,
        round=1,
        nonce=secrets.token_hex(32),
        rounds_left=2,
        sampling_rate=0.05,
        steps=10,
        max_grad_norm=1.0,
    )
    with PrivacyLedger.open(site) as ledger:
        if without_privacy:
            ledger.reserve_without_privacy(request, delta=1e-5)
        else:
            ledger.outcome(ledger.reserve(request, BUDGET), "trained")


def call(site: SiteSettings, *flags: str) -> tuple[int, str]:
    result = CliRunner().invoke(single_command(budget), ["--site", str(site.folder), *flags])
    return result.exit_code, result.stdout


def test_nothing_spent(site: SiteSettings) -> None:
    document = read_budget(site.folder)
    assert (document.life.rdp, document.life.prv, document.life.left) == (0.0, 0.0, 16.0)
    assert document.chain_whole
    assert document.lines == ()


def test_one_json_document(site: SiteSettings) -> None:
    spend(site, "spring")
    code, output = call(site, "--json")
    assert code == 0
    document = json.loads(output)
    life = document["life"]
    assert document["site"] == "north"
    assert 0 < life["prv"] < life["rdp"] < 8
    assert life["left"] == pytest.approx(16 - life["rdp"])
    assert document["campaigns"][0]["epsilon"]["rdp"] == life["rdp"]
    assert document["campaigns"][0]["rounds"] == 1
    assert [line["kind"] for line in document["lines"]] == ["reserve", "outcome"]
    assert document["guaranteed"] is True


def test_rounds_without_privacy_are_told(site: SiteSettings) -> None:
    spend(site, "spring")
    spend(site, "study", without_privacy=True)
    document = read_budget(site.folder)
    assert not document.guaranteed
    assert document.campaigns[1].without_privacy == 1
    code, output = call(site)
    assert code == 0
    assert "1 rounds ran without privacy" in output


def test_what_a_planned_campaign_would_cost(site: SiteSettings) -> None:
    keep_recipe(site, TOY)
    spend(site, "spring")
    before = read_budget(site.folder).lines
    planned = read_budget(site.folder, rounds=5, epsilon=4.0).planned
    assert planned is not None
    assert planned.affordable
    assert 3.9 < (planned.epsilon_campaign or 0) <= 4.0 < (planned.epsilon_life or 0)
    code, output = call(site, "--rounds", "5", "--epsilon", "4")
    assert code == 0
    assert "A campaign of 5 rounds would train with noise multiplier" in output
    assert read_budget(site.folder).lines == before


def test_a_planned_campaign_that_this_site_could_not_score_is_told(site: SiteSettings) -> None:
    keep_recipe(site, TOY)
    document = read_budget(site.folder, rounds=5, epsilon=4.0)
    assert document.planned is not None
    assert not document.planned.scores
    assert "It could not score the model here" in call(site, "--rounds", "5")[1]


def test_a_campaign_that_is_not_covered(site: SiteSettings) -> None:
    keep_recipe(site, TOY)
    text = site.policy.read_text().replace("epsilon_life = 16.0", "epsilon_life = 0.001")
    site.policy.write_text(text)
    planned = read_budget(site.folder, rounds=5).planned
    assert planned is not None
    assert (planned.affordable, planned.noise_multiplier) == (False, None)
    assert planned.code == "budget-exhausted"
    assert "(budget-exhausted): The site's privacy budget" in call(site, "--rounds", "5")[1]


@pytest.mark.parametrize(
    ("changed", "by", "code"),
    [
        ("declared_patients = 40", "", "patients-undeclared"),
        ("declared_patients = 40", "declared_patients = 200000", "delta-too-large"),
        ("paused = false", "paused = true", "site-paused"),
        ('"toy"', '"other"', "recipe-not-allowed"),
    ],
)
def test_what_the_policy_refuses_has_no_price(
    site: SiteSettings, changed: str, by: str, code: str
) -> None:
    keep_recipe(site, TOY)
    written = site.policy.read_text()
    assert changed in written
    site.policy.write_text(written.replace(changed, by))
    planned = read_budget(site.folder, rounds=20, epsilon=4.0).planned
    assert planned is not None
    assert (planned.affordable, planned.code, planned.noise_multiplier) == (False, code, None)
    status, output = call(site, "--rounds", "20", "--epsilon", "4")
    assert status == 0
    assert f"This site would refuse a campaign of 20 rounds ({code})" in output
    assert "would train" not in output


def test_a_changed_ledger_is_exit_code_3(site: SiteSettings) -> None:
    spend(site, "spring")
    engine = open_database(site.database)
    with engine.begin() as connection:
        connection.execute(text("UPDATE privacy_ledger SET noise_multiplier = 50"))
    engine.dispose()
    code, output = call(site, "--json")
    assert code == 3
    assert json.loads(output)["chain_whole"] is False
    assert "Line 1" in json.loads(output)["fault"]


def test_no_site(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        read_budget(tmp_path)


def test_a_life_with_less_left_than_a_campaign_is_told(site: SiteSettings) -> None:
    spend(site, "spring")
    assert "none can spend more" not in call(site)[1]
    policy = site.folder / "policy.toml"
    told = policy.read_text(encoding="utf-8")
    policy.write_text(re.sub(r"(?m)^#? *epsilon_life = .*$", "epsilon_life = 6.0", told))
    assert "none can spend more" in call(site)[1]
