"""What the registry holds, as frozen values: no database row leaves `server.registry.registry`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from common.evaluation import Metrics, SiteEvaluation
from common.plan import Identifier
from common.recipe import AggregationSpec, LocalTraining, Recipe, ReleaseGateSpec, ServerOptimizer
from common.records import Forecast, Receipt
from common.release import ReleaseDraft, ReleaseManifest
from server.outcome_reasons import ROUND_LOST
from server.protocol import GateProtocol
from server.registry.campaign_states import CampaignState

Scope = Literal["all", "bias", "head"]
Purpose = Literal["train", "evaluate"]
CampaignKind = Literal["training", "preflight"]
RoundState = Literal["running", "finished", "failed"]
Outcome = Literal["accepted", "refused", "failed", "late", "absent", "rejected"]
CandidateState = Literal["waiting", "approved", "refused", "published"]
ReleaseState = Literal["canary", "everywhere", "held", "withdrawn"]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class TrainablePhase(BaseModel):
    """From round ``first_round`` on, ``names`` move and travel.

    They are the parameters of ``scope``, without those of layers that stay at the sites.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    first_round: Annotated[int, Field(ge=1)]
    scope: Scope
    names: Annotated[tuple[str, ...], Field(min_length=1)]


class BufferSettings(BaseModel):
    """How buffered rounds are run; `common.recipe.FederationSpec` says what each means.

    ``size`` updates make a step; a site trains ``site_rounds`` times at most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Annotated[int, Field(ge=1)]
    site_rounds: Annotated[int, Field(ge=1, le=100_000)]
    max_staleness: Annotated[int, Field(ge=0)]
    quorum_steps: Annotated[int, Field(ge=1)]


class CampaignSettings(BaseModel):
    """How a campaign is run.

    Attributes
    ----------
    rounds : int
        Training rounds.
    epsilon : float or None
        Asked of each site for the whole campaign; None is a study without privacy.
    sites : tuple of str or None
        Who takes part; None is every registered site.
    quorum : int
        Accepted updates without which a round does not count.
    attempts : int
        How often a round may be asked for in all, while it lacks its quorum.
    round_deadline_seconds, site_wait_seconds : float
        For one attempt's answers; and for sites to connect.
    phases : tuple of TrainablePhase
        In order of ``first_round``, the first being 1.
    auto_approve : bool
        Whether a candidate that passes the gate is released without a person.
    only_preflight : bool
        Whether the campaign ends when the sites have said what it would cost them.
    may_go_unscored : bool
        Whether it goes on where too few sites could score its candidate: a simulation's is released
        nowhere.
    protocol : GateProtocol or None
        The gate's limits, locked; None in campaigns of older versions: the recipe's.
    buffer : BufferSettings or None
        Set where rounds are buffered: a round is then one step of the model, and ``quorum`` is of
        different sites in some steps in a row.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: Annotated[int, Field(ge=1, le=100_000)]
    epsilon: Annotated[float, Field(gt=0, le=1000)] | None
    sites: tuple[Identifier, ...] | None = None
    quorum: Annotated[int, Field(ge=1)]
    attempts: Annotated[int, Field(ge=1, le=100)] = 3
    round_deadline_seconds: Seconds = 3600.0
    site_wait_seconds: Seconds = 120.0
    early_stopping_rounds: Annotated[int, Field(ge=0)] = 0
    phases: Annotated[tuple[TrainablePhase, ...], Field(min_length=1)]
    auto_approve: bool = True
    only_preflight: bool = False
    may_go_unscored: bool = False
    protocol: GateProtocol | None = None
    buffer: BufferSettings | None = None

    @property
    def site_rounds(self) -> int:
        """How often a site trains in this campaign, at most: what its privacy is budgeted for."""
        return self.rounds if self.buffer is None else self.buffer.site_rounds

    def phase(self, number: int) -> TrainablePhase:
        """Return the phase of a round."""
        return [p for p in self.phases if p.first_round <= max(1, number)][-1]


@dataclass(frozen=True)
class Site:
    """A hospital that may take part."""

    name: str
    node_id: int
    public_key: str
    registered_at: datetime


@dataclass(frozen=True)
class Campaign:
    """A campaign.

    Attributes
    ----------
    initial_digest : str
        Names the weights in ``data/models`` that it starts from.
    failure : str or None
        Why it failed or was interrupted.
    epoch : int
        How many ServerApps have taken it; only the newest may write.
    launches : int
        Flower runs that were started for it since its last finished round of training, the
        newest at ``launched_at``.
    """

    id: str
    recipe: Recipe
    settings: CampaignSettings
    state: CampaignState
    base_release: int | None
    initial_digest: str
    flower_run: str | None
    failure: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    epoch: int = 0
    launches: int = 0
    launched_at: datetime | None = None

    @property
    def private(self) -> bool:
        """Whether the sites are asked for differential privacy."""
        return self.settings.epsilon is not None

    @property
    def limits(self) -> ReleaseGateSpec:
        """The release gate's limits that it is held to: the locked ones, else the recipe's."""
        protocol = self.settings.protocol
        return self.recipe.release if protocol is None else protocol.limits

    @property
    def kind(self) -> CampaignKind:
        """Whether it trains, or only asks the sites what that would cost."""
        return "preflight" if self.settings.only_preflight else "training"

    @property
    def training(self) -> LocalTraining:
        """What a site does in a round."""
        given = self.recipe.privacy.training if self.private else self.recipe.training
        return self.recipe.federation.local(given)

    @property
    def aggregation(self) -> AggregationSpec:
        """How a round's updates become one."""
        return self.recipe.federation.aggregation

    @property
    def server_optimizer(self) -> ServerOptimizer:
        """How the aggregated update is applied."""
        return self.recipe.federation.optimizer(private=self.private)


@dataclass(frozen=True)
class Round:
    """One exchange with the sites; number 0 scores a champion, rounds + 1 the last model.

    Where the best model of the rounds did better, rounds + 2 scores that one. A round of training
    that has failed, and still has the digest of the model that it left behind, was lost: the
    campaign went on from the same model (`server.rounds.lost_rounds`).
    """

    campaign: str
    number: int
    purpose: Purpose
    state: RoundState
    base_digest: str
    aggregate_digest: str | None
    metrics: Metrics | None
    started_at: datetime
    finished_at: datetime | None

    @property
    def code(self) -> str | None:
        """``round-lost`` where it ended without a step and the campaign went on."""
        went_on = self.state == "failed" and self.aggregate_digest is not None
        return ROUND_LOST if went_on and self.purpose == "train" else None


@dataclass(frozen=True)
class Deviation:
    """How an update stands to the round's others, as it came and before any bound.

    Attributes
    ----------
    cosine : float or None
        Of the angle between the update and the aggregate, -1 to 1; None where one is zero.
    distance : float or None
        Euclidean distance to the coordinate-wise median of all updates, divided by the median
        of those distances; about 1 for a typical site, None where the median distance is zero.
    """

    cosine: float | None
    distance: float | None


@dataclass(frozen=True)
class Contribution:
    """What became of one request to one site; ``bytes`` of tensors came back in ``seconds``.

    ``update_norm`` is Euclidean; for ``update_cosine`` and ``update_distance`` see
    `Deviation`. All three are None where no update came, the
    latter two also where the round did not end.
    """

    campaign: str
    round: int
    site: str
    attempt: int
    outcome: Outcome
    code: str | None = None
    receipt: Receipt | None = None
    update_norm: float | None = None
    update_cosine: float | None = None
    update_distance: float | None = None
    bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class SiteForecast:
    """What a site said a campaign would cost it, or why it did not say.

    ``refuses`` is True where the site itself said no (``code`` says why), not where it was silent.
    """

    site: str
    code: str | None = None
    refuses: bool = False
    forecast: Forecast | None = None

    @property
    def affordable(self) -> bool:
        """Whether the site said that it can afford the whole campaign."""
        return self.forecast is not None and self.forecast.affordable

    @property
    def cannot_score(self) -> bool:
        """Whether the site said that nothing of its holdout could leave."""
        return self.forecast is not None and not self.forecast.scores


@dataclass(frozen=True)
class Candidate:
    """A trained model and the gate's verdicts, which stand in its draft.

    Attributes
    ----------
    sites : tuple of str or None
        Its first ring, None for every site.
    decided_by : str or None
        The account that approved or refused it, ``policy`` where the campaign's settings did,
        ``gate`` where a check failed; None while it waits, and for candidates of older versions.
    reason : str or None
        Why a person refused it, or rolled back to it; how the champion had changed when it was
        recorded or approved.
    """

    id: str
    campaign: str
    model_digest: str
    evaluation: SiteEvaluation | None
    draft: ReleaseDraft
    state: CandidateState
    created_at: datetime
    sites: tuple[str, ...] | None = None
    decided_by: str | None = None
    decided_at: datetime | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Release:
    """A published release.

    Attributes
    ----------
    state : ReleaseState
        Meant for ``sites`` alone (canary), for every site, held (whoever has it keeps it, nobody
        else takes it), or withdrawn by a rollback.
    sites : tuple of str or None
        Its ring, None for every site.
    changed_by : str or None
        Who last changed the state, None while it is as it was published.
    """

    version: int
    task: str
    candidate: str
    model_digest: str
    manifest: ReleaseManifest
    published_at: datetime
    state: ReleaseState = "everywhere"
    sites: tuple[str, ...] | None = None
    changed_by: str | None = None
    changed_at: datetime | None = None
