"""`wardround site user …` and `wardround site key …`: who may use a site's service, and as what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel, ConfigDict
from rich.console import Console

from client.access.roles import Role
from deploy.commands.flags import AsJson, Site
from deploy.commands.password import PasswordFile, read_password
from deploy.commands.shown_once import emit_secret
from deploy.commands.user import caller
from deploy.console import emit
from deploy.tables import Table

if TYPE_CHECKING:
    from client.access.keys import Key, Keys
    from client.access.people import People, Person
    from common.audit_entries import AccountChange

users = typer.Typer(no_args_is_help=True, help="People who sign in to the site's pages.")
keys = typer.Typer(no_args_is_help=True, help="Keys of programs that use the site's interface.")

Days = Annotated[int, typer.Option(min=1, max=3650, help="After so many days the key is refused.")]
Name = Annotated[str, typer.Argument(help="The user's or the key's name.")]
Roles = Annotated[list[Role], typer.Option("--role", help="What they may do; may be given again.")]


class UserDocument(BaseModel):
    """Somebody who may sign in; ``issuer`` is the identity provider where they do, if any."""

    model_config = ConfigDict(frozen=True)

    name: str
    roles: tuple[Role, ...]
    created_at: datetime
    issuer: str | None

    @classmethod
    def of(cls, person: Person) -> UserDocument:
        """Describe a person."""
        return cls(
            name=person.name,
            roles=tuple(sorted(person.roles)),
            created_at=person.created_at,
            issuer=person.issuer,
        )


class UsersDocument(BaseModel):
    """Everybody: what every command of `site user` prints with ``--json``."""

    model_config = ConfigDict(frozen=True)

    users: tuple[UserDocument, ...]


class KeyDocument(BaseModel):
    """A program's key, without its secret; ``last_used`` is a day, an end of null is never."""

    model_config = ConfigDict(frozen=True)

    name: str
    roles: tuple[Role, ...]
    created_at: datetime
    last_used: date | None
    ends_at: datetime | None

    @classmethod
    def of(cls, key: Key) -> KeyDocument:
        """Describe a key."""
        return cls(
            name=key.name,
            roles=tuple(sorted(key.roles)),
            created_at=key.created_at,
            last_used=key.last_used,
            ends_at=key.ends_at,
        )


class KeysDocument(BaseModel):
    """All keys: what `site key list` and `site key remove` print with ``--json``."""

    model_config = ConfigDict(frozen=True)

    keys: tuple[KeyDocument, ...]


class NewKeyDocument(BaseModel):
    """A new key, shown this once."""

    model_config = ConfigDict(frozen=True)

    name: str
    roles: tuple[Role, ...]
    key: str


@users.command("add")
def add_user(
    name: Name,
    role: Roles,
    site: Site = Path(),
    password_file: PasswordFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a user who signs in with a name and a password."""
    with _opened(site) as (people, _):
        people.add(name, role, password=read_password(password_file))
        _note(site, name, "added")
        _show_users(people, as_json=as_json)


@users.command("list")
def list_users(site: Site = Path(), as_json: AsJson = False) -> None:
    """List all users."""
    with _opened(site) as (people, _):
        _show_users(people, as_json=as_json)


@users.command("remove")
def remove_user(name: Name, site: Site = Path(), as_json: AsJson = False) -> None:
    """Remove a user, and end their sessions at once."""
    with _opened(site) as (people, _):
        people.remove(name)
        _note(site, name, "removed")
        _show_users(people, as_json=as_json)


@users.command("password")
def set_password(
    name: Name, site: Site = Path(), password_file: PasswordFile = None, as_json: AsJson = False
) -> None:
    """Set a new password, and end all of the user's sessions."""
    with _opened(site) as (people, _):
        people.set_password(name, read_password(password_file))
        _note(site, name, "password")
        _show_users(people, as_json=as_json)


@keys.command("add")
def add_key(
    name: Name, role: Roles, site: Site = Path(), days: Days = 365, as_json: AsJson = False
) -> None:
    """Make a key for a program and show it, this once."""
    with _opened(site) as (_, known):
        secret = known.add(name, role, life=timedelta(days=days))
        _note(site, name, "key-added")
    document = NewKeyDocument(name=name, roles=tuple(sorted(role)), key=secret)
    emit_secret(document, secret, as_json=as_json)


@keys.command("list")
def list_keys(site: Site = Path(), as_json: AsJson = False) -> None:
    """List all keys, the day on which each was last used, and the one on which it ends."""
    with _opened(site) as (_, known):
        _show_keys(known, as_json=as_json)


@keys.command("remove")
def remove_key(name: Name, site: Site = Path(), as_json: AsJson = False) -> None:
    """Revoke a key; the next request with it is refused."""
    with _opened(site) as (_, known):
        known.remove(name)
        _note(site, name, "key-removed")
        _show_keys(known, as_json=as_json)


def nobody(site: Path) -> bool:
    """Tell whether a site's service has accounts, and nobody who could use it yet."""
    from client.settings import SiteSettings

    settings = SiteSettings.read(site)
    if settings.access == "open" or settings.accounts.provider is not None:
        return False
    with _opened(site) as (people, known):
        return not people.all() and not known.all()


def hint_of_first_user(name: str, folder: Path) -> str:
    """Return what to do about a site that nobody may use yet, from whichever folder."""
    return (
        f"Nobody may use {name}'s page yet. Make the first user in another terminal: "
        f"`wardround site user add NAME --role clinician --site {folder.resolve()}`."
    )


@contextmanager
def _opened(site: Path) -> Iterator[tuple[People, Keys]]:
    from client.access.keys import Keys
    from client.access.people import People
    from client.audit import MIGRATIONS
    from client.settings import SiteSettings
    from common.database import migrate, open_database

    engine = open_database(SiteSettings.read(site).database)
    try:
        migrate(engine, MIGRATIONS)
        yield People(engine), Keys(engine)
    finally:
        engine.dispose()


def _note(site: Path, name: str, change: AccountChange) -> None:
    """Write a change into the site's audit log."""
    from client.audit import open_site_audit
    from client.settings import SiteSettings
    from common.audit_entries import AccountChanged

    with open_site_audit(SiteSettings.read(site)) as log:
        log.append(AccountChanged(account=name, change=change, by=caller()))


def _show_users(people: People, *, as_json: bool) -> None:
    found = tuple(UserDocument.of(person) for person in people.all())

    def show(console: Console) -> None:
        table = Table("user", "roles", "signs in by", "since")
        for user in found:
            by = "password" if user.issuer is None else "identity provider"
            table.add_row(user.name, ", ".join(user.roles), by, f"{user.created_at:%Y-%m-%d}")
        console.print(table if found else "There is no user yet.")

    emit(UsersDocument(users=found), as_json=as_json, show=show)


def _show_keys(known: Keys, *, as_json: bool) -> None:
    found = tuple(KeyDocument.of(key) for key in known.all())

    def show(console: Console) -> None:
        table = Table("key", "roles", "since", "last used", "ends")
        for key in found:
            used = "never" if key.last_used is None else f"{key.last_used}"
            since, ends = f"{key.created_at:%Y-%m-%d}", "never"
            if key.ends_at is not None:
                ends = f"{key.ends_at:%Y-%m-%d}"
            table.add_row(key.name, ", ".join(key.roles), since, used, ends)
        console.print(table if found else "There is no key yet.")

    emit(KeysDocument(keys=found), as_json=as_json, show=show)
