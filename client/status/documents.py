"""The document of ``GET /status``. Exact figures: for the site's own eyes."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import AwareDatetime, BaseModel, ConfigDict

Level: TypeAlias = Literal["good", "warn", "bad"]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Trouble(_Document):
    """A part of the document that could not be had, and why."""

    part: str
    code: str
    message: str


class Connection(_Document):
    """How the site stands with its coordinator.

    ``verified_at`` is when the coordinator last vouched for the current release, ``failing_since``
    the first failure after it; ``last_plan_at`` is when a round's plan was last accepted.
    """

    level: Level
    coordinator: str
    superlink: str
    verified_at: AwareDatetime | None
    failing_since: AwareDatetime | None
    code: str | None
    message: str
    last_plan_at: AwareDatetime | None = None


class CertificateState(_Document):
    """One certificate of the site; ``days_left`` is None where it cannot be read."""

    level: Level
    purpose: str
    ends: AwareDatetime | None
    days_left: int | None


class Disk(_Document):
    """The file system that holds the site's data, in bytes."""

    level: Level
    free: int
    total: int


class Gpu(_Document):
    """A graphics card that torch sees; memory in bytes."""

    name: str
    free: int
    total: int


class Machine(_Document):
    """What computes. ``load`` is the one-minute load average over the cores."""

    cores: int
    load: float
    memory_free: int
    memory_total: int
    gpu: Gpu | None
    runtime: str | None


class LeftLine(_Document):
    """One reply that left the site, from the audit log."""

    sequence: int
    at: AwareDatetime
    contents: tuple[str, ...]
    campaign: str | None
    round: int | None
    bytes: int
    epsilon_campaign: float | None


class WhatLeft(_Document):
    """All that ever left, in sums, and the newest of it."""

    replies: int
    updates: int
    evaluations: int
    refusals: int
    bytes: int
    newest: tuple[LeftLine, ...]


class Privacy(_Document):
    """The running (RDP) bound of epsilon; ``spent`` is None where none can be given.

    ``guaranteed`` is False after a round without privacy.
    """

    level: Level
    spent: float | None
    limit: float
    left: float
    campaign_limit: float
    delta: float
    rounds: int
    guaranteed: bool


class Backup(_Document):
    """The newest backup that was made of this site, if one is known."""

    level: Level
    made_at: AwareDatetime | None
    age_days: float | None
    images: int | None
    missing: int | None


class Queues(_Document):
    """What waits: images for the model, cases for a label, reports for the PACS."""

    inference: int
    cases_waiting: int
    cases_confirmed: int
    reports: int | None


class Model(_Document):
    """The model that answers."""

    version: int
    digest: str
    personalised: bool
    campaign: str
    created_at: AwareDatetime


class Training(_Document):
    """Whether rounds are answered; ``by_policy`` where ``policy.toml`` itself says paused."""

    paused: bool
    by_policy: bool
    since: AwareDatetime | None = None
    by: str | None = None
    reason: str = ""


class Scoring(_Document):
    """Whether a model could be scored on the holdout here, so that anything of it would leave.

    ``code`` and ``message`` say what is missing, also where only some classes can be scored.
    """

    level: Level
    able: bool
    code: str | None
    message: str


class AlarmState(_Document):
    """Something to look at, and what to do about it."""

    code: str
    message: str
    since: AwareDatetime
    action: str


class Version(_Document):
    """A program and its version."""

    name: str
    version: str


class StatusDocument(_Document):
    """How the site stands; a part that is None is named in ``troubles``."""

    site: str
    task: str
    now: AwareDatetime
    started_at: AwareDatetime
    connection: Connection
    certificates: tuple[CertificateState, ...]
    machine: Machine
    model: Model | None
    alarms: tuple[AlarmState, ...]
    versions: tuple[Version, ...]
    disk: Disk | None = None
    training: Training | None = None
    left: WhatLeft | None = None
    privacy: Privacy | None = None
    scoring: Scoring | None = None
    backup: Backup | None = None
    queues: Queues | None = None
    troubles: tuple[Trouble, ...] = ()
