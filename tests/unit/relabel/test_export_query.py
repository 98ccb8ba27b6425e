"""relabel.export: queries and their JSON, repetitions, tallies of cases, and files that replace others."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relabel.case import ReasonKind, Resolution
from relabel.export.case_tally import CaseTally, case_ids, changed_blocks
from relabel.export.dedupe import Seen
from relabel.export.formats.registry import FORMATS
from relabel.export.prompt_text import prompt_key
from relabel.export.query import PERSONAL_DATA, ExportQuery, Split
from relabel.export.replacing import replacing_file, replacing_folder
from relabel.export.requested import requested_query
from relabel.label import Rating
from servelens.errors import Invalid, Unavailable
from tests.labeled_cases import labeled_case

_words = st.lists(st.text(min_size=1, max_size=5), max_size=2).map(tuple)
_queries = st.builds(
    ExportQuery,
    format=st.sampled_from([name for name in FORMATS if name != "labels_table"]),
    endpoints=_words,
    since=st.none() | st.just(datetime(2026, 3, 1, tzinfo=UTC)),
    until=st.none() | st.just(datetime(2026, 3, 2, tzinfo=UTC)),
    rating=st.none() | st.sampled_from(Rating),
    tags=_words,
    values=st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=2).map(tuple),
    preferred=st.none() | st.text(max_size=3),
    min_agreement=st.none() | st.floats(0, 1),
    resolutions=st.lists(st.sampled_from(Resolution), max_size=2).map(tuple),
    rules=_words,
    reasons=st.lists(st.sampled_from(ReasonKind), max_size=2).map(tuple),
    as_of=st.none() | st.integers(0, 2**62),
    split=st.none() | st.builds(Split, st.floats(0.1, 0.9), st.integers(), st.sampled_from(["unit", "case"])),
    dedupe=st.sampled_from([None, "exact", "near"]),
    mask=st.lists(st.sampled_from(PERSONAL_DATA), max_size=3).map(tuple),
)


@given(_queries)
def test_the_json_of_a_query_makes_the_same_query(query: ExportQuery) -> None:
    assert ExportQuery.from_json(query.to_json()) == query


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ({"format": "csv"}, "format"),
        ({"since": datetime(2026, 1, 1)}, "since"),  # noqa: DTZ001
        ({"since": datetime(2026, 1, 2, tzinfo=UTC), "until": datetime(2026, 1, 1, tzinfo=UTC)}, "until"),
        ({"rating": "fine"}, "rating"),
        ({"value": ["topic"]}, "value"),
        ({"min_agreement": 1.5}, "min_agreement"),
        ({"min_agreement": float("nan")}, "min_agreement"),
        ({"resolution": ["chance"]}, "resolution"),
        ({"reason": ["mood"]}, "reason"),
        ({"as_of": -1}, "as_of"),
        ({"split": 1.5}, "split"),
        ({"split": float("nan")}, "split"),
        ({"split": 0.5, "split_by": "moon"}, "split_by"),
        ({"dedupe": "fuzzy"}, "dedupe"),
        ({"mask": ["NAME"]}, "mask"),
        ({"format": "labels_table", "tag": ["x"]}, "tag"),
        ({"format": "labels_table", "split": 0.5}, "split"),
        ({"format": "labels_table", "mask": ["all"]}, "mask"),
    ],
)
def test_a_wrong_word_is_named(words: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        requested_query(**words)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "value", [{"form": "x"}, {"split": {"share": 1}}, {"since": "soon"}, {"values": [1]}]
)
def test_json_that_is_no_query_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        ExportQuery.from_json(value)


def test_near_is_the_same_question_and_exact_the_same_line() -> None:
    def case(question: str) -> Any:
        return labeled_case(messages=[{"role": "user", "content": question}], answered=False)

    near, exact, off = Seen("near"), Seen("exact"), Seen(None)
    assert not near.repeats_case(case("Order 17?"))
    near.gave(case("Order 17?"))
    assert near.repeats_case(case("order  17!"))
    assert not near.repeats_case(case("order 23"))
    assert [exact.repeats(line) for line in (b"a", b"b", b"a")] == [False, False, True]
    assert not any(off.repeats(b"a") or off.repeats_case(case("a")) for _ in range(2))


def test_roles_tools_and_parts_tell_prompts_apart() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    prompts: list[list[dict[str, Any]]] = [
        [{"role": "user", "content": "a"}],
        [{"role": "system", "content": "a"}],
        [{"role": "user", "content": "a"}, {"role": "user", "content": "a"}],
        [{"role": "user", "content": None, "tool_calls": [call]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
        [{"role": "user", "content": 7}],
        [],
    ]
    assert len({prompt_key(prompt) for prompt in prompts}) == len(prompts)
    parts = [{"role": "user", "content": [{"type": "text", "text": "A "}]}]
    assert prompt_key(parts) == prompt_key(prompts[0])


def _tally(cases: dict[int, bytes]) -> dict[str, Any]:
    tally = CaseTally()
    for case_id, line in sorted(cases.items()):
        tally.add(case_id, [line])
    return tally.to_json()


@given(st.dictionaries(st.integers(1, 500), st.just(b"x")), st.integers(1, 500))
def test_a_tally_knows_its_cases_and_finds_what_changed(cases: dict[int, bytes], changed: int) -> None:
    then = _tally(cases)
    assert case_ids(then) == set(cases)
    assert changed_blocks(then, then) == []
    now = _tally({**cases, changed: b"y"})
    first = changed // 100 * 100
    assert changed_blocks(then, now) == ([(first, first + 99)] if changed in cases else [])


def _signed(folder: Path) -> bool:
    return (folder / "sign").is_file()


def test_a_file_or_folder_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    with replacing_file(file) as stream:
        stream.write(b"one")
    with replacing_folder(folder, _signed) as new:
        (new / "sign").write_text("one")
        (new / "old").write_text("one")
    with pytest.raises(TypeError), replacing_file(file) as stream:
        stream.write("two")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError), replacing_folder(folder, _signed) as new:
        raise RuntimeError
    assert (file.read_bytes(), (folder / "sign").read_text()) == (b"one", "one")
    with replacing_folder(folder, _signed) as new:
        (new / "sign").write_text("two")
    assert [entry.name for entry in folder.iterdir()] == ["sign"]
    assert folder.stat().st_mode & 0o777 == 0o755
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


def test_what_is_not_an_export_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("years of work")
    for path in (tmp_path / "thesis", tmp_path / "thesis" / "chapter"):
        with pytest.raises(Invalid) as caught, replacing_folder(path, _signed):
            pass
        assert caught.value.field == "output"
    with pytest.raises(Unavailable) as failed, replacing_file(tmp_path / "nowhere" / "x"):
        pass
    assert failed.value.field == str(tmp_path / "nowhere" / "x")
    assert (tmp_path / "thesis" / "chapter").read_text() == "years of work"
