"""`wardround audit` and `wardround site outbox` on a federation with fakes at both ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from flwr.app import Error, Message, RecordDict
from sqlalchemy import text
from typer.testing import CliRunner

from client.audit import open_site_audit
from client.policy import SitePolicy
from client.settings import SiteSettings
from client.site_folder import create_site_folder
from common.audit_entries import Left, PlanAccepted, PredictionMade, ReleaseInstalled
from common.database import open_database
from common.errors import ConfigurationError
from common.plan import RoundPlan
from common.records import SiteReply
from common.release import ModelFile, model_target
from common.signing import SigningKey
from common.wire import content_of, records_to_reply, records_to_request
from deploy.audit_export import read_export
from deploy.cli import app
from server.coordinator_folder import create_coordinator_folder
from tests.fakes import FakeSite, scaled
from tests.server.campaigns import Coordinator

SITES = ("north", "south")
REQUEST = "0123456789abcdef"


@dataclass
class LoggedSite(FakeSite):
    """A fake site that writes down what leaves, as an outbox does; ``afterwards`` changes it."""

    settings: SiteSettings | None = None
    afterwards: Callable[[SiteReply, RoundPlan], RecordDict] | None = None

    def answer(self, message: Message) -> RecordDict | Error | None:
        answer = super().answer(message)
        if not isinstance(answer, RecordDict) or message.metadata.message_type == "query":
            return answer
        signed, _ = records_to_request(message.content)
        plan, reply = RoundPlan.model_validate_json(signed.payload), records_to_reply(answer)
        where = {"campaign": plan.campaign, "round": plan.round, "nonce": plan.nonce}
        content = content_of(answer)
        assert self.settings is not None
        with open_site_audit(self.settings) as log:
            accepted = PlanAccepted(**where, purpose=plan.purpose, plan_digest=signed.digest)
            left = Left(
                contents=("update",) if reply.update is not None else ("receipt",),
                destination="localhost:1",
                bytes=content.bytes,
                sha256=content.sha256,
                update_digest=reply.update.digest if reply.update is not None else None,
                epsilon_campaign=reply.receipt.epsilon_campaign if reply.receipt else None,
                **where,
            )
            log.append(accepted, left)
        if self.afterwards is not None and reply.update is not None:
            return self.afterwards(reply, plan)
        return answer


@dataclass(frozen=True)
class Federation:
    coordinator: Coordinator
    sites: dict[str, SiteSettings]
    campaign: str

    def verify(self, *arguments: str) -> tuple[int, str]:
        folders = [part for s in self.sites.values() for part in ("--site", str(s.folder))]
        own = ["--coordinator", str(self.coordinator.settings.folder)]
        return call("audit", "verify", *folders, *own, *arguments)


def call(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def federate(
    folder: Path, **afterwards: Callable[[SiteReply, RoundPlan], RecordDict]
) -> Federation:
    key = SigningKey.generate().verify_key.pem()
    policy = SitePolicy(allowed_recipes=("toy",))
    settings = {
        name: create_site_folder(
            folder / name, name=name, task="toy", plan_keys=[key], policy=policy
        )
        for name in SITES
    }
    fakes: list[FakeSite] = [
        LoggedSite(name, settings=settings[name], afterwards=afterwards.get(name)) for name in SITES
    ]
    coordinator = Coordinator(folder, fakes)
    campaign = coordinator.create(rounds=2, epsilon=8.0)
    candidate = coordinator.run(campaign)
    file = ModelFile(name=model_target(candidate.model_digest), sha256="0" * 64, bytes=1)
    if candidate.state == "approved":
        coordinator.registry.record_release(candidate.draft.released(1, file))
    with open_site_audit(settings["north"]) as log:
        installed = ReleaseInstalled(version=1, model_digest=candidate.model_digest)
        digest = candidate.model_digest
        made = PredictionMade(request_id=REQUEST, version=1, model_digest=digest, by="dr-house")
        log.append(installed, made)
    return Federation(coordinator, settings, campaign.id)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return federate(tmp_path_factory.mktemp("audit"))


def test_an_honest_federation_is_whole(federation: Federation) -> None:
    code, output = federation.verify("--json")
    document = json.loads(output)
    assert (code, document["differences"]) == (0, []), document["logs"]
    assert document["whole"] is True
    assert {log["name"] for log in document["logs"]} == {"north", "south", "coordinator"}
    assert all(log["lines"] > 0 for log in document["logs"])
    code, output = federation.verify()
    assert code == 0
    assert "nothing is missing" in output


def test_a_prediction_is_followed_to_the_receipts(federation: Federation) -> None:
    code, output = federation.verify("--prediction", REQUEST, "--json")
    assert code == 0
    trace = json.loads(output)["trace"]
    assert trace["prediction"]["site"] == "north"
    assert trace["prediction"]["installed_at"]
    (campaign,) = trace["campaigns"]
    assert campaign["campaign"] == federation.campaign
    assert [r["number"] for r in campaign["rounds"]] == [1, 2]
    receipts = [receipt for r in campaign["rounds"] for receipt in r["receipts"]]
    assert {receipt["site"] for receipt in receipts} == set(SITES)
    assert all(receipt["site_confirms"] for receipt in receipts)
    assert all(receipt["epsilon_campaign"] > 0 for receipt in receipts)
    code, output = federation.verify("--prediction", REQUEST)
    assert federation.campaign in output
    assert "says so" in output


def test_a_site_alone_shows_its_part(federation: Federation) -> None:
    folder = str(federation.sites["north"].folder)
    code, output = call("audit", "verify", "--site", folder, "--prediction", REQUEST, "--json")
    document = json.loads(output)
    assert code == 0
    assert document["trace"]["prediction"]["version"] == 1
    assert document["trace"]["prediction"]["by"] == "dr-house"
    assert document["trace"]["campaigns"] == []


def test_an_unknown_prediction(federation: Federation) -> None:
    with pytest.raises(Exception, match="No audit log that was given has this prediction"):
        federation.verify("--prediction", "another")


def test_what_left(federation: Federation) -> None:
    folder = str(federation.sites["south"].folder)
    code, output = call("site", "outbox", "--site", folder, "--json")
    document = json.loads(output)
    assert code == 0
    assert document["totals"]["updates"] == 2
    assert document["totals"]["bytes"] == sum(e["bytes"] for e in document["entries"]) > 0
    assert {e["campaign"] for e in document["entries"]} == {federation.campaign}
    code, output = call("site", "outbox", "--site", folder)
    assert code == 0
    assert "2 updates" in output


def test_an_export_stands_in_for_a_folder(federation: Federation, tmp_path: Path) -> None:
    file = tmp_path / "north.json"
    folder = str(federation.sites["north"].folder)
    assert call("audit", "export", "--site", folder, "-o", str(file))[0] == 0
    own = ["--coordinator", str(federation.coordinator.settings.folder)]
    assert call("audit", "verify", "--export", str(file), *own)[0] == 0
    assert REQUEST not in file.read_text()  # predictions are not the coordinator's to know
    assert "dr-house" not in file.read_text()
    export = read_export(file)
    for changed in (
        export.model_copy(update={"lines": export.lines[1:]}),
        export.model_copy(update={"lines": export.lines[::-1]}),
        export.model_copy(update={"head": None}),
        export.model_copy(
            update={
                "lines": (
                    export.lines[0].model_copy(
                        update={"body": export.lines[0].body.replace('"round":1', '"round":2')}
                    ),
                    *export.lines[1:],
                )
            }
        ),
    ):
        file.write_text(changed.model_dump_json())
        assert call("audit", "verify", "--export", str(file), *own)[0] == 3
    file.write_text("{}")
    with pytest.raises(Exception, match="is no file of"):
        call("audit", "verify", "--export", str(file), *own)


def test_nothing_to_verify() -> None:
    with pytest.raises(Exception, match="nothing to verify"):
        call("audit", "verify")


@pytest.mark.parametrize("coordinated", [True, False])
def test_a_folder_that_is_nobodys_is_not_passed_over(
    federation: Federation, tmp_path: Path, *, coordinated: bool
) -> None:
    own = str(federation.coordinator.settings.folder)
    given = ["--coordinator", own] if coordinated else ["--folder", own]
    with pytest.raises(ConfigurationError, match="neither a site's nor") as caught:
        call("audit", "verify", *given, "--folder", str(tmp_path / "nrth"), "--json")
    assert caught.value.code == "usage"


@pytest.mark.parametrize("flag", ["--coordinator", "--folder"])
def test_one_coordinator_at_a_time(federation: Federation, tmp_path: Path, flag: str) -> None:
    own = federation.coordinator.settings.folder
    other = create_coordinator_folder(tmp_path / "other", releases=False).folder
    with pytest.raises(ConfigurationError, match="different coordinators") as caught:
        call("audit", "verify", flag, str(own), "--folder", str(other))
    assert caught.value.code == "usage"
    code, output = call("audit", "verify", flag, str(own.parent), "--folder", str(own), "--json")
    assert (code, len(json.loads(output)["logs"])) == (0, 1), "it is the same one, named twice"


def test_a_reply_that_was_changed_on_the_way_is_named(tmp_path: Path) -> None:
    federation = federate(tmp_path, south=scaled(3.0))
    code, output = federation.verify("--json")
    document = json.loads(output)
    assert code == 3
    assert not any(log["faults"] for log in document["logs"])
    assert {(d["site"], d["code"]) for d in document["differences"]} == {("south", "reply-differs")}
    code, output = federation.verify()
    assert code == 3
    assert "reply-differs" in output


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit_log SET body = replace(body, 'localhost', 'elsewhere') WHERE kind = 'left'",
        "DELETE FROM audit_log WHERE sequence = 2",
        "DELETE FROM audit_log WHERE sequence = (SELECT max(sequence) FROM audit_log)",
    ],
)
def test_a_changed_log_is_exit_code_3(tmp_path: Path, change: str) -> None:
    federation = federate(tmp_path)
    site = federation.sites["north"]
    engine = open_database(site.database)
    with engine.begin() as connection:
        connection.execute(text(change))
    engine.dispose()
    code, output = federation.verify()
    assert code == 3
    assert "north: Line" in output
    code, output = call("site", "outbox", "--site", str(site.folder))
    assert code == 3
    assert "Line" in output
