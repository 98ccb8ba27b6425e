"""One endpoint's data-plane calls as an OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.0)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from servelens.control.stored_endpoint import StoredEndpoint

_TASKS: Final = {
    "llm/v1/chat": ("chat",),
    "llm/v1/completions": ("completions",),
    "llm/v1/embeddings": ("embeddings",),
}
_APIS: Final[Mapping[str, tuple[str, ...]]] = {
    "openai": ("chat", "completions", "embeddings", "responses"),
    "anthropic": ("chat",),
    "cohere": ("chat",),
    "ai21labs": ("chat",),
    "mlflow": ("scoring",),
    "kserve": ("scoring", "infer"),
}
_JSON: Final = "application/json"
_STREAM: Final = "text/event-stream"

_TEXT: Final[Mapping[str, Any]] = {"type": "string"}
_NUMBER: Final[Mapping[str, Any]] = {"type": "number"}
_COUNT: Final[Mapping[str, Any]] = {"type": "integer", "minimum": 0}
_FLAG: Final[Mapping[str, Any]] = {"type": "boolean"}
_STOP: Final[Mapping[str, Any]] = {"oneOf": [_TEXT, {"type": "array", "items": _TEXT}]}
_SAMPLING: Final[Mapping[str, Any]] = {
    "max_tokens": _COUNT,
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "n": _COUNT,
    "stop": _STOP,
    "stream": _FLAG,
}
_MESSAGE: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": {"type": "string", "enum": ["system", "developer", "user", "assistant", "tool"]},
        "content": {"oneOf": [_TEXT, {"type": "array", "items": {"type": "object"}}, {"type": "null"}]},
    },
}
_USAGE: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {"prompt_tokens": _COUNT, "completion_tokens": _COUNT, "total_tokens": _COUNT},
}


def _object(required: list[str], properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": dict(properties)}


_TABLE: Final = _object(
    ["data"],
    {
        "columns": {"type": "array", "items": _TEXT},
        "index": {"type": "array"},
        "data": {"type": "array", "items": {"type": "array"}},
    },
)
_TENSOR: Final = _object(
    ["name", "shape", "datatype", "data"],
    {
        "name": _TEXT,
        "shape": {"type": "array", "items": _COUNT},
        "datatype": _TEXT,
        "data": {"type": "array"},
    },
)
_REQUESTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "chat": _object(["messages"], {"messages": {"type": "array", "items": _MESSAGE}, **_SAMPLING}),
    "completions": _object(["prompt"], {"prompt": _STOP, **_SAMPLING}),
    "embeddings": _object(["input"], {"input": _STOP}),
    "responses": _object(["input"], {"input": {}, "max_output_tokens": _COUNT, "stream": _FLAG}),
    "scoring": {
        "type": "object",
        "oneOf": [
            _object(["dataframe_split"], {"dataframe_split": _TABLE}),
            _object(["dataframe_records"], {"dataframe_records": {"type": "array"}}),
            _object(["instances"], {"instances": {"type": "array"}}),
            _object(["inputs"], {"inputs": {}}),
        ],
    },
    "infer": _object(["inputs"], {"id": _TEXT, "inputs": {"type": "array", "items": _TENSOR}}),
}
_ANSWERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "chat": _object(
        ["choices"],
        {
            "id": _TEXT,
            "choices": {"type": "array", "items": _object(["message"], {"message": _MESSAGE})},
            "usage": _USAGE,
        },
    ),
    "completions": _object(
        ["choices"],
        {
            "id": _TEXT,
            "choices": {"type": "array", "items": _object(["text"], {"text": _TEXT})},
            "usage": _USAGE,
        },
    ),
    "embeddings": _object(
        ["data"], {"data": {"type": "array", "items": {"type": "object"}}, "usage": _USAGE}
    ),
    "responses": _object(["output"], {"id": _TEXT, "output": {"type": "array"}}),
    "scoring": _object(["predictions"], {"predictions": {}}),
    "infer": _object(["outputs"], {"outputs": {"type": "array", "items": _TENSOR}}),
}
_STREAMED: Final = frozenset({"chat", "completions", "responses"})
_PATHS: Final = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "responses": "/v1/responses",
}


def document(endpoint: StoredEndpoint, server: str) -> dict[str, Any]:
    """What clients of ``endpoint`` may send to the proxy at ``server``, and what they get."""
    kinds = _kinds(endpoint.shown["config"]["served_entities"])
    bodies = [kind for kind in kinds if kind not in ("responses", "infer")]
    invocations = f"/serving-endpoints/{endpoint.name}/invocations"
    paths: dict[str, Any] = {invocations: {"post": _operation("invocations", bodies, named=True)}}
    for kind in kinds:
        if kind in _PATHS:
            paths[_PATHS[kind]] = {"post": _operation(kind, [kind], named=False, model=endpoint.name)}
    if "infer" in kinds:
        paths[f"/v2/models/{endpoint.name}/infer"] = {"post": _operation("infer", ["infer"], named=True)}
    return {
        "openapi": "3.1.0",
        "info": {"title": endpoint.name, "version": str(endpoint.config_version)},
        "servers": [{"url": server}],
        "paths": paths,
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}, {}],
    }


def _kinds(entities: list[Mapping[str, Any]]) -> list[str]:
    """What every served entity of the endpoint can be asked for."""
    common: list[str] | None = None
    for entity in entities:
        external = entity.get("external_model")
        kinds = (
            _TASKS[external.get("task", "llm/v1/chat")]
            if external is not None
            else _APIS[entity["backend"].get("api", "openai")]
        )
        common = list(kinds) if common is None else [kind for kind in common if kind in kinds]
    return common or []


def _operation(name: str, kinds: list[str], *, named: bool, model: str | None = None) -> dict[str, Any]:
    requests = [dict(_REQUESTS[kind]) for kind in kinds]
    if not named:
        requests = [
            {
                **request,
                "required": ["model", *request["required"]],
                "properties": {"model": {"const": model}, **request["properties"]},
            }
            for request in requests
        ]
    answer: dict[str, Any] = {_JSON: {"schema": _one_of([dict(_ANSWERS[kind]) for kind in kinds])}}
    if any(kind in _STREAMED for kind in kinds):
        answer[_STREAM] = {"schema": {"type": "string"}}
    failure = {"description": "The call failed; the body says why.", "content": {_JSON: {"schema": {}}}}
    return {
        "operationId": name,
        "requestBody": {"required": True, "content": {_JSON: {"schema": _one_of(requests)}}},
        "responses": {
            "200": {"description": "The answer.", "content": answer},
            "4XX": failure,
            "5XX": failure,
        },
    }


def _one_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    if not schemas:
        return {"type": "object"}
    return schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
