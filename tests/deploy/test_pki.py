"""The book of certificates by command: what runs out, renewal, revocation, plan-key rotation."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from client.connection import Connection
from client.plan_keys import read_plan_keys
from client.settings import SiteSettings
from common.errors import ConfigurationError, NotFound, StoreError
from common.signing import SigningKey
from deploy.pki import book, expiry, plan_keys, renewal
from deploy.provision import provision
from server.settings import CoordinatorSettings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    provision(tmp_path, sites=["north", "south"], task="dermoscopy")
    return tmp_path


def settings(folder: Path) -> CoordinatorSettings:
    return CoordinatorSettings.read(folder / "coordinator")


def site(folder: Path, name: str) -> SiteSettings:
    return SiteSettings.read(folder / "sites" / name)


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def revoked_serials(folder: Path) -> set[int]:
    data = book.revocation_list(settings(folder)).read_bytes()
    return {entry.serial_number for entry in x509.load_pem_x509_crl(data)}


def command(*words: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "deploy.cli", "pki", *words]
    return subprocess.run(program, capture_output=True, text=True, check=False)


def test_a_kits_certificate_is_its_own_and_for_clients_alone(folder: Path) -> None:
    found = certificate(site(folder, "north").keys / "site.crt")
    assert found.subject.rfc4514_string() == "CN=north"
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    Connection.of(site(folder, "north")).tls()


def test_a_certificate_with_anothers_key_is_refused(folder: Path) -> None:
    shutil.copy(site(folder, "south").keys / "site.key", site(folder, "north").keys / "site.key")
    with pytest.raises(ConfigurationError) as caught:
        Connection.of(site(folder, "north")).tls()
    assert caught.value.code == "site-certificate"


def test_status_tells_what_ends_when(folder: Path) -> None:
    now = datetime.now(UTC)
    assert not expiry.status(folder, now=now).attention
    names = [(one.what, one.subject) for one in expiry.status(folder).certificates]
    assert ("site", "CN=north") in names
    assert {what for what, _ in names} == {"CA", "server", "site", "revocation list"}
    later = expiry.status(folder, now=now + timedelta(days=380))
    states = {one.what: one.state for one in later.certificates}
    assert states == {"CA": "valid", "server": "valid", "site": "expiring",
                      "revocation list": "expiring"}  # fmt: skip
    assert later.attention
    end = expiry.status(folder, now=now + timedelta(days=398))
    assert {one.what: one.state for one in end.certificates}["site"] == "expired"
    at_site = expiry.status(folder / "sites" / "north")
    assert [one.what for one in at_site.certificates] == ["CA", "site"]


def test_the_status_command_has_an_exit_code_of_its_own(folder: Path) -> None:
    fine = command("status", "--folder", str(folder), "--json")
    assert fine.returncode == 0, fine.stderr
    assert not json.loads(fine.stdout)["attention"]
    coordinator = settings(folder)
    path = site(folder, "north").keys / "site.crt"
    from deploy.certificates import make_site_certificate

    short = make_site_certificate(book.authority(coordinator), site="north", days=10)
    path.write_bytes(short.certificate)
    ending = command("status", "--folder", str(folder / "sites" / "north"), "--json")
    assert ending.returncode == 4
    assert json.loads(ending.stdout)["certificates"][1]["state"] == "expiring"


def test_renewal_goes_into_the_kit_or_into_a_part_to_copy(folder: Path) -> None:
    before = certificate(site(folder, "north").keys / "site.crt")
    done = renewal.renew_site(folder, "north")
    assert done.folder == folder / "sites" / "north"
    assert certificate(site(folder, "north").keys / "site.crt") != before
    shutil.rmtree(folder / "sites" / "south")  # handed over, as it should be
    part = renewal.renew_site(folder, "south").folder
    assert part == folder / "renewals" / "south"
    assert stat.S_IMODE((part / "keys" / "site.key").stat().st_mode) == 0o600
    assert sorted(p.name for p in (part / "keys").iterdir()) == ["site.crt", "site.key"]
    assert revoked_serials(folder) == set()
    with pytest.raises(NotFound, match="north"):
        renewal.renew_site(folder, "nowhere")


def test_revocation_takes_every_certificate_of_a_site_and_no_other(folder: Path) -> None:
    first = certificate(site(folder, "north").keys / "site.crt")
    renewal.renew_site(folder, "north")
    second = certificate(site(folder, "north").keys / "site.crt")
    done = renewal.revoke_site(folder, "north")
    assert (done.certificates, done.gateway_reloaded, done.node_removed) == (2, False, False)
    assert revoked_serials(folder) == {first.serial_number, second.serial_number}
    assert set(book.nodes(settings(folder))) == {"south"}
    since = book.revoked(settings(folder))["north"]
    renewal.revoke_site(folder, "north")
    assert book.revoked(settings(folder))["north"] == since
    states = {one.subject: one.state for one in expiry.status(folder).certificates}
    assert states["CN=north"] == "revoked"
    with pytest.raises(NotFound):
        renewal.revoke_site(folder, "nowhere")


def test_what_comes_later_does_not_forget_a_revocation(folder: Path) -> None:
    renewal.revoke_site(folder, "north")
    serials = revoked_serials(folder)
    provision(folder, sites=["east"], task="dermoscopy")
    renewal.renew_site(folder, "south")
    renewal.renew_server(folder)
    assert revoked_serials(folder) == serials
    with pytest.raises(ConfigurationError):
        renewal.renew_site(folder, "north")


def test_a_damaged_book_lets_nobody_in_on_a_guess(folder: Path) -> None:
    renewal.revoke_site(folder, "north")
    (settings(folder).pki / "revoked.json").write_text("{")
    for use in (book.nodes, book.write_revocation_list):
        with pytest.raises(StoreError):
            use(settings(folder))


@pytest.mark.parametrize("hidden", ["north", "issued"])
def test_what_cannot_be_read_is_not_taken_for_nothing(
    folder: Path, hidden: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name), hidden))
    with pytest.raises(StoreError, match="cannot be read") as caught:
        renewal.revoke_site(folder, "north")
    assert "chown" in caught.value.action
    monkeypatch.undo()
    assert book.revoked(settings(folder)) == {}, "it would look as if it had been revoked"


def refusing(real: Callable[..., object], name: str) -> Callable[..., object]:
    """Look into a folder as an account does to which one of that name is closed."""

    def look(path: str | Path = ".") -> object:
        if Path(path).name == name:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    return look


def test_a_damaged_certificate_is_not_taken_for_none(folder: Path) -> None:
    (path,) = (settings(folder).pki / "issued" / "north").iterdir()
    path.write_text("nothing")
    with pytest.raises(StoreError, match="cannot be read"):
        renewal.revoke_site(folder, "north")
    assert book.revoked(settings(folder)) == {}


def test_a_site_without_a_certificate_in_the_book_is_not_called_revoked(folder: Path) -> None:
    shutil.rmtree(settings(folder).pki / "issued" / "north")
    (settings(folder).pki / "issued" / "south" / "left.txt").touch()
    with pytest.raises(StoreError) as caught:
        renewal.revoke_site(folder, "north")
    assert caught.value.code == "certificates-missing"
    assert book.revoked(settings(folder)) == {}
    renewal.renew_site(folder, "north")  # as its action says, where it never had one
    assert renewal.revoke_site(folder, "north").certificates == 1


def test_a_revocation_from_before_certificates_is_repeated(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewal.revoke_site(folder, "north")
    shutil.rmtree(settings(folder).pki / "issued" / "north")
    asked: list[str] = []
    monkeypatch.setattr(renewal, "_remove_node", lambda _, site: asked.append(site) is None)
    done = renewal.revoke_site(folder, "north")
    assert (done.certificates, done.node_removed, asked) == (0, True, ["north"])


def test_status_goes_on_past_a_site_whose_first_certificate_was_cut_off(folder: Path) -> None:
    (settings(folder).pki / "issued" / "east").mkdir()
    assert "CN=east" not in {one.subject for one in expiry.status(folder).certificates}


def test_the_server_certificate_is_renewed_for_the_same_names_and_more(folder: Path) -> None:
    path = settings(folder).keys / "server.crt"
    before = certificate(path)
    renewal.renew_server(folder, ["c.example"])
    after = certificate(path)
    assert after.serial_number != before.serial_number
    names = after.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["c.example", "localhost"]
    assert stat.S_IMODE((settings(folder).keys / "server.key").stat().st_mode) == 0o600


def accepts(folder: Path, name: str, key: SigningKey) -> bool:
    return any(k.accepts(b"p", key.sign(b"p")) for k in read_plan_keys(site(folder, name)))


def test_plan_keys_overlap_so_that_no_round_is_lost(folder: Path) -> None:
    path = settings(folder).keys / "plan.pem"
    old = SigningKey.read(path)
    with pytest.raises(ConfigurationError) as caught:
        plan_keys.activate(folder)
    assert caught.value.code == "no-plan-key-announced"

    announced = plan_keys.announce(folder)
    assert plan_keys.announce(folder) == announced, "a second call makes no third key"
    assert announced.installed == ("north", "south")
    assert SigningKey.read(path).verify_key.key_id == old.verify_key.key_id
    new = SigningKey.read(settings(folder).keys / plan_keys.NEXT)
    assert accepts(folder, "north", old)
    assert accepts(folder, "north", new)
    provision(folder, sites=["east"], task="dermoscopy")
    assert accepts(folder, "east", new), "a site that joins in between needs both"

    plan_keys.activate(folder)
    assert SigningKey.read(path).verify_key.key_id == new.verify_key.key_id
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert accepts(folder, "south", old)

    done = plan_keys.retire(folder)
    assert [p.stem for p in done.public_keys] == [new.verify_key.key_id]
    for name in ("north", "south", "east"):
        assert accepts(folder, name, new)
        assert not accepts(folder, name, old)
