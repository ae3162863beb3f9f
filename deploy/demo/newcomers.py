"""New cases at a hospital: posted and confirmed over HTTP, as a clinician does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from common.errors import ProcessError
from deploy.demo.hospitals import Newcomer


def confirm_new_cases(
    cases: Sequence[Newcomer], hospital: str, url: str, *, log: Path, on_done: Callable[[int], None]
) -> None:
    """Post each case to a hospital's service and confirm its label; ``on_done`` is told how many.

    Raises
    ------
    ProcessError
        If the service did not take one; it names ``log``.
    """
    try:
        with httpx.Client(base_url=url, timeout=30.0, trust_env=False) as client:
            for done, case in enumerate(cases, start=1):
                _confirm(client, case)
                on_done(done)
    except httpx.HTTPError as error:
        raise ProcessError(
            f"The service of {hospital} did not take a new case ({error}).",
            action=f"Read {log}.",
        ) from error


def _confirm(client: httpx.Client, case: Newcomer) -> None:
    form = {} if case.patient_id is None else {"patient_id": case.patient_id}
    answer = client.post("/cases", data=form, files={"image": ("image", case.read())})
    answer.raise_for_status()
    path = f"/cases/{answer.json()['case_id']}/confirm"
    client.post(path, json={"label": case.label}).raise_for_status()
