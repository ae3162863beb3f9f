"""The JSON objects of the Open Inference Protocol v2 (REST part), as far as they are used."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_serializer

from client.api.errors import form_error
from common.errors import InputRefused

Parameters: TypeAlias = dict[str, str | float | bool]
Dimension: TypeAlias = Annotated[int, Field(ge=0, le=2**63 - 1)]
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=64)]


class _Object(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class ServerLive(_Object):
    """``$live_server_response``."""

    live: Literal[True] = True


class ServerReady(_Object):
    """``$ready_server_response``, and whether a model is loaded."""

    live: Literal[True] = True
    ready: bool


class ServerMetadata(_Object):
    """``$metadata_server_response``."""

    name: str
    version: str
    extensions: tuple[str, ...]


class TensorMetadata(_Object):
    """``$metadata_tensor``; -1 is a variable dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelMetadata(_Object):
    """``$metadata_model_response``."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


class ModelReady(_Object):
    """``$ready_model_response``."""

    name: str
    ready: Literal[True] = True


class V2Error(_Object):
    """``$inference_error_response`` and its like."""

    error: str


class RequestInput(_Object):
    """``$request_input``; ``data`` is looked at by `protocol_v2_tensors`."""

    name: Name
    shape: Annotated[tuple[Dimension, ...], Field(max_length=8)]
    datatype: Annotated[str, Field(max_length=8)]
    parameters: dict[str, Any] | None = None
    data: list[Any]


class RequestOutput(_Object):
    """``$request_output``."""

    name: Name
    parameters: dict[str, Any] | None = None


class InferenceRequest(_Object):
    """``$inference_request``. ``id`` is the caller's; it is given back, and kept nowhere."""

    id: Annotated[str, Field(max_length=256)] | None = None
    parameters: dict[str, Any] | None = None
    inputs: Annotated[list[RequestInput], Field(min_length=1, max_length=1)]
    outputs: Annotated[list[RequestOutput], Field(max_length=8)] | None = None

    @classmethod
    def read(cls, body: bytes) -> InferenceRequest:
        """Read a request's body; may take a while.

        Raises
        ------
        InputRefused
            With code ``request-invalid``.
        """
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            raise form_error(error) from error
        except RecursionError as error:
            raise InputRefused("The JSON is too deep.", code="request-invalid") from error


class ResponseOutput(_Object):
    """``$response_output``; ``data`` is flat, row by row."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    parameters: Parameters | None = None
    data: list[float] | list[str]

    @model_serializer(mode="wrap")
    def _without_absent(self, inner: Any) -> dict[str, Any]:
        return _present(inner(self))


class InferenceResponse(_Object):
    """``$inference_response``; ``id`` only where the request had one."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[ResponseOutput]

    @model_serializer(mode="wrap")
    def _without_absent(self, inner: Any) -> dict[str, Any]:
        return _present(inner(self))


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
