"""An error that has no business at the HTTP edge says nothing there but its code."""

from __future__ import annotations

import pytest

from client.api.errors import answer_of, problem_of
from common.errors import (
    ConfigurationError,
    InputRefused,
    PrivacyRefused,
    ProcessError,
    WardroundError,
)

PLANTED = "PlantedDoe"


@pytest.mark.parametrize("path", ["/predict", "/v2/models/dermoscopy/infer"])
@pytest.mark.parametrize("kind", [WardroundError, ConfigurationError, PrivacyRefused])
def test_what_failed_inside_is_not_told(path: str, kind: type[WardroundError]) -> None:
    error = kind(PLANTED, meaning=PLANTED, action=PLANTED, code="inside")
    answer = answer_of(error, path=path, request_id="r")
    assert answer.status_code == 500
    assert PLANTED.encode() not in bytes(answer.body)


def test_its_code_is_so_that_hospital_it_can_find_it() -> None:
    found = problem_of(ConfigurationError(PLANTED, code="inside"), request_id="r")
    assert (found.status, found.code, found.request_id) == (500, "inside", "r")
    assert PLANTED not in found.model_dump_json()
    told = problem_of(InputRefused("The label is missing."), request_id="r")
    assert (told.status, told.what) == (422, "The label is missing.")


def test_an_image_that_no_decoder_could_look_at_may_be_sent_again() -> None:
    error = ProcessError("", code="dicom-decoder-unavailable")
    answer = answer_of(error, path="/cases", request_id="r")
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
