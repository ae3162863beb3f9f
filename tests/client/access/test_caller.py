import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from client.access.caller import (
    Caller,
    CallerDependency,
    ClosedDoor,
    NotAllowed,
    NotSignedIn,
    OpenDoor,
    Role,
    requires,
    set_door,
)


def app_with(door: object) -> TestClient:
    app = FastAPI()
    set_door(app, door)  # type: ignore[arg-type]

    @app.get("/for-it", dependencies=[requires(Role.it)])
    async def for_it(caller: CallerDependency) -> str:
        return caller.name

    return TestClient(app)


class Knows:
    def __init__(self, caller: Caller) -> None:
        self.known = caller

    async def caller(self, _request: object) -> Caller:
        return self.known


def test_an_open_door_lets_everybody_in_as_one_caller_with_every_role() -> None:
    assert app_with(OpenDoor()).get("/for-it").json() == "local"


def test_a_closed_door_lets_nobody_in() -> None:
    with pytest.raises(NotSignedIn):
        app_with(ClosedDoor()).get("/for-it")


def test_a_role_that_the_route_does_not_name_is_refused() -> None:
    with pytest.raises(NotAllowed) as refused:
        app_with(Knows(Caller("dr-house", frozenset({Role.clinician, Role.auditor})))).get(
            "/for-it"
        )
    assert refused.value.code == "role-missing"
    both = Caller("anna", frozenset({Role.it, Role.auditor}))
    assert app_with(Knows(both)).get("/for-it").json() == "anna"


def test_a_route_cannot_name_no_role() -> None:
    with pytest.raises(ValueError, match="at least one role"):
        requires()
