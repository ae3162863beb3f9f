import hashlib
import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from client.policy import SitePolicy
from client.settings import SiteSettings
from common.errors import ConfigurationError
from common.signing import SigningKey, VerifyKey
from deploy.pki.renewal import renew_server, revoke_site
from deploy.provision import provision
from server.settings import CoordinatorSettings


def digests(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.name.endswith(".lock")
    }


def test_a_federation_from_nothing(tmp_path: Path) -> None:
    done = provision(tmp_path, sites=["north", "south"], task="dermoscopy", hosts=["c.example"])
    assert done.coordinator_created
    assert [(kit.name, kit.created) for kit in done.sites] == [("north", True), ("south", True)]
    assert done.hosts[0] == "c.example"
    coordinator = CoordinatorSettings.read(done.coordinator)
    site = SiteSettings.read(tmp_path / "sites" / "north")
    assert site.superlink == f"c.example:{coordinator.gateway_port}"
    assert site.coordinator_url == f"https://c.example:{coordinator.gateway_port}"
    trusted = VerifyKey.read(next((site.trust / "plan-keys").glob("*.pem")))
    signature = SigningKey.read(coordinator.keys / "plan.pem").sign(b"plan")
    assert trusted.accepts(b"plan", signature)
    policy = SitePolicy.read(site.folder / "policy.toml")
    assert policy.allowed_recipes == ("dermoscopy",)
    assert not policy.allow_without_privacy


def test_secrets_are_private_and_none_is_shared(tmp_path: Path) -> None:
    provision(tmp_path, sites=["north", "south"], task="dermoscopy")
    public = {"ca.crt", "server.crt", "node.pub", "site.crt"}
    secrets: list[bytes] = []
    for keys in [tmp_path / "coordinator" / "keys", *tmp_path.glob("sites/*/keys")]:
        assert stat.S_IMODE(keys.stat().st_mode) == 0o700
        for path in keys.rglob("*"):
            if path.is_file() and path.name not in public:
                assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
                secrets.append(path.read_bytes())
    assert len(set(secrets)) == len(secrets)
    coordinators = [p.read_bytes() for p in (tmp_path / "coordinator/keys").rglob("*.key")]
    for kit in tmp_path.glob("sites/*"):
        held = [p.read_bytes() for p in kit.rglob("*") if p.is_file()]
        assert not set(coordinators) & set(held), "a kit holds a coordinator's key"


def test_a_second_run_adds_sites_and_changes_nothing(tmp_path: Path) -> None:
    provision(tmp_path, sites=["north"], task="dermoscopy")
    before = digests(tmp_path)
    done = provision(tmp_path, sites=["north", "south"], task="mammography")
    assert not done.coordinator_created
    assert [kit.created for kit in done.sites] == [False, True]
    after = digests(tmp_path)
    assert {name: after[name] for name in before} == before
    assert SiteSettings.read(tmp_path / "sites" / "south").task == "mammography"


def test_a_site_whose_kit_was_handed_over_keeps_its_keys(tmp_path: Path) -> None:
    provision(tmp_path, sites=["north"], task="dermoscopy", hosts=["c.example"])
    shutil.rmtree(tmp_path / "sites" / "north")  # at the hospital now, and deleted here
    before = digests(tmp_path / "coordinator" / "pki")
    done = provision(tmp_path, sites=["north", "south"], task="dermoscopy", hosts=["c.example"])
    states = [(kit.name, kit.created, kit.handed_over) for kit in done.sites]
    assert states == [("north", False, True), ("south", True, False)]
    assert not (tmp_path / "sites" / "north").exists()
    after = digests(tmp_path / "coordinator" / "pki")
    assert {name: after[name] for name in before} == before


def test_a_kit_that_a_crash_kept_from_appearing_is_made_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provision(tmp_path, sites=["north"], task="dermoscopy")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as crash:
        crash.setattr("deploy.provision.create_site_folder", killed)
        with pytest.raises(KeyboardInterrupt):
            provision(tmp_path, sites=["south"], task="dermoscopy")
    (south,) = provision(tmp_path, sites=["south"], task="dermoscopy").sites
    assert south.created
    assert (tmp_path / "coordinator" / "pki" / "nodes" / "south.pub").read_bytes() == (
        south.folder / "keys" / "node.pub"
    ).read_bytes()


def test_a_revoked_site_is_not_provisioned_again(tmp_path: Path) -> None:
    provision(tmp_path, sites=["north"], task="dermoscopy")
    revoke_site(tmp_path, "north")
    shutil.rmtree(tmp_path / "sites" / "north")
    with pytest.raises(ConfigurationError) as caught:
        provision(tmp_path, sites=["north"], task="dermoscopy")
    assert caught.value.code == "site-revoked"
    assert not (tmp_path / "sites" / "north").exists()


def test_new_kits_go_to_the_name_that_the_coordinator_was_given_last(tmp_path: Path) -> None:
    provision(tmp_path, sites=["north"], task="dermoscopy", hosts=["old.example"])
    with pytest.raises(ConfigurationError, match=r"renew-server"):
        provision(tmp_path, sites=["south"], task="dermoscopy", hosts=["new.example"])
    renew_server(tmp_path, ["new.example"])
    done = provision(tmp_path, sites=["south"], task="dermoscopy", hosts=["new.example"])
    south = SiteSettings.read(done.sites[0].folder)
    assert south.coordinator_url.startswith("https://new.example:")
    assert "old.example" in done.hosts


@pytest.mark.parametrize("part", ["coordinator", "sites/north"])
def test_no_federation_is_made_inside_a_part_of_one(tmp_path: Path, part: str) -> None:
    provision(tmp_path, sites=["north"], task="dermoscopy")
    before = digests(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        provision(tmp_path / part, sites=["east"], task="dermoscopy")
    assert caught.value.code == "not-a-federation"
    assert caught.value.action == f"Name {tmp_path.resolve()}."
    assert digests(tmp_path) == before


@pytest.mark.parametrize("names", [["North"], ["../evil"], ["a/b"], [""], ["same", "same"]])
def test_a_wrong_name_makes_nothing(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(ConfigurationError):
        provision(tmp_path / "f", sites=names, task="dermoscopy")
    assert not (tmp_path / "f").exists()


def test_a_host_that_the_certificate_lacks_is_refused(tmp_path: Path) -> None:
    provision(tmp_path, sites=["north"], task="dermoscopy", hosts=["a.example"])
    with pytest.raises(ConfigurationError, match=r"b\.example"):
        provision(tmp_path, sites=["north"], task="dermoscopy", hosts=["b.example"])


def test_the_command_prints_one_document(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deploy.cli", "provision", "--folder", str(tmp_path)]
    command += ["--site", "north", "--site", "south", "--task", "dermoscopy", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    assert [kit["name"] for kit in document["sites"]] == ["north", "south"]
    assert document["certificate_expires_at"] < document["authority_expires_at"]
