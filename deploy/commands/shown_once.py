"""A key or token on the terminal: the one time that it is shown."""

from __future__ import annotations

from pydantic import BaseModel
from rich.console import Console

from deploy.console import emit


def emit_secret(document: BaseModel, secret: str, *, as_json: bool) -> None:
    """Print a new secret with how it is sent, or the document that holds it."""

    def show(console: Console) -> None:
        console.print("Send it as `Authorization: Bearer …`. It is shown this once:")
        console.print(secret, highlight=False, markup=False, soft_wrap=True)

    emit(document, as_json=as_json, show=show)
