"""`wardround coordinator user …`: who may use the coordinator's page and interface."""

from __future__ import annotations

import getpass
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel, ConfigDict
from rich.console import Console

from deploy.commands.flags import AsJson, Folder
from deploy.commands.password import PasswordFile, read_password
from deploy.commands.registry import opened_registry
from deploy.commands.shown_once import emit_secret
from deploy.console import emit
from deploy.tables import Table
from server.accounts.records import Account, Role

if TYPE_CHECKING:
    from server.accounts.store import Accounts

commands = typer.Typer(no_args_is_help=True, help="Accounts of the coordinator's page.")

Name = Annotated[str, typer.Argument(help="The account's name.")]
RoleOption = Annotated[Role, typer.Option(help="viewer looks, operator runs, approver decides.")]


class AccountDocument(BaseModel):
    """One account; it may sign in unless it is disabled or has no password."""

    model_config = ConfigDict(frozen=True)

    name: str
    role: Role
    has_password: bool
    created_at: datetime
    disabled_at: datetime | None

    @classmethod
    def of(cls, account: Account) -> AccountDocument:
        """Describe an account."""
        fields = ("name", "role", "has_password", "created_at", "disabled_at")
        return cls(**{field: getattr(account, field) for field in fields})


class AccountsDocument(BaseModel):
    """All accounts: what every command of this group prints with ``--json``."""

    model_config = ConfigDict(frozen=True)

    accounts: tuple[AccountDocument, ...]


class TokenDocument(BaseModel):
    """A new token, shown this once."""

    model_config = ConfigDict(frozen=True)

    account: str
    token: str
    days: int


@commands.command("add")
def add(
    name: Name,
    role: RoleOption = "viewer",
    folder: Folder = Path(),
    password_file: PasswordFile = None,
    token_only: Annotated[
        bool, typer.Option("--token-only", help="For a script: no password, tokens alone.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make an account."""
    with _accounts(folder) as accounts:
        password = None if token_only else read_password(password_file)
        accounts.add(name, role, password=password, by=caller())
        _show(accounts, as_json=as_json)


@commands.command("list")
def list_accounts(folder: Folder = Path(), as_json: AsJson = False) -> None:
    """List all accounts."""
    with _accounts(folder) as accounts:
        _show(accounts, as_json=as_json)


@commands.command("password")
def password(
    name: Name, folder: Folder = Path(), password_file: PasswordFile = None, as_json: AsJson = False
) -> None:
    """Set a new password, and end all sessions and tokens of the account."""
    with _accounts(folder) as accounts:
        accounts.set_password(name, read_password(password_file), by=caller())
        _show(accounts, as_json=as_json)


@commands.command("role")
def role(name: Name, role: RoleOption, folder: Folder = Path(), as_json: AsJson = False) -> None:
    """Give an account another role."""
    with _accounts(folder) as accounts:
        accounts.set_role(name, role, by=caller())
        _show(accounts, as_json=as_json)


@commands.command("disable")
def disable(name: Name, folder: Folder = Path(), as_json: AsJson = False) -> None:
    """Shut an account out at once; it stays on record."""
    with _accounts(folder) as accounts:
        accounts.disable(name, by=caller())
        _show(accounts, as_json=as_json)


@commands.command("enable")
def enable(name: Name, folder: Folder = Path(), as_json: AsJson = False) -> None:
    """Let a disabled account in again."""
    with _accounts(folder) as accounts:
        accounts.enable(name, by=caller())
        _show(accounts, as_json=as_json)


@commands.command("token")
def token(
    name: Name,
    days: Annotated[int, typer.Option(min=1, max=366, help="How long it lives.")] = 90,
    folder: Folder = Path(),
    as_json: AsJson = False,
) -> None:
    """Make a token with which a script reads the interface, in the account's role."""
    with _accounts(folder) as accounts:
        secret = accounts.issue_token(name, life=timedelta(days=days), by=caller())
    document = TokenDocument(account=name, token=secret, days=days)
    emit_secret(document, secret, as_json=as_json)


def caller() -> str:
    """Return who runs this command, as the audit log names it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"console-{re.sub(r'[^a-z0-9._-]', '-', user.lower())[:50]}"


@contextmanager
def _accounts(folder: Path) -> Iterator[Accounts]:
    with opened_registry(folder) as registry:
        yield registry.accounts


def _show(accounts: Accounts, *, as_json: bool) -> None:
    document = AccountsDocument(accounts=tuple(AccountDocument.of(a) for a in accounts.all()))

    def show(console: Console) -> None:
        table = Table("account", "role", "signs in by", "disabled")
        for found in document.accounts:
            by = "password" if found.has_password else "token"
            since = "" if found.disabled_at is None else f"{found.disabled_at:%Y-%m-%d %H:%M}"
            table.add_row(found.name, found.role, by, since)
        console.print(table if document.accounts else "There is no account yet.")

    emit(document, as_json=as_json, show=show)
