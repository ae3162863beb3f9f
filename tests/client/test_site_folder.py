import stat
from pathlib import Path

import pytest

from client.settings import SiteSettings
from client.site_folder import NodeKey, create_site_folder
from common.errors import ConfigurationError
from common.signing import SigningKey

POLICY = 'allowed_recipes = ["dermoscopy"]\n'


def _create(folder: Path, **changes: object) -> SiteSettings:
    arguments: dict[str, object] = {
        "name": "north",
        "task": "dermoscopy",
        "plan_keys": [SigningKey.generate().verify_key.pem()],
        "policy": POLICY,
        **changes,
    }
    return create_site_folder(folder, **arguments)  # type: ignore[arg-type]


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_layout_and_modes(tmp_path: Path) -> None:
    folder = tmp_path / "sites" / "north"
    key = NodeKey(private=b"private", public=b"public")
    settings = _create(
        folder, settings={"port": 8600}, root_json=b"{}", ca_certificate=b"ca", node_key=key
    )
    assert (settings.name, settings.port) == ("north", 8600)
    assert settings.folder == folder.resolve()
    assert _mode(folder) == 0o700
    assert _mode(folder / "keys") == 0o700
    assert _mode(folder / "keys" / "pseudonyms") == 0o600
    assert _mode(folder / "keys" / "node") == 0o600
    assert len(bytes.fromhex((folder / "keys" / "pseudonyms").read_text())) == 32
    assert (folder / "policy.toml").read_text() == POLICY
    assert (folder / "trust" / "ca.crt").read_bytes() == b"ca"
    assert [p.suffix for p in (folder / "trust" / "plan-keys").iterdir()] == [".pem"]


def test_two_sites_have_different_pseudonym_secrets(tmp_path: Path) -> None:
    secrets = set()
    for name in ("a", "b"):
        _create(tmp_path / name, name=name)
        secrets.add((tmp_path / name / "keys" / "pseudonyms").read_text())
    assert len(secrets) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "No Such Name"},
        {"settings": {"port": -1}},
        {"settings": {"unknown": 1}},
        {"plan_keys": [b"no key"]},
    ],
)
def test_a_wrong_field_leaves_nothing_behind(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        _create(tmp_path / "site", **wrong)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_site_is_never_overwritten(tmp_path: Path) -> None:
    _create(tmp_path / "site")
    before = (tmp_path / "site" / "keys" / "pseudonyms").read_bytes()
    with pytest.raises(ConfigurationError) as caught:
        _create(tmp_path / "site")
    assert caught.value.code == "folder-exists"
    assert (tmp_path / "site" / "keys" / "pseudonyms").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["site"]
