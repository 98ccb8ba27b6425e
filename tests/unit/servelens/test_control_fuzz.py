"""Whatever JSON is sent, the answer is an endpoint or an Invalid that says what is wrong, never an accident."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from fastapi.responses import JSONResponse
from hypothesis import given
from hypothesis import strategies as st

from servelens.control.endpoint_answers import EndpointState, detailed, summary
from servelens.control.endpoint_requests import (
    changed_config,
    changed_gateway,
    changed_rate_limits,
    changed_tags,
    new_endpoint,
)
from servelens.control.openapi import document
from servelens.control.refusals import refusal
from servelens.control.stored_endpoint import StoredEndpoint, TablePlace
from servelens.control.stored_settings import masked, to_json
from servelens.endpoint_settings import EndpointSettings
from servelens.errors import Invalid
from servelens.secret_references import MASK
from tests.unit.servelens.control_settings import REFERENCE, backend, openai_model, routes, settings

NAMES = (
    *("name", "config", "served_entities", "served_models", "traffic_config", "routes", "external_model"),
    *("served_entity_name", "served_model_name", "traffic_percentage", "backend", "urls", "api", "api_key"),
    *("openai_config", "custom_provider_config", "bearer_token_auth", "openai_api_key", "provider", "task"),
    *("ai_gateway", "inference_table_config", "guardrails", "input", "pii", "rate_limits", "calls", "tags"),
    *("add_tags", "delete_tags", "key", "value", "entity_name", "entity_version", "shadows", "description"),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 101),
    st.floats(allow_nan=False),
    st.sampled_from(
        ["chat", "champion", "openai", "llm/v1/chat", "http://gpu:1", "\ud800", "", MASK, REFERENCE]
    ),
    st.text(max_size=5),
)
ENTITIES = st.sampled_from([backend(), backend("b"), openai_model(), backend(api_key=MASK)])
JSON = st.recursive(
    SCALARS | ENTITIES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from(NAMES), JSON, max_size=6)
# Half right, so that the mistakes are deep inside.
CONFIGS = st.fixed_dictionaries(
    {"served_entities": st.lists(ENTITIES | JSON, max_size=3)},
    optional={
        "traffic_config": st.just(routes(champion=100)) | JSON,
        "shadows": st.lists(OBJECTS, max_size=2),
    },
)
MOMENT = datetime(2026, 5, 1, tzinfo=UTC)


def stored(endpoint: EndpointSettings) -> StoredEndpoint:
    return StoredEndpoint(
        name=endpoint.name,
        id="1",
        settings=to_json(endpoint),
        shown=masked(endpoint),
        config_version=1,
        config_generation=1,
        created_generation=1,
        source="api",
        description=None,
        creator="ann",
        created_at=MOMENT,
        updated_at=MOMENT,
        deleted_at=None,
        table=TablePlace("c", "s", "p"),
    )


def assert_sent(answer: JSONResponse) -> None:
    assert answer.status_code in (200, 400)
    assert json.loads(bytes(answer.body))


def check(endpoint: EndpointSettings) -> None:
    """What was taken can be stored, shown and described."""
    kept = stored(endpoint)
    assert kept.parsed() == endpoint
    state = EndpointState(True, "IN_PROGRESS")
    assert_sent(JSONResponse(detailed(kept, state, None)))
    assert_sent(JSONResponse(summary(kept, state)))
    assert document(kept, "http://proxy")["paths"]


@given(
    st.fixed_dictionaries({"name": st.just("chat"), "config": CONFIGS | JSON}, optional={"tags": JSON})
    | OBJECTS
)
def test_any_request_to_create(body: dict[str, Any]) -> None:
    try:
        endpoint, _ = new_endpoint(body)
    except Invalid as error:
        assert_sent(refusal(error))
    else:
        check(endpoint)


@given(
    st.sampled_from([changed_config, changed_gateway, changed_rate_limits, changed_tags]), OBJECTS | CONFIGS
)
def test_any_request_to_change(change: Any, body: dict[str, Any]) -> None:
    before = stored(settings("chat", backend(api_key="k"), backend("b")))
    try:
        endpoint = change(before, body)
    except Invalid as error:
        assert_sent(refusal(error))
    else:
        check(endpoint)
