"""What the decoder says of a body's members spares a look at the body, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.record import Record
from serving_proxy.gateway import Gateway
from serving_proxy.members import lacks, reader
from serving_proxy.privacy import Privacy
from serving_proxy.request_body import RequestBody


class Body(msgspec.Struct, gc=False):
    user: str | None = None
    messages: msgspec.Raw = msgspec.Raw()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", True),
        (b'{"model": "user", "x": {"metadata": 1}}', True),
        (b'{"user": null}', True),
        (b'{"user": "x"}', False),
        (b'{"us\\u0065r": "x"}', False),
        (b'{"metadata": null}', False),
        (b'{"metadata": {}, "metadata": null}', False),
        ('{"naïve key": 1}'.encode(), False),
    ],
)
def test_members_of_the_top_level(body: bytes, expected: bool) -> None:
    names = ["user", "metadata", "naïve key"]
    assert lacks(Body, names)(reader(Body, names)(body)) is expected


def test_more_names_may_be_read_than_asked_for() -> None:
    decoded = reader(Body, ["a", "b", "messages"])(b'{"b": 1, "messages": []}')
    assert lacks(Body, ["a"])(decoded)
    assert not lacks(Body, ["b"])(decoded)
    assert not lacks(Body, ["messages", "a"])(decoded)


_NAMES = ["user", "metadata", "messages", "email", "choices"]
_VALUES = st.recursive(
    st.sampled_from([None, 1, "user", "text", '"email"']),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=3),
    max_leaves=6,
)
_OBJECTS = st.dictionaries(st.sampled_from(_NAMES), _VALUES, max_size=4).filter(
    lambda body: isinstance(body.get("user"), str | None)
)
_PATHS = st.lists(
    st.sampled_from(
        ["$.user", "$.metadata.email", "$.messages[*].user", "$..email", "$.choices[0]", "$[*].user"]
    ),
    min_size=1,
    max_size=3,
)


@given(_PATHS, _OBJECTS, _OBJECTS)
def test_what_is_kept_is_what_would_be_kept_without_it(
    paths: list[str], request: dict[str, Any], response: dict[str, Any]
) -> None:
    privacy = Privacy(Gateway(redact_paths=tuple(paths)))
    asked, answered = json.dumps(request).encode(), json.dumps(response).encode()
    record = Record("id", 0, 200, 0, "chat", "chat", request=asked, response=answered)
    kept = privacy.kept(
        record, reader(RequestBody, privacy.redacted_members)(asked), privacy.read_answer(answered)
    )
    plain = privacy.kept(record)
    assert kept is not None
    assert plain is not None
    for one, other in ((kept.request, plain.request), (kept.response, plain.response)):
        assert one is not None
        assert other is not None
        assert _without_nulls(json.loads(one)) == _without_nulls(json.loads(other))


def _without_nulls(body: dict[str, Any]) -> dict[str, Any]:
    """A ``null`` tells nothing: whether it is replaced does not matter."""
    return {
        name: value for name, value in body.items() if name != "user" or value not in (None, "[REDACTED]")
    }
