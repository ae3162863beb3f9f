"""What an audit log may say: a closed set of entries, none of which has room for anything else.

Nothing here is about a patient, an image or an answer; a case is named by the random id that its
site's store gave it, at that site alone. Digests are SHA-256, in hex.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from common.plan import Hex64, Identifier, Purpose

Slug = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
Count = Annotated[int, Field(ge=0)]
RoundNumber = Annotated[int, Field(ge=1)]
Epsilon = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Content: TypeAlias = Literal[
    "update", "receipt", "evaluation", "forecast", "refusal", "description", "status"
]

CasePart: TypeAlias = Literal["case", "picture", "history"]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Left(_Entry):
    """At a site: a reply was about to leave. Written before it goes.

    ``bytes`` and ``sha256`` are of the reply's content (`common.wire.content_of`).
    ``epsilon_campaign`` and ``epsilon_life`` are upper bounds after it, as on the receipt. The
    request is named where its plan carried a coordinator's signature.
    """

    kind: Literal["left"] = "left"
    contents: Annotated[tuple[Content, ...], Field(min_length=1, max_length=7)]
    destination: Annotated[str, Field(pattern=r"^[^\s/]{1,255}:[0-9]{1,5}$")]
    bytes: Count
    sha256: Hex64
    campaign: Identifier | None = None
    round: RoundNumber | None = None
    nonce: Hex64 | None = None
    update_digest: Hex64 | None = None
    epsilon_campaign: Epsilon | None = None
    epsilon_life: Epsilon | None = None
    code: Slug | None = None


class PlanAccepted(_Entry):
    """At a site: a plan passed signature, policy and memory. Written before anything is done."""

    kind: Literal["plan-accepted"] = "plan-accepted"
    campaign: Identifier
    round: RoundNumber
    nonce: Hex64
    purpose: Purpose
    plan_digest: Hex64


class PlanDeclined(_Entry):
    """At a site: a request was answered with a refusal. The plan is named if it was signed."""

    kind: Literal["plan-refused"] = "plan-refused"
    code: Slug
    campaign: Identifier | None = None
    round: RoundNumber | None = None
    nonce: Hex64 | None = None


class PolicyChanged(_Entry):
    """At a site: ``policy.toml`` holds other bytes than when it was last looked at."""

    kind: Literal["policy-changed"] = "policy-changed"
    digest: Hex64


class TrainingPaused(_Entry):
    """At a site: an account, or somebody at its console, set the pause switch."""

    kind: Literal["training-paused"] = "training-paused"
    by: Identifier


class TrainingResumed(_Entry):
    """At a site: the same switched it off again. Written before it is."""

    kind: Literal["training-resumed"] = "training-resumed"
    by: Identifier


class PatientWithdrawn(_Entry):
    """At a site: a patient, or one case, was withdrawn; ``cases`` left the store with it.

    ``by`` is the account or the key that asked, left out in lines from before it was kept.
    """

    kind: Literal["patient-withdrawn"] = "patient-withdrawn"
    cases: Count
    by: Annotated[Identifier | None, Field(exclude_if=lambda value: value is None)] = None


class ReleaseInstalled(_Entry):
    """At a site: this release answers from now on."""

    kind: Literal["release-installed"] = "release-installed"
    version: RoundNumber
    model_digest: Hex64


class ReleaseDecided(_Entry):
    """At a site: a release was accepted, held, refused or left, by an account or the policy.

    ``reason`` is that of `client.releases.decisions.ReleaseDecision`.
    """

    kind: Literal["release-decided"] = "release-decided"
    version: RoundNumber
    model_digest: Hex64
    verdict: Literal["accepted", "held", "refused", "rolled-back"]
    by: Identifier
    reason: Slug


class PredictionMade(_Entry):
    """At a site: one answer was given. Nothing about the image, the answer or the patient.

    ``head_digest`` is of the site's own head, left out where the plain release answered;
    ``profile_digest`` is of the site's profile that the answer was read with, left out without one.
    ``by`` is the account or the key that asked, left out in lines from before it was kept.
    """

    kind: Literal["prediction"] = "prediction"
    request_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    version: RoundNumber
    model_digest: Hex64
    head_digest: Annotated[Hex64 | None, Field(exclude_if=lambda value: value is None)] = None
    profile_digest: Annotated[Hex64 | None, Field(exclude_if=lambda value: value is None)] = None
    by: Annotated[Identifier | None, Field(exclude_if=lambda value: value is None)] = None


class CaseViewed(_Entry):
    """At a site: a stored case, its picture or its history was shown. Written before it is.

    ``case`` is the store's id; ``by`` is the account or the key that asked.
    """

    kind: Literal["case-viewed"] = "case-viewed"
    case: Identifier
    part: CasePart
    by: Identifier


class Unaudited(_Entry):
    """At a site: so many predictions and views before this line could not be written down.

    ``views`` is left out where it is 0, as in lines from before views were written down.
    """

    kind: Literal["unaudited"] = "unaudited"
    predictions: Count
    views: Annotated[Count, Field(exclude_if=lambda value: value == 0)] = 0


class PlanSent(_Entry):
    """At the coordinator: a signed plan was about to go to a site."""

    kind: Literal["plan-sent"] = "plan-sent"
    site: Identifier
    campaign: Identifier
    round: RoundNumber
    nonce: Hex64
    purpose: Purpose
    plan_digest: Hex64


class ReplyTaken(_Entry):
    """At the coordinator: a site's reply came and passed all checks."""

    kind: Literal["reply-taken"] = "reply-taken"
    site: Identifier
    campaign: Identifier
    round: RoundNumber
    nonce: Hex64
    update_digest: Hex64 | None = None
    bytes: Count
    sha256: Hex64


class ReplyRefused(_Entry):
    """At the coordinator: a reply came that is no use: the site's refusal, or a bad answer.

    ``sha256`` is None where Flower reported an error and no content came.
    """

    kind: Literal["reply-refused"] = "reply-refused"
    site: Identifier
    campaign: Identifier
    round: RoundNumber
    nonce: Hex64
    code: Slug
    update_digest: Hex64 | None = None
    bytes: Count = 0
    sha256: Hex64 | None = None


class CampaignMoved(_Entry):
    """At the coordinator: a campaign went from one state to another.

    ``epoch`` counts the ServerApps that have driven it; ``code`` says why, where there is a why.
    """

    kind: Literal["campaign-moved"] = "campaign-moved"
    campaign: Identifier
    action: Slug
    state: Slug
    epoch: Count
    code: Slug | None = None


class ProtocolLocked(_Entry):
    """At the coordinator: the limits of a new campaign's release gate were locked."""

    kind: Literal["protocol-locked"] = "protocol-locked"
    campaign: Identifier
    protocol: Identifier
    digest: Hex64


class CandidateMade(_Entry):
    """At the coordinator: a campaign came to a model."""

    kind: Literal["candidate"] = "candidate"
    campaign: Identifier
    candidate: Identifier
    model_digest: Hex64


class GateDecision(_Entry):
    """At the coordinator: the release gate judged a candidate; ``failed`` names its checks."""

    kind: Literal["gate-decision"] = "gate-decision"
    candidate: Identifier
    model_digest: Hex64
    decision: Literal["waiting", "approved", "refused"]
    failed: tuple[Annotated[str, Field(max_length=64)], ...] = ()


class Released(_Entry):
    """At the coordinator: a candidate was published under a version."""

    kind: Literal["released"] = "released"
    version: RoundNumber
    model_digest: Hex64
    campaign: Identifier
    candidate: Identifier


class CandidateDecided(_Entry):
    """At the coordinator: an account approved or refused a candidate; ``sites`` is its first ring.

    ``by`` is ``policy`` where the campaign's settings approved it, and where it is ``waiting``
    again: approved, not published yet, and then the champion changed. None of ``sites`` is all.
    ``champion_changed`` says that it was approved by somebody who knew that the gate had compared
    it with another release than the current one; left out where not, and in lines from before it
    was kept.
    """

    kind: Literal["candidate-decided"] = "candidate-decided"
    candidate: Identifier
    model_digest: Hex64
    decision: Literal["approved", "refused", "waiting"]
    by: Identifier
    sites: tuple[Identifier, ...] | None = None
    champion_changed: Annotated[bool, Field(exclude_if=lambda value: not value)] = False


class RolloutChanged(_Entry):
    """At the coordinator: another ring of sites may take a release, or it was held or withdrawn.

    ``champion_changed`` as in `CandidateDecided`: more sites may take it, of whose current release
    it was known that the gate had not compared the two.
    """

    kind: Literal["rollout"] = "rollout"
    version: RoundNumber
    state: Literal["canary", "everywhere", "held", "withdrawn"]
    by: Identifier
    sites: tuple[Identifier, ...] | None = None
    champion_changed: Annotated[bool, Field(exclude_if=lambda value: not value)] = False


class RolledBack(_Entry):
    """At the coordinator: an account asked for the weights of an older release again."""

    kind: Literal["rolled-back"] = "rolled-back"
    replaces: RoundNumber
    restores: RoundNumber
    candidate: Identifier
    by: Identifier


AccountChange: TypeAlias = Literal[
    "added",
    "removed",
    "role",
    "password",
    "token",
    "disabled",
    "enabled",
    "signed-in",
    "key-added",
    "key-removed",
]


class AccountChanged(_Entry):
    """At either end: an account or a key was made or changed, or signed in (``by`` itself)."""

    kind: Literal["account"] = "account"
    account: Identifier
    change: AccountChange
    by: Identifier


SiteEntry: TypeAlias = (
    Left
    | PlanAccepted
    | PlanDeclined
    | PolicyChanged
    | TrainingPaused
    | TrainingResumed
    | PatientWithdrawn
    | ReleaseInstalled
    | ReleaseDecided
    | PredictionMade
    | CaseViewed
    | Unaudited
    | AccountChanged
)
CoordinatorEntry: TypeAlias = (
    PlanSent
    | ReplyTaken
    | ReplyRefused
    | CampaignMoved
    | ProtocolLocked
    | CandidateMade
    | GateDecision
    | Released
    | CandidateDecided
    | RolloutChanged
    | RolledBack
    | AccountChanged
)
Entry: TypeAlias = SiteEntry | CoordinatorEntry

ENTRY: TypeAdapter[Entry] = TypeAdapter(Annotated[Entry, Field(discriminator="kind")])
