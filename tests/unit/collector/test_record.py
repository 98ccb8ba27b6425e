from __future__ import annotations

import msgspec

from collector.record import Attempt, Record, decode, encode


def test_a_record_that_was_spooled_before_a_field_existed_is_readable() -> None:
    record = Record(
        request_id="r1",
        request_time_us=1,
        status_code=200,
        duration_us=2,
        endpoint="chat",
        api="chat",
        tags={"a": "b"},
        endpoint_config_version=3,
        attempt_details=[Attempt("e", "u", 200, None, 5)],
    )
    fields = msgspec.msgpack.decode(encode(record))
    assert decode(encode(record)) == record
    old = decode(msgspec.msgpack.encode(fields[:-3]))
    assert (old.tags, old.endpoint_config_version, old.attempt_details) == ({"a": "b"}, None, [])
    shorter_attempt = decode(msgspec.msgpack.encode([*fields[:-2], [["e", "u"]]]))
    assert shorter_attempt.attempt_details == [Attempt("e", "u")]
