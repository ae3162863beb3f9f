"""A campaign as a run of MLflow: parameters, metrics over rounds, outcomes, candidate, report.

What is written is what the registry holds, which is what the sites' policies let out. A second
export of the same campaign goes into the same run, found by its tag: figures that are there
already are not written twice. So only rounds that are over are written.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import ConfigurationError, StoreError, WardroundError
from server.api.campaigns import CampaignDocument
from server.registry.records import Campaign, Contribution, Round
from server.registry.registry import Registry

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param, Run
    from mlflow.tracking import MlflowClient

logger = logging.getLogger(__name__)

CAMPAIGN_TAG = "wardround.campaign"
MOST_METRICS_AT_ONCE = 1000
"""MLflow's own limit of one batch."""
FIGURES = ("macro_auroc", "balanced_accuracy", "accuracy", "majority_baseline")
NEVER_RESUMED = ("finished", "cancelled")
STATUS = {"finished": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}


@dataclass(frozen=True)
class Exported:
    """Where a campaign's run is."""

    experiment: str
    run: str


def export_campaign(
    registry: Registry, campaign: str, *, tracking_uri: str, experiment: str | None = None
) -> Exported:
    """Write a campaign into an MLflow tracking server or store.

    Parameters
    ----------
    registry : Registry
        Holds the campaign.
    campaign : str
        Its id.
    tracking_uri : str
        As MLflow takes it: ``https://…``, ``sqlite:///…`` or a folder.
    experiment : str, optional
        Its name; by default ``wardround/<task>``.

    Raises
    ------
    ConfigurationError
        With code ``mlflow-missing``.
    NotFound
        If there is no such campaign.
    StoreError
        With code ``mlflow``, if MLflow refuses or cannot be reached.
    """
    found = registry.campaign(campaign)
    name = experiment or f"wardround/{found.recipe.name}"
    with _client(tracking_uri) as client:
        run = _run(client, found, name)
        identifier = run.info.run_id
        rounds, told = _over(found, registry.rounds(campaign)), registry.contributions(campaign)
        if not run.data.params:
            client.log_batch(identifier, params=_params(found))
        _log_metrics(client, run, [*_round_metrics(rounds), *_site_metrics(rounds, told)])
        document = CampaignDocument.read(registry, campaign)
        client.log_text(identifier, document.model_dump_json(indent=2), "campaign.json")
        _log_report(client, identifier, registry, campaign)
        client.set_tag(identifier, "wardround.state", found.state)
        client.set_terminated(identifier, STATUS.get(found.state, "RUNNING"))
    return Exported(name, identifier)


@contextmanager
def _client(tracking_uri: str) -> Iterator[MlflowClient]:
    """Yield a client; MLflow's own errors become ours, and nothing of it is set globally."""
    # A folder is what most have who try it; MLflow asks for this before it writes into one.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "MLflow is not installed.",
            action="Install it with `pip install 'wardround[mlflow]'`.",
            code="mlflow-missing",
        ) from error
    try:
        yield MlflowClient(tracking_uri=tracking_uri)
    except (MlflowException, OSError) as error:
        raise StoreError(
            f"MLflow did not take the campaign ({type(error).__name__}).",
            meaning="The run may be there in part; exporting again completes it.",
            action="Check the tracking address, and its user and password in the environment.",
            code="mlflow",
        ) from error


def _run(client: MlflowClient, campaign: Campaign, experiment: str) -> Run:
    known = client.get_experiment_by_name(experiment)
    identifier = known.experiment_id if known else client.create_experiment(experiment)
    wanted = f"tags.`{CAMPAIGN_TAG}` = '{campaign.id}'"
    earlier = client.search_runs([identifier], filter_string=wanted, max_results=1)
    if earlier:
        return earlier[0]
    tags = {CAMPAIGN_TAG: campaign.id, "wardround.task": campaign.recipe.name}
    began = campaign.started_at or campaign.created_at
    return client.create_run(
        identifier, start_time=int(began.timestamp() * 1000), tags=tags, run_name=campaign.id
    )


def _params(campaign: Campaign) -> list[Param]:
    from mlflow.entities import Param

    settings, recipe = campaign.settings, campaign.recipe
    listed = {
        "task": recipe.name,
        "architecture": recipe.model.architecture,
        "rounds": settings.rounds,
        "quorum": settings.quorum,
        "attempts": settings.attempts,
        "sites": ", ".join(settings.sites) if settings.sites else "all",
        "epsilon": "none" if settings.epsilon is None else settings.epsilon,
        "aggregation": campaign.aggregation.name,
        "base_release": campaign.base_release or "none",
        "initial_digest": campaign.initial_digest,
    }
    listed |= {f"training.{k}": v for k, v in campaign.training.model_dump(mode="json").items()}
    return [Param(key, str(value)[:500]) for key, value in listed.items()]


def _over(campaign: Campaign, rounds: Sequence[Round]) -> list[Round]:
    """Return the rounds whose figures change no more: a step of a metric is written once.

    A round in progress is not over, and the newest one that failed is asked for again where the
    campaign is resumed.
    """
    open_end = campaign.state not in NEVER_RESUMED
    return [
        found
        for place, found in enumerate(rounds, start=1)
        if found.state != "running"
        and not (found.state == "failed" and open_end and place == len(rounds))
    ]


def _round_metrics(rounds: Sequence[Round]) -> Iterator[Metric]:
    from mlflow.entities import Metric

    for found in rounds:
        moment = int((found.finished_at or found.started_at).timestamp() * 1000)
        for name in FIGURES:
            value = None if found.metrics is None else getattr(found.metrics, name)
            if value is not None:
                yield Metric(name, float(value), moment, found.number)


def _site_metrics(rounds: Sequence[Round], told: Sequence[Contribution]) -> Iterator[Metric]:
    """Yield how the requests of each round ended, and what each site's last ones came to."""
    from mlflow.entities import Metric

    ended = {r.number: int((r.finished_at or r.started_at).timestamp() * 1000) for r in rounds}
    last = {(c.round, c.site): c for c in told if c.round in ended}
    for number, moment in ended.items():
        outcomes = Counter(c.outcome for (r, _), c in last.items() if r == number)
        for outcome, count in outcomes.items():
            yield Metric(f"sites_{outcome}", float(count), moment, number)
    for (number, site), c in last.items():
        figures = {"seconds": c.seconds, "bytes": float(c.bytes), "update_norm": c.update_norm}
        if c.receipt is not None:
            figures["epsilon_campaign"] = c.receipt.epsilon_campaign
            figures["epsilon_life"] = c.receipt.epsilon_life
        for name, value in figures.items():
            if value is not None:
                yield Metric(f"site/{site}/{name}", float(value), ended[number], number)


def _log_metrics(client: MlflowClient, run: Run, metrics: Sequence[Metric]) -> None:
    """Write those figures that the run does not have; the service takes so many at once."""
    identifier = run.info.run_id
    known = {key: {m.step for m in client.get_metric_history(identifier, key)}
             for key in run.data.metrics}  # fmt: skip
    new = [m for m in metrics if m.step not in known.get(m.key, ())]
    for first in range(0, len(new), MOST_METRICS_AT_ONCE):
        client.log_batch(identifier, metrics=new[first : first + MOST_METRICS_AT_ONCE])


def _log_report(client: MlflowClient, run: str, registry: Registry, campaign: str) -> None:
    """Add candidate, gate verdicts and report, where the campaign has come so far."""
    candidates = registry.candidates(campaign=campaign)
    if not candidates:
        return
    candidate = candidates[0]
    client.set_tag(run, "wardround.candidate", candidate.id)
    client.set_tag(run, "wardround.candidate_state", candidate.state)
    client.set_tag(run, "wardround.model_digest", candidate.model_digest)
    client.log_text(run, candidate.draft.model_dump_json(indent=2), "candidate.json")
    from server.reports.content import candidate_report
    from server.reports.store import write_report

    with tempfile.TemporaryDirectory() as folder:
        try:
            files = write_report(candidate_report(registry, campaign), Path(folder), kind="html")
        except WardroundError as error:
            logger.warning("export-without-report campaign=%s code=%s", campaign, error.code)
            return
        for path in files:
            client.log_artifact(run, str(path))
