"""Rotating the key that signs round plans: announce, activate, retire.

A site believes every key in its ``trust/plan-keys``, and the coordinator signs with one. So the
new public key reaches every site BEFORE the coordinator signs with it, and the old one leaves
the sites after; in between both are valid and no round is lost.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from common.errors import ConfigurationError
from common.folders import write_private, write_public
from common.signing import SigningKey
from deploy.pki import book
from server.settings import CoordinatorSettings

NEXT = "plan-next.pem"


class RotatedPlanKey(BaseModel):
    """Where a rotation stands.

    ``public_keys`` are the files that every site must hold in ``trust/plan-keys`` now;
    ``installed`` names the sites whose kit is in the federation's folder and has them.
    """

    model_config = ConfigDict(frozen=True)

    signing: str
    announced: str | None
    public_keys: tuple[Path, ...]
    installed: tuple[str, ...]


def announce(folder: Path) -> RotatedPlanKey:
    """Make the next plan key and hand its public half out; a second call hands out the same."""
    settings = CoordinatorSettings.find(folder)
    with book.opened(settings):
        path = settings.keys / NEXT
        if not path.is_file():
            write_private(path, SigningKey.generate().pem())
        for name in ("plan.pem", NEXT):
            _publish(settings, SigningKey.read(settings.keys / name))
        return _standing(folder, settings)


def activate(folder: Path) -> RotatedPlanKey:
    """Sign with the announced key from the next campaign on; the old public key stays at sites.

    Raises
    ------
    ConfigurationError
        If none was announced (code ``no-plan-key-announced``).
    """
    settings = CoordinatorSettings.find(folder)
    with book.opened(settings):
        path = settings.keys / NEXT
        if not path.is_file():
            raise ConfigurationError(
                "No new plan key was announced.",
                action="Run `wardround pki rotate-plan-key` first, and bring its file to every "
                "site's trust/plan-keys.",
                code="no-plan-key-announced",
            )
        path.replace(settings.keys / "plan.pem")
        return _standing(folder, settings)


def retire(folder: Path) -> RotatedPlanKey:
    """Drop every public key but those in use; sites delete the file of the old one."""
    settings = CoordinatorSettings.find(folder)
    with book.opened(settings):
        kept = {SigningKey.read(p).verify_key.key_id for p in _private_keys(settings)}
        public = {SigningKey.read(p).verify_key.pem() for p in _private_keys(settings)}
        for path in (settings.pki / "plan-keys").glob("*.pem"):
            if path.stem not in kept:
                path.unlink()
        for site in _kits(folder):
            held = list((site / "trust" / "plan-keys").glob("*.pem"))
            if any(path.read_bytes() in public for path in held):  # never the last that counts
                for path in held:
                    if path.read_bytes() not in public:
                        path.unlink()
        return _standing(folder, settings)


def public_keys(settings: CoordinatorSettings) -> list[bytes]:
    """Return the public plan keys (PEM) that a new site must hold: the one in use and the next."""
    return [SigningKey.read(path).verify_key.pem() for path in _private_keys(settings)]


def _private_keys(settings: CoordinatorSettings) -> list[Path]:
    return [p for p in (settings.keys / "plan.pem", settings.keys / NEXT) if p.is_file()]


def _publish(settings: CoordinatorSettings, key: SigningKey) -> None:
    name = f"{key.verify_key.key_id}.pem"
    write_public(settings.pki / "plan-keys" / name, key.verify_key.pem())


def _standing(folder: Path, settings: CoordinatorSettings) -> RotatedPlanKey:
    files = tuple(sorted((settings.pki / "plan-keys").glob("*.pem")))
    installed = []
    for site in _kits(folder):
        trusted = site / "trust" / "plan-keys"
        held = {path.read_bytes() for path in trusted.glob("*.pem")}
        for path in files:
            if path.read_bytes() not in held:
                write_public(trusted / path.name, path.read_bytes())
        installed.append(site.name)
    following = settings.keys / NEXT
    return RotatedPlanKey(
        signing=SigningKey.read(settings.keys / "plan.pem").verify_key.key_id,
        announced=SigningKey.read(following).verify_key.key_id if following.is_file() else None,
        public_keys=files,
        installed=tuple(installed),
    )


def _kits(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("sites/*/site.toml"))
