"""Pins the private Flower names on which `client.runner.flower` relies, and how they are used.

Red after an upgrade of Flower means: read the new source before you change pyproject's pin.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import flwr
import httpx
import pytest
from flwr.clientapp import ClientApp
from flwr.proto.fleet_pb2 import PushMessagesRequest, PushMessagesResponse
from flwr.proto.message_pb2 import Message as FlowerMessage
from flwr.proto.node_pb2 import Node
from flwr.supercore.exit import exit_handler
from flwr.supercore.protobuf.client import ProtobufClient
from flwr.supercore.superexec import run_superexec as superexec
from flwr.supercore.superexec.executor import ExecutionSpec, Executor
from flwr.supernode import fleet_http_connection as fleet
from flwr.supernode import start_client_internal as supernode
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.runtime import run_clientapp as clientapp

from client.connection import Connection
from client.runner import flower
from client.runner.executor import ForkingExecutor
from common.errors import ConfigurationError
from deploy.certificates import make_authority


def test_version() -> None:
    assert flwr.__version__.startswith("1.41.")


def test_run_clientapp_installs_and_loads_through_the_names_that_we_replace() -> None:
    names = clientapp.run_clientapp.__code__.co_names
    assert {"install_from_fab", "get_load_client_app_fn"} <= set(names)
    source = inspect.getsource(clientapp.run_clientapp)
    assert "install_from_fab(fab.content, skip_prompt=True)" in source
    assert "client_app(message=message, context=context)" in source
    assert source.count("install_") - source.count("install_from_fab") <= 4, "a new installer?"


def test_run_clientapp_parameters() -> None:
    assert list(inspect.signature(clientapp.run_clientapp).parameters) == [
        "runtime_api_address",
        "token",
        "insecure",
        "certificates",
        "parent_pid",
        "runtime_dependency_install",
    ]


def test_superexec_asks_the_executor_for_its_task_types() -> None:
    names = superexec.run_superexec.__code__.co_names
    assert {"get_executor", "get_eligible_capacity", "reconcile", "launch_task"} <= set(names)
    parameters = inspect.signature(superexec.run_superexec).parameters
    used = {
        "runtime_api_address",
        "insecure",
        "superexec_auth_secret",
        "runtime_dependency_install",
    }
    assert used <= set(parameters)


def test_our_executor_fits_flowers_protocol() -> None:
    for name, method in inspect.getmembers(Executor, inspect.isfunction):
        if name.startswith("_"):
            continue
        ours = inspect.signature(getattr(ForkingExecutor, name)).parameters
        assert list(ours) == list(inspect.signature(method).parameters), name


def test_execution_spec_fields() -> None:
    used = {
        "task_type",
        "runtime_api_address",
        "token",
        "insecure",
        "root_certificates_path",
        "runtime_dependency_install",
        "parent_pid",
        "task_id",
    }
    assert used <= set(ExecutionSpec.__dataclass_fields__)


def test_exit_handlers_are_a_list() -> None:
    assert isinstance(exit_handler.registered_exit_handlers, list)


def test_supernode_sleeps_three_seconds_idle_and_half_a_second_for_a_reply() -> None:
    assert "time" in supernode.start_client_internal.__code__.co_names
    assert "time.sleep(3)" in inspect.getsource(supernode.start_client_internal)
    assert "time.sleep(0.5)" in inspect.getsource(supernode._push_messages)


def test_the_supernode_makes_its_client_through_the_name_that_we_replace() -> None:
    assert "FleetHttpClient" in fleet.http_request_response.__wrapped__.__code__.co_names  # type: ignore[attr-defined]
    source = inspect.getsource(ProtobufClient.from_server_address)
    assert "return cls(" in source
    source = inspect.getsource(ProtobufClient)
    assert "self._client = httpx.Client(" in source
    assert source.count("httpx.Client(") == 1, "a second client would go past ours"


def test_the_supernodes_client_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "FleetHttpClient", FleetHttpClient)  # put back afterwards
    ca = tmp_path / "ca.crt"
    ca.write_bytes(make_authority().certificate)
    flower.connect_supernode(Connection(ca=ca, proxy="http://127.0.0.1:9"))
    with fleet.FleetHttpClient.from_server_address(
        "c.example:1", False, str(ca), interceptors=[]
    ) as client:
        ours = client._client
        assert not ours.follow_redirects
        assert not ours.trust_env
        with pytest.raises(httpx.ConnectError):  # the proxy is asked, not c.example's DNS
            ours.get("https://c.example:1/")


def test_a_reply_leaves_without_the_time_that_it_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "client.PushMessages" in inspect.getsource(fleet.http_request_response)
    fields = set(PushMessagesRequest.DESCRIPTOR.fields_by_name)
    told = {"node", "messages_list", "message_object_trees", "clientapp_runtime_list", "session_id"}
    assert fields <= told, "something new leaves with each reply"
    sent: list[PushMessagesRequest] = []

    def keep(_: object, *, request: PushMessagesRequest, **__: object) -> PushMessagesResponse:
        sent.append(request)
        return PushMessagesResponse()

    monkeypatch.setattr(fleet, "FleetHttpClient", FleetHttpClient)  # put back afterwards
    monkeypatch.setattr(ProtobufClient, "_unary_unary", keep)
    ca = tmp_path / "ca.crt"
    ca.write_bytes(make_authority().certificate)
    flower.connect_supernode(Connection(ca=ca, proxy="http://127.0.0.1:9"))
    with fleet.FleetHttpClient.from_server_address(
        "c.example:1", False, str(ca), interceptors=[]
    ) as client:
        client.PushMessages(
            PushMessagesRequest(
                node=Node(node_id=7),
                messages_list=[FlowerMessage()],
                clientapp_runtime_list=[1.234567],
            )
        )
    assert [
        (r.node.node_id, len(r.messages_list), list(r.clientapp_runtime_list)) for r in sent
    ] == [(7, 1, [])]


def test_a_missing_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(superexec, "get_executor")
    executor = ForkingExecutor(lambda _: (_ for _ in ()).throw(SystemExit), pace=None)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError) as caught:
        flower.serve(executor, runtime_address="127.0.0.1:1", secret=b"x")
    assert caught.value.code == "flower-version"


def test_guarded_app_is_callable_as_flower_calls_it() -> None:
    assert list(inspect.signature(flower.guarded(ClientApp())).parameters) == ["message", "context"]
