"""The JSON documents that the commands print with ``--json``, as JSON Schema (draft 2020-12).

``python -m deploy.schemas docs/schemas`` writes them; ``tests/deploy/test_schemas.py`` fails when
a document and its schema in the docs differ.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import BaseModel

from client.backup.making import BackupMade
from client.backup.restoring import Restored
from client.intake.summary import ImportSummary
from client.personalisation.trial import Personalised
from client.releases.documents import SiteReleasesDocument
from client.withdrawal import Withdrawal
from common.release import ReleaseManifest
from deploy.audit_report import AuditReport
from deploy.commands.audit import Exported
from deploy.commands.campaign_documents import CampaignStanding, StartedCampaign
from deploy.commands.export_mlflow import ExportedCampaign
from deploy.commands.gateway import RenderedGateway
from deploy.commands.preflight import PreflightDocument
from deploy.commands.release import RolloutDocument
from deploy.commands.report import WrittenReport
from deploy.commands.site_access import KeysDocument, NewKeyDocument, UsersDocument
from deploy.commands.site_budget import BudgetDocument
from deploy.commands.site_outbox import OutboxDocument
from deploy.commands.site_pause import PauseDocument
from deploy.commands.site_views import ViewsDocument
from deploy.commands.trigger import TriggerResult, Triggers
from deploy.commands.user import AccountsDocument, TokenDocument
from deploy.console import ErrorDocument
from deploy.demo.report import DemoReport
from deploy.pki.expiry import PkiStatus
from deploy.pki.plan_keys import RotatedPlanKey
from deploy.pki.renewal import Renewed, Revoked
from deploy.provision import Provisioned
from server.api.campaigns import CampaignDocument, Campaigns
from server.api.releases import Releases
from simulations.report import SimulationReport

DOCUMENTS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("demo", DemoReport),
    ("simulate", SimulationReport),
    ("provision", Provisioned),
    ("site-import", ImportSummary),
    ("site-backup", BackupMade),
    ("site-restore", Restored),
    ("site-budget", BudgetDocument),
    ("site-outbox", OutboxDocument),
    ("site-views", ViewsDocument),
    ("site-pause", PauseDocument),
    ("site-resume", PauseDocument),
    ("site-personalise", Personalised),
    ("site-release-list", SiteReleasesDocument),
    ("site-release-accept", SiteReleasesDocument),
    ("site-release-refuse", SiteReleasesDocument),
    ("site-release-rollback", SiteReleasesDocument),
    ("site-withdraw", Withdrawal),
    ("site-user-list", UsersDocument),
    ("site-key-add", NewKeyDocument),
    ("site-key-list", KeysDocument),
    ("coordinator-campaign-create", StartedCampaign),
    ("coordinator-campaign-start", StartedCampaign),
    ("coordinator-campaign-watch", CampaignStanding),
    ("coordinator-campaign-pause", CampaignStanding),
    ("coordinator-campaign-resume", CampaignStanding),
    ("coordinator-campaign-cancel", CampaignStanding),
    ("coordinator-campaign-preflight", PreflightDocument),
    ("coordinator-campaign-list", Campaigns),
    ("coordinator-campaign-show", CampaignDocument),
    ("coordinator-campaign-export-mlflow", ExportedCampaign),
    ("coordinator-release-list", Releases),
    ("coordinator-release-rollout", RolloutDocument),
    ("coordinator-release-report", WrittenReport),
    ("coordinator-trigger-list", Triggers),
    ("coordinator-trigger-add", TriggerResult),
    ("coordinator-trigger-remove", TriggerResult),
    ("coordinator-trigger-fire", TriggerResult),
    ("coordinator-user-list", AccountsDocument),
    ("coordinator-user-token", TokenDocument),
    ("coordinator-release-show", ReleaseManifest),
    ("audit-verify", AuditReport),
    ("audit-export", Exported),
    ("pki-status", PkiStatus),
    ("pki-renew", Renewed),
    ("pki-revoke", Revoked),
    ("pki-rotate-plan-key", RotatedPlanKey),
    ("coordinator-gateway", RenderedGateway),
    ("error", ErrorDocument),
)


def schema_text(document: type[BaseModel]) -> str:
    """Return a document's schema as indented JSON with a final newline."""
    schema = document.model_json_schema(mode="serialization")
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"


def write_schemas(folder: Path) -> None:
    """Write every schema as ``<command>.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, document in DOCUMENTS:
        (folder / f"{name}.json").write_text(schema_text(document), "utf-8")


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]))
