"""Asking for a new password: from a file or, twice, from the terminal; never from an argument."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

from common.errors import InputRefused

PasswordFile = Annotated[
    Path | None,
    typer.Option(help="File that holds the password; without it, it is asked for."),
]


def read_password(file: Path | None) -> str:
    """Return the password that a file holds, or that is typed twice.

    Raises
    ------
    InputRefused
        With code ``password-missing`` without a terminal, ``password-differs``, or
        ``password-file`` when the file cannot be read.
    """
    if file is not None:
        return _held_by(file)
    if not sys.stdin.isatty():
        raise InputRefused(
            "There is no terminal to ask for the password.",
            action="Name a file that holds it with --password-file.",
            code="password-missing",
        )
    typed = getpass.getpass("Password: ")
    if typed != getpass.getpass("Once more: "):
        raise InputRefused(
            "The two passwords differ.", action="Type the same one twice.", code="password-differs"
        )
    return typed


def _held_by(file: Path) -> str:
    try:
        return file.read_text("utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise InputRefused(
            f"The password file {file} cannot be read ({reason}).",
            action="Name a text file that you can read with --password-file.",
            code="password-file",
        ) from None
