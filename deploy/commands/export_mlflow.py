"""`wardround coordinator campaign export-mlflow`: a campaign as a run of MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel, ConfigDict

from deploy.commands.flags import AsJson, Folder
from deploy.commands.registry import opened_registry
from deploy.console import emit


class ExportedCampaign(BaseModel):
    """Where the campaign is in MLflow."""

    model_config = ConfigDict(frozen=True)

    campaign: str
    experiment: str
    run: str


def export_mlflow(
    campaign: Annotated[str, typer.Argument(help="The campaign's id.")],
    tracking_uri: Annotated[
        str,
        typer.Option(
            envvar="MLFLOW_TRACKING_URI",
            help="Of MLflow: https://…, sqlite:///mlflow.db, or a folder.",
        ),
    ],
    experiment: Annotated[
        str | None, typer.Option(help="Its name.", show_default="wardround/TASK")
    ] = None,
    folder: Folder = Path(),
    as_json: AsJson = False,
) -> None:
    """Write a campaign into MLflow: parameters, metrics by round, sites, epsilon, report.

    Nothing is written that the registry does not hold. Exporting again completes the same run.
    """
    from server.campaign_export import export_campaign

    with opened_registry(folder) as registry:
        found = export_campaign(
            registry, campaign, tracking_uri=tracking_uri, experiment=experiment
        )
    document = ExportedCampaign(campaign=campaign, experiment=found.experiment, run=found.run)
    text = f"Campaign {campaign} is run {found.run} of experiment {found.experiment}."
    emit(document, as_json=as_json, show=lambda console: console.print(text, soft_wrap=True))
