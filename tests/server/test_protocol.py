"""The protocol: read from TOML, locked into the campaign, and held against the audit log."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from common.audit import AuditLog
from common.audit_entries import ProtocolLocked
from common.database import migrate, open_database
from common.errors import ConfigurationError
from common.recipe import ReleaseGateSpec
from server.candidates import record_candidate
from server.protocol import GateProtocol, default_protocol, load_protocol, locked_digest
from server.registry.records import Campaign, CampaignSettings
from server.registry.registry import MIGRATIONS, Registry
from server.release_gate import failures
from tests.fakes import toy_recipe
from tests.server.registry.test_registry import DIGEST, SETTINGS
from tests.server.test_release_gate import GOOD, failed

RECIPE = toy_recipe()
FILE = """
[protocol]
name = "yearly"
version = "2"
intended_change = "Weights alone."
approver = "Head of radiology"
[limits]
macro_auroc_floor = 0.7
minimum_sites = 2
not_required = ["worst-subgroup"]
"""


def write(folder: Path, content: str) -> Path:
    path = folder / "protocol.toml"
    path.write_text(content)
    return path


def test_a_file_is_read_and_its_digest_tells_every_change(tmp_path: Path) -> None:
    found = load_protocol(write(tmp_path, FILE), RECIPE)
    assert found.limits.macro_auroc_floor == 0.7
    assert found.limits.not_required == ("worst-subgroup",)
    assert load_protocol(write(tmp_path, FILE), RECIPE).digest == found.digest
    for old, new in (("0.7", "0.71"), ("Head", "Chief"), ("alone", "and head"), ('"2"', '"3"')):
        assert load_protocol(write(tmp_path, FILE.replace(old, new)), RECIPE).digest != found.digest


def test_a_limit_that_the_file_forgets_is_the_recipes(tmp_path: Path) -> None:
    limits = ReleaseGateSpec(
        wanted_sensitivity=0.9, worst_site_auroc_floor=0.6, macro_auroc_floor=0.9
    )
    strict = RECIPE.model_copy(update={"release": limits})
    found = load_protocol(write(tmp_path, FILE), strict).limits
    assert (found.wanted_sensitivity, found.worst_site_auroc_floor) == (0.9, 0.6)
    assert (found.macro_auroc_floor, found.minimum_sites) == (0.7, 2)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[protocol]\n",
        "[limits]\n",
        "protocol = 3\n[limits]\n",
        FILE[: FILE.index("[limits]")].replace("[protocol]", "limits = 3\n[protocol]"),
        FILE.replace("worst-subgroup", "worst-subgruop"),
        FILE.replace("worst-subgroup", "accuracy-floor"),
        FILE + "macro_auroc_floor = 0.6\n",
        FILE + "unknown = 1\n",
        FILE.replace("0.7", "1.7"),
        FILE.replace('approver = "Head of radiology"\n', ""),
        FILE + "[more]\n",
        FILE.replace("Weights alone.", "x" * 70_000),
    ],
)
def test_a_faulty_file_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_protocol(write(tmp_path, content), RECIPE)
    assert caught.value.code == "protocol-malformed"
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_protocol(tmp_path / "none.toml", RECIPE)


@pytest.fixture
def registry(sqlite_database_url: str) -> Iterator[Registry]:
    engine = open_database(sqlite_database_url)
    migrate(engine, MIGRATIONS)
    registry = Registry(engine)
    yield registry
    registry.close()


def begun(registry: Registry, **limits: object) -> Campaign:
    recipe = toy_recipe()
    protocol = default_protocol(recipe).model_copy(
        update={"limits": ReleaseGateSpec.model_validate(limits)}
    )
    settings = SETTINGS.model_copy(update={"protocol": protocol})
    return registry.add_campaign(recipe, settings, initial_digest=DIGEST)


def judged(registry: Registry, campaign: Campaign) -> tuple[str, ...]:
    candidate = record_candidate(registry, campaign, GOOD, model_digest=DIGEST, rounds=1)
    assert campaign.settings.protocol is not None
    assert candidate.draft.protocol == campaign.settings.protocol.digest
    return failures(candidate.draft.gate)


def test_the_gate_judges_by_the_locked_limits(registry: Registry) -> None:
    assert judged(registry, begun(registry)) == ()
    # Stricter than the recipe, which asks for 0.5.
    assert judged(registry, begun(registry, macro_auroc_floor=0.999)) == ("macro-auroc-floor",)


def test_limits_that_were_changed_after_the_start_are_refused(registry: Registry) -> None:
    found = begun(registry, macro_auroc_floor=0.999)
    with registry._sessions.writing() as session:
        session.execute(
            text("UPDATE campaigns SET settings = replace(settings, '0.999', '0.5') WHERE id = :i"),
            {"i": found.id},
        )
    changed = registry.campaign(found.id)
    assert changed.settings.protocol is not None
    assert changed.settings.protocol.limits.macro_auroc_floor == 0.5
    assert judged(registry, changed) == ("protocol-locked",)


@pytest.mark.parametrize("where", ["append_in", "remember"])
def test_killed_in_between_a_campaign_has_its_protocol_or_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'registry.db'}")
    migrate(engine, MIGRATIONS)
    registry = Registry(engine, anchor=tmp_path / "head.json")
    first = begun(registry)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(AuditLog, where, killed)
        with pytest.raises(KeyboardInterrupt):
            begun(registry, macro_auroc_floor=0.9)
    registry.close()
    again = Registry(open_database(f"sqlite:///{tmp_path / 'registry.db'}"))
    found = [c for c in again.campaigns() if c.id != first.id]
    assert len(found) == (where == "remember")
    for campaign in found:
        assert campaign.settings.protocol is not None
        assert locked_digest(again.audit, campaign.id) == campaign.settings.protocol.digest
    after = begun(again)
    assert locked_digest(again.audit, after.id) is not None
    again.close()


def test_a_second_line_in_the_audit_log_changes_nothing(registry: Registry) -> None:
    found = begun(registry)
    registry.audit.append(ProtocolLocked(campaign=found.id, protocol="other", digest="ab" * 32))
    assert found.settings.protocol is not None
    assert locked_digest(registry.audit, found.id) == found.settings.protocol.digest
    assert locked_digest(registry.audit, "none") is None


def test_a_protocol_that_was_taken_away_is_missed() -> None:
    locked = replace(GOOD, protocol=None, locked="ab" * 32)
    assert failed(locked) == ("protocol-locked",)
    never: GateProtocol = default_protocol(GOOD.recipe)
    assert failed(replace(GOOD, protocol=never, locked=None)) == ("protocol-locked",)
    assert failed(replace(GOOD, protocol=never, locked=never.digest)) == ()


def test_settings_of_older_versions_have_none() -> None:
    assert CampaignSettings.model_validate_json(
        SETTINGS.model_dump_json(exclude={"protocol"})
    ).protocol is None  # fmt: skip
