from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from collector.catalog import EndpointTables
from evaluators.drift.payload_examples import features, predictions
from evaluators.drift.payload_features import PayloadFeatures, examples
from evaluators.drift.sources import Kind, Observation
from evaluators.drift.window_data import observe
from evaluators.drift.windows import Granularity
from tests.unit.evaluators.inference_rows import endpoint_tables, payload_rows

WINDOW = Granularity.parse("1 hour").containing(datetime(2026, 3, 4, 11, 30, tzinfo=UTC))


@pytest.fixture
def tables(tmp_path: Path) -> EndpointTables:
    return endpoint_tables(tmp_path)


def calls(requests: list[Any], responses: list[Any], **columns: Any) -> pl.DataFrame:
    """Scoring calls; what is not text already is written as JSON."""

    def text(body: Any) -> str | None:
        return body if body is None or isinstance(body, str) else json.dumps(body)

    return payload_rows(
        len(requests),
        WINDOW.start,
        **{"api": "invocations", **columns},
        request=[text(body) for body in requests],
        response=[text(body) for body in responses],
    )


def read(tables: EndpointTables, **options: int) -> Observation:
    return PayloadFeatures(**options).read(tables, WINDOW)


def values(observation: Observation) -> dict[str, list[Any]]:
    return {column.name: examples(observation.frame[column.name]).to_list() for column in observation.columns}


ROWS = {"feature:size": [3.0, 0.5], "feature:city": ["Oslo", "Rome"]}


@pytest.mark.parametrize(
    ("request_body", "expected"),
    [
        ({"dataframe_split": {"columns": ["size", "city"], "index": [0, 1], "data": [[3, "Oslo"], [0.5, "Rome"]]}}, ROWS),
        ({"dataframe_records": [{"size": 3, "city": "Oslo"}, {"size": 0.5, "city": "Rome"}]}, ROWS),
        ({"instances": [{"size": 3, "city": "Oslo"}, {"size": 0.5, "city": "Rome"}]}, ROWS),
        ({"inputs": {"size": [3, 0.5], "city": ["Oslo", "Rome"]}, "params": {"t": 1}}, ROWS),
        ({"instances": [[3.0, 1], [0.5, 2]]}, {"feature:0": [3.0, 0.5], "feature:1": [1.0, 2.0]}),
        ({"inputs": [3, 0.5]}, {"feature:input": [3.0, 0.5]}),
        ({"inputs": "Oslo"}, {"feature:input": ["Oslo"]}),
        ({"inputs": {"size": 3, "city": "Oslo"}}, {"feature:size": [3.0], "feature:city": ["Oslo"]}),
        ({"dataframe_split": {"data": [[1], [2]]}}, {"feature:0": [1.0, 2.0]}),
    ],
)  # fmt: skip
def test_every_shape_of_a_request_gives_its_examples(
    tables: EndpointTables, request_body: dict[str, Any], expected: dict[str, list[Any]]
) -> None:
    tables.payload.append(calls([request_body], [None]))
    assert values(read(tables)) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ([0.25, 1], {"prediction": [0.25, 1.0]}),
        (["spam", "ham"], {"prediction": ["spam", "ham"]}),
        ([True, False], {"prediction": ["true", "false"]}),
        ([{"label": "a", "p": 0.5}, {"label": "b", "p": 1}], {"prediction:label": ["a", "b"], "prediction:p": [0.5, 1.0]}),
        ([[0.1, 0.9], [0.8, 0.2]], {"prediction:0": [0.1, 0.8], "prediction:1": [0.9, 0.2]}),
        ({"low": [1, 2], "high": [3, 4]}, {"prediction:low": [1.0, 2.0], "prediction:high": [3.0, 4.0]}),
    ],
)  # fmt: skip
def test_every_shape_of_an_answer_gives_its_predictions(
    tables: EndpointTables, answer: Any, expected: dict[str, list[Any]]
) -> None:
    tables.payload.append(calls([{"instances": [1, 2]}], [{"predictions": answer}]))
    found = values(read(tables))
    assert found.pop("feature:input") == [1.0, 2.0]
    assert found == expected


def test_examples_of_a_record_stay_together_and_belong_to_it(tables: EndpointTables) -> None:
    payload = calls(
        [{"inputs": [1, 2, 3]}, {"instances": [{"input": 9, "b": "x"}]}, {"inputs": [4]}],
        [{"predictions": [10, 20, 30]}, {"predictions": [90]}, {"error": "no"}],
        variant=["control", "hot", None],
    )
    tables.payload.append(payload)
    tables.payload.append(payload_rows(1, WINDOW.start))  # a chat: no example, all null
    observation = observe(tables, WINDOW, sources=[PayloadFeatures()])
    by_id = {row["databricks_request_id"]: row for row in observation.frame.to_dicts()}
    first, second, third = (by_id[name] for name in payload["databricks_request_id"])
    assert (first["feature:input"], first["prediction"]) == ([1.0, 2.0, 3.0], [10.0, 20.0, 30.0])
    assert first["feature:b"] == [None] * 3
    assert (second["feature:input"], second["feature:b"], second["prediction"]) == ([9.0], ["x"], [90.0])
    assert (third["feature:input"], third["prediction"]) == ([4.0], [None])
    (chat,) = (row for row in by_id.values() if row not in (first, second, third))
    assert chat["feature:input"] is None
    assert len(examples(observation.frame["feature:input"])) == 6
    assert [(column.name, column.kind, column.data_type) for column in observation.columns] == [
        ("feature:input", Kind.NUMERIC, "double"),
        ("prediction", Kind.NUMERIC, "double"),
        ("feature:b", Kind.CATEGORICAL, "string"),
    ]


def test_a_column_is_what_most_of_its_values_are(tables: EndpointTables) -> None:
    tables.payload.append(
        calls(
            [
                {"inputs": {"mostly": [1, 2, "?"], "words": ["a", "b", 3]}},
                {"inputs": {"mostly": [None], "words": [None]}},
                {"inputs": {"mostly": [1e300, 10**400], "words": ["x" * 500, "c"]}},
            ],
            [None] * 3,
        )
    )
    found = values(read(tables))
    assert found["feature:mostly"] == [1.0, 2.0, None, None, 1e300, None]
    assert found["feature:words"] == ["a", "b", "3.0", None, "x" * 100, "c"]


MALFORMED = [
    '{"instances": [1',
    "no json",
    "",
    '{"dataframe_split": {"columns": ["a"], "data": [[1], [1, 2]]}}',
    '{"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}}',
    '{"dataframe_split": [[1]]}',
    '{"dataframe_records": [1]}',
    '{"inputs": {"a": [1, 2], "b": [1]}}',
    '{"inputs": {"a": [1], "b": 1}}',
    '{"instances": [[1], [1, 2]]}',
    '{"instances": [1, {"a": 1}]}',
    '{"instances": ' + "[" * 5_000 + "]" * 5_000 + "}",
]


@pytest.mark.parametrize("body", MALFORMED)
def test_a_payload_that_does_not_add_up_is_refused(body: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        features(body, 10)


def test_malformed_payloads_cost_their_record_only_and_are_counted(
    tables: EndpointTables, caplog: pytest.LogCaptureFixture
) -> None:
    tables.payload.append(
        calls(
            [*MALFORMED, {"inputs": [1, 2]}, {"inputs": [3]}, None, {"messages": []}],
            [
                *[{"predictions": [1]}] * len(MALFORMED),
                {"predictions": [7]},
                "oops",
                {"predictions": [5]},
                None,
            ],
        )
    )
    assert values(read(tables)) == {
        "feature:input": [1.0, 2.0, 3.0, None],
        "prediction": [None, None, None, 5.0],
    }
    for fact in (
        f"requests_malformed={len(MALFORMED)}",
        "responses_malformed=1",
        "responses_of_other_length=1",
    ):
        assert fact in caplog.text


def test_nan_as_numeric_libraries_write_it_is_read(tables: EndpointTables) -> None:
    tables.payload.append(calls(['{"inputs": [NaN, 1.5]}'], ['{"predictions": [Infinity, 2]}']))
    found = values(read(tables))
    assert str(found) == "{'feature:input': [nan, 1.5], 'prediction': [inf, 2.0]}"


def test_what_no_table_can_hold_costs_its_record_only(
    tables: EndpointTables, caplog: pytest.LogCaptureFixture
) -> None:
    half = '{"dataframe_records": [{"city": "Oslo\\ud800"}]}'
    named = '{"dataframe_records": [{"city\\ud800": "Oslo"}]}'
    long = {"dataframe_records": [{"city" * 100: "Oslo"}]}
    tables.payload.append(calls([half, named, long, {"dataframe_records": [{"city": "Rome"}]}], [None] * 4))
    observation = observe(tables, WINDOW, sources=[PayloadFeatures()])
    assert values(observation) == {"feature:city": ["Oslo?", None, None, "Rome"]}
    assert "requests_malformed=2" in caplog.text


def test_tensors_and_objects_are_left_out_and_counted(
    tables: EndpointTables, caplog: pytest.LogCaptureFixture
) -> None:
    tables.payload.append(
        calls([{"instances": [{"image": [[0, 1]], "size": 2}]}], [{"predictions": [{"p": 1, "why": {}}]}])
    )
    assert values(read(tables)) == {"feature:size": [2.0], "prediction:p": [1.0]}
    assert "nested_columns=2" in caplog.text


def test_columns_and_examples_are_bounded(tables: EndpointTables, caplog: pytest.LogCaptureFixture) -> None:
    tables.payload.append(
        calls(
            [
                {"inputs": {f"c{number}": list(range(100)) for number in range(6)}},
                {"inputs": {"c5": [1], "c0": [-1]}},
            ],
            [{"predictions": list(range(100))}, None],
        )
    )
    found = values(read(tables, most_columns=3, most_examples=20))
    # 20 examples over two calls: ten of each, evenly taken, and the same ones of the answer.
    assert found == {
        "feature:c0": [*map(float, range(0, 100, 10)), -1.0],
        "feature:c1": [*map(float, range(0, 100, 10)), None],
        "feature:c2": [*map(float, range(0, 100, 10)), None],
    }
    for fact in ("examples_left_out=90", "columns_left_out=feature:c3,feature:c4,feature:c5,prediction"):
        assert fact in caplog.text


def test_of_many_calls_a_sample_is_read(tables: EndpointTables, caplog: pytest.LogCaptureFixture) -> None:
    tables.payload.append(calls([{"inputs": [number]} for number in range(50)], [None] * 50))
    one, again = (read(tables, most_examples=20) for _ in range(2))
    assert one.frame.height == 20
    assert one.frame.equals(again.frame)
    assert "records_sampled=20" in caplog.text


def test_other_calls_and_shadows_give_nothing(tables: EndpointTables) -> None:
    assert read(tables).columns == ()
    tables.payload.append(calls([{"inputs": [1]}], [None], is_shadow=True))
    tables.payload.append(calls([{"inputs": [1]}], [None], api="chat"))
    assert read(tables).columns == ()


def test_batches_agree_on_columns_that_come_and_go(
    tables: EndpointTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluators.drift.payload_features._BATCH", 1)
    for number in range(4):
        body = {"inputs": {"always": [number], ("even" if number % 2 == 0 else "odd"): ["x"]}}
        tables.payload.append(calls([body], [None]))
    observation = read(tables)
    rows = observation.frame.sort("feature:always").drop("databricks_request_id").to_dicts()
    for number, row in enumerate(rows):
        assert row["feature:always"] == [float(number)]
        assert row["feature:even"] == (["x"] if number % 2 == 0 else [None])
        assert row["feature:odd"] == ([None] if number % 2 == 0 else ["x"])


def test_an_empty_call_has_no_examples() -> None:
    for body in ('{"inputs": []}', '{"dataframe_split": {"columns": ["a"], "data": []}}'):
        found = features(body, 10)
        assert found is not None
        assert found.rows == 0
    assert features('{"messages": []}', 10) is None
    assert predictions('{"predictions": null}', 10) is None
