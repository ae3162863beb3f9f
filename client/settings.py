"""A site's settings: one folder, one ``site.toml``, environment variables on top.

The folder is the start-up kit that `wardround provision` made::

    site.toml    policy.toml
    recipes/     the site's own copies of its recipes, against which plans are held
    keys/        node, node.pub (Flower node identity), pseudonyms (secret of patient pseudonyms),
                 superexec.secret (between the site's SuperNode and its runner),
                 site.crt, site.key (what the coordinator's gateway asks for)
    trust/       ca.crt, root.json (first TUF root), plan-keys/*.pem (coordinator plan keys)
    data/        cases.db, images/, cache/, releases/
    logs/
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from client.access.roles import Access
from client.access.settings import AccountSettings
from client.dicom.settings import DicomSettings, DicomwebSettings
from client.explanation.settings import ExplanationSettings
from client.inference.settings import InferenceSettings
from client.monitoring.settings import MonitoringSettings
from client.reading.settings import ReadingSettings
from client.review.settings import ReviewSettings
from common.database import sqlite_url
from common.folder_settings import FolderSettings
from common.logs import LogFormat
from common.plan import Identifier


class SiteSettings(FolderSettings):
    """Settings of one site. ``WARDROUND_SITE_<FIELD>`` in the environment overrides the file.

    Durations are in seconds, ``port`` is that of the inference service. ``access`` says who may
    use it: ``accounts``, whoever has a key or signs in, or ``open``, whoever is on this machine,
    which is refused beyond loopback. An address beyond loopback is refused, too, unless
    ``tls_certificate`` and ``tls_key`` (PEM) are set, or ``allow_plain_http`` says that the
    network itself is trusted; ``host_names`` are the names by which browsers may call it,
    loopback and ``host`` apart. ``superlink`` is the
    coordinator's ``host:port`` for rounds; ``runtime_port`` joins the site's SuperNode and its
    runner, on loopback. ``release_poll_seconds`` is the time between two pulls of releases,
    ``release_watch_seconds`` that between two looks at whether there is anything to pull before.
    ``dicom`` is the ``[dicom]`` table, see `client.dicom.settings`; ``inference`` is the
    ``[inference]`` table, see `client.inference.settings`; ``reading`` is the ``[reading]``
    table, see `client.reading.settings`; ``accounts`` is the ``[accounts]``
    table, see `client.access.settings`; ``monitoring`` is the ``[monitoring]`` table, see
    `client.monitoring.settings`; ``review`` is the ``[review]`` table, see
    `client.review.settings`.
    ``proxy`` is the HTTP proxy through which the site goes out, if any.
    """

    model_config = SettingsConfigDict(env_prefix="WARDROUND_SITE_")
    file_name = "site.toml"

    name: Identifier
    task: Identifier
    database_url: str | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    log_format: LogFormat = "text"
    threads: Annotated[int, Field(ge=0)] = 0
    memory_megabytes: Annotated[int, Field(ge=64)] = 2048
    holdout_fraction: Annotated[float, Field(ge=0, le=0.9)] = 0.2
    coordinator_url: str = "https://127.0.0.1:8444"
    superlink: Annotated[str, Field(pattern=r"^[^\s/]+:[0-9]{1,5}$")] = "127.0.0.1:8443"
    proxy: Annotated[str | None, Field(pattern=r"^https?://[^\s/]+:[0-9]{1,5}/?$")] = None
    runtime_port: Annotated[int, Field(ge=1, le=65535)] = 9094
    release_poll_seconds: Annotated[float, Field(gt=0)] = 60.0
    release_watch_seconds: Annotated[float, Field(gt=0)] = 3.0
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8500
    access: Access = "accounts"
    maximum_upload_bytes: Annotated[int, Field(ge=1024)] = 32 * 1024 * 1024
    host_names: tuple[str, ...] = ()
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    allow_plain_http: bool = False
    dicom: DicomSettings = DicomSettings()
    dicomweb: DicomwebSettings = DicomwebSettings()
    inference: InferenceSettings = InferenceSettings()
    reading: ReadingSettings = ReadingSettings()
    explanation: ExplanationSettings = ExplanationSettings()
    review: ReviewSettings = ReviewSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    accounts: AccountSettings = AccountSettings()

    @property
    def data(self) -> Path:
        """Folder of all that the site writes, logs excepted."""
        return self.folder / "data"

    @property
    def database(self) -> str:
        """SQLAlchemy URL of the case store and ledger."""
        return self.database_url or sqlite_url(self.data / "cases.db")

    @property
    def images(self) -> Path:
        """Root of the content-addressed image store."""
        return self.data / "images"

    @property
    def cache(self) -> Path:
        """Folder of prepared pixels; may be deleted at any time."""
        return self.data / "cache"

    @property
    def graphs(self) -> Path:
        """Folder of the networks' ONNX graphs; may be deleted at any time."""
        return self.inference.graphs or self.cache / "graphs"

    @property
    def releases(self) -> Path:
        """Folder of TUF state and downloaded releases."""
        return self.data / "releases"

    @property
    def trust(self) -> Path:
        """Folder of what the site trusts: CA certificate, TUF root, plan keys."""
        return self.folder / "trust"

    @property
    def recipes(self) -> Path:
        """Folder of the site's own recipes."""
        return self.folder / "recipes"

    @property
    def policy(self) -> Path:
        """The site's policy file."""
        return self.folder / "policy.toml"

    @property
    def keys(self) -> Path:
        """Folder of the site's secrets."""
        return self.folder / "keys"
