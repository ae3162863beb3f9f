"""Attacks on the way of a model to a hospital: a real TLS coordinator with an altered folder."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import MetaFile, Root, Signed, TargetFile
from tuf.ngclient import Updater
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet

from client.connection import Connection
from client.releases import pull
from client.releases.cache import ReleaseCache
from client.releases.files import CacheState, ReleaseFiles
from client.settings import SiteSettings
from common.signing import SigningKey
from deploy.certificates import make_authority
from server.publishing.publisher import ReleasePublisher
from tests.attacks.attack import Attack, Finding
from tests.releases import Coordinator, draft, served, weights

Crime = Callable[[Coordinator, SiteSettings, Path], bool]
"""Publishes, alters, lets the site pull; tells whether the site took what it should not."""


def _with_coordinator(crime: Crime) -> Callable[[Path], Finding]:
    def act(folder: Path) -> Finding:
        coordinator = Coordinator.create(folder / "coordinator")
        with served(coordinator) as port:
            site = coordinator.site(folder / "site", port)
            won = crime(coordinator, site, folder)
            code = ReleaseCache(site).status.code
        return Finding(won, "installed" if won else f"refused: {code}")

    return act


def _version(site: SiteSettings) -> int | None:
    release = ReleaseCache(site).refresh()
    return release.version if release else None


def tampered(coordinator: Coordinator, site: SiteSettings, _folder: Path) -> bool:
    """The manifest's threshold is raised, so that cancers fall below it; no length changes."""
    coordinator.publish(1)
    (path,) = (p for p in coordinator.targets.iterdir() if ".release-" in p.name)
    data = path.read_bytes()
    assert b'"threshold":0.3' in data
    path.write_bytes(data.replace(b'"threshold":0.3', b'"threshold":0.9'))
    release = ReleaseCache(site).refresh()
    return release is not None and release.manifest.threshold == 0.9


def believe_any_bytes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TargetFile, "verify_length_and_hashes", lambda *_: None)


def rolled_back(coordinator: Coordinator, site: SiteSettings, folder: Path) -> bool:
    """Yesterday's repository, validly signed, after today's was seen."""
    coordinator.publish(1)
    old = folder / "old"
    shutil.copytree(coordinator.metadata, old)
    coordinator.publish(2)
    assert _version(site) == 2
    shutil.copytree(old, coordinator.metadata, dirs_exist_ok=True)
    return _version(site) == 1


def forget_versions(patch: pytest.MonkeyPatch) -> None:
    """All memories: TUF's own metadata, the highest version that was seen, the current one."""
    state = ReleaseFiles.state

    def without_memory(metadata: str, *arguments: Any, **named: Any) -> Updater:
        for path in Path(metadata).glob("*.json"):
            path.unlink()
        return Updater(metadata, *arguments, **named)

    def lowest(files: ReleaseFiles) -> CacheState:
        return state(files).model_copy(update={"highest": 0, "current": None})

    patch.setattr(pull, "Updater", without_memory)
    follow = pull.ReleasePull._follow

    def forgetful(self: pull.ReleasePull, updater: Updater) -> None:
        with pytest.MonkeyPatch.context() as meanwhile:
            meanwhile.setattr(ReleaseFiles, "state", lowest)
            follow(self, updater)

    patch.setattr(pull.ReleasePull, "_follow", forgetful)


def frozen(coordinator: Coordinator, site: SiteSettings, _folder: Path) -> bool:
    """An old repository is shown for ever, so that a recall never arrives."""
    past = datetime.now(UTC) - timedelta(days=3)
    ReleasePublisher(coordinator.settings, clock=lambda: past).publish(draft(1), weights(1))
    return _version(site) == 1


def never_expire(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Signed, "is_expired", lambda *_: False)


def mixed(coordinator: Coordinator, site: SiteSettings, _folder: Path) -> bool:
    """Today's snapshot with yesterday's list of releases, both truly signed."""
    coordinator.publish(1)
    coordinator.publish(2)
    shutil.copy(coordinator.metadata / "2.targets.json", coordinator.metadata / "3.targets.json")
    return _version(site) == 1


def believe_any_mixture(patch: pytest.MonkeyPatch) -> None:
    check = TrustedMetadataSet.update_delegated_targets

    def careless(trusted: TrustedMetadataSet, data: bytes, role: str, by: str) -> object:
        version = trusted._load_data.__globals__["Metadata"].from_bytes(data).signed.version
        trusted.snapshot.meta[f"{role}.json"].version = version
        return check(trusted, data, role, by)

    patch.setattr(MetaFile, "verify_length_and_hashes", lambda *_: None)
    patch.setattr(TrustedMetadataSet, "update_delegated_targets", careless)


def foreign_key(coordinator: Coordinator, site: SiteSettings, _folder: Path) -> bool:
    """Whoever holds a site's disk signs a release with a key of his or her own."""
    coordinator.publish(1)
    assert _version(site) == 1
    key = coordinator.settings.keys / "tuf" / "targets.pem"
    key.write_bytes(SigningKey.generate().pem())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Root, "verify_delegate", lambda *_: None)  # the thief's own software
        coordinator.publish(2)
    return _version(site) == 2


def believe_any_key(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Root, "verify_delegate", lambda *_: None)


def impostor(folder: Path) -> Finding:
    """Another server in the coordinator's place, with a certificate of another authority."""
    coordinator = Coordinator.create(folder / "coordinator")
    coordinator.publish(1)
    with served(coordinator) as port:
        site = coordinator.site(folder / "site", port, ca=make_authority().certificate)
        won = _version(site) == 1
        code = ReleaseCache(site).status.code
    return Finding(won, "believed" if won else f"refused: {code}")


def believe_any_certificate(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Connection, "tls", lambda _connection: ssl._create_unverified_context())


def _row(
    name: str, what: str, defence: str, crime: Crime, off: Callable[[pytest.MonkeyPatch], None]
) -> Attack:
    return Attack(name, "network thief", what, defence, _with_coordinator(crime), off)


ATTACKS = (
    _row(
        "tampered-release",
        "a release altered on the way",
        "TUF: length and hashes",
        tampered,
        believe_any_bytes,
    ),
    _row(
        "rolled-back-release",
        "an older release, validly signed",
        "versions only rise",
        rolled_back,
        forget_versions,
    ),
    _row(
        "frozen-releases",
        "the same old repository for ever",
        "TUF: the timestamp expires",
        frozen,
        never_expire,
    ),
    _row(
        "mixed-releases",
        "new snapshot, old targets",
        "TUF: the snapshot names versions",
        mixed,
        believe_any_mixture,
    ),
    Attack(
        "publish-with-a-site-key",
        "stolen site key",
        "a release signed by who is no coordinator",
        "TUF: keys that the root names",
        _with_coordinator(foreign_key),
        believe_any_key,
    ),
    Attack(
        "impostor-coordinator",
        "network thief",
        "another server in the coordinator's place",
        "TLS, the federation's own authority",
        impostor,
        believe_any_certificate,
    ),
)
