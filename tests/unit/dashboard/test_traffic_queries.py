from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl
import pytest

from collector.catalog import UNROUTED
from dashboard import figures
from dashboard.console import Console
from dashboard.queries import failed_expression
from dashboard.services import ConsoleServices
from dashboard.traffic_queries import Traffic
from tests.browser.filled_system import rows_of


def traffic(console: Console, **view: object) -> Traffic:
    return console.traffic.traffic(console.view({"endpoint": "support-chat", "range": "24h", **view}))


@pytest.fixture(scope="module")
def rows(services: ConsoleServices) -> pl.DataFrame:
    """What the table holds of the last 24 hours, by another way."""
    since = services.clock.now() - timedelta(hours=24)
    frame = rows_of(services, "support-chat").with_columns(failed_expression().alias("failed"))
    bins = since - timedelta(seconds=since.timestamp() % 900)
    return frame.filter(pl.col("request_time") >= bins)


def test_totals_agree_with_the_table(console: Console, rows: pl.DataFrame) -> None:
    total = traffic(console).total
    good = rows.filter(~pl.col("failed"))["execution_duration_ms"]
    assert total.requests == rows.height > 300
    assert total.errors == rows["failed"].sum() > 0
    assert total.output_tokens == rows["output_tokens"].sum()
    assert total.p95 == pytest.approx(good.quantile(0.95, "linear"))
    assert total.first_token_p50 == pytest.approx(rows["time_to_first_token_ms"].median())


def test_bins_add_up_to_the_total(console: Console) -> None:
    found = traffic(console)
    assert found.bins["requests"].sum() == found.total.requests
    assert found.bins["errors"].sum() == found.total.errors == found.errors["count"].sum()
    assert sum(arm.requests for arm in found.per_arm.values()) == found.total.requests
    assert set(found.per_arm) == {"champion", "challenger"}
    assert found.bins["bin"].is_between(found.window.since, found.window.until, closed="left").all()


def test_filter_keeps_one_arm(console: Console) -> None:
    only, both = traffic(console, variants=["champion"]), traffic(console)
    assert only.total.requests == both.per_arm["champion"].requests
    assert set(only.per_arm) == {"champion"}


def test_window_before_is_compared(console: Console) -> None:
    short = traffic(console, range="1h")
    assert short.previous.requests == console.traffic.count("support-chat", short.window.previous())


def test_without_a_table_there_is_nothing_and_no_error(empty_services: ConsoleServices) -> None:
    found = traffic(Console(empty_services))
    assert found.total.requests == 0
    assert found.total.error_rate is None
    assert found.total.p50 is None
    assert found.bins.is_empty()


def test_unrouted_requests_are_counted(console: Console) -> None:
    view = console.view({"range": "6h"})
    assert console.unrouted(view.window) == 3
    assert console.traffic.traffic(console.view({"endpoint": UNROUTED})).total.errors == 3


def test_bars_hold_every_request_at_its_local_time(console: Console) -> None:
    found = traffic(console)
    arms = ("champion", "challenger")
    figure = figures.requests(found, arms, "light", "Asia/Kolkata")
    assert [bar.name for bar in figure.data] == list(arms)
    assert sum(sum(bar.y) for bar in figure.data) == found.total.requests
    first = (found.window.since + found.window.bin / 2 + timedelta(hours=5, minutes=30)).replace(tzinfo=None)
    assert figure.data[0].x[0].startswith(first.isoformat())


@pytest.mark.parametrize("scheme", ["light", "dark", None, "odd"])
def test_every_figure_draws_with_and_without_data(
    console: Console, empty_services: ConsoleServices, scheme: str | None
) -> None:
    for found in (traffic(console), traffic(Console(empty_services))):
        for figure in (
            figures.requests(found, ("champion",), scheme, "UTC"),
            figures.latency(found, ("champion",), scheme, "UTC", "p99"),
            figures.first_token(found, ("champion",), scheme, "UTC", "p50"),
            figures.error_rate(found, ("champion",), scheme, "UTC"),
            figures.errors(found, scheme, "UTC"),
            figures.tokens(found, ("champion",), scheme, "UTC"),
        ):
            assert figure.to_json()


def test_newest_bin_of_a_rate_is_divided_by_the_time_that_has_passed(console: Console) -> None:
    found = traffic(console)
    figure = figures.tokens(found, ("champion", "challenger"), "light", "UTC")
    last = found.bins["bin"].max()
    assert isinstance(last, datetime)
    passed = (found.as_of - last).total_seconds()
    assert 0 < passed < found.window.bin.total_seconds()
    newest = found.bins.filter(pl.col("bin") == last)["output_tokens"].sum()
    assert sum(line.y[-1] for line in figure.data) == pytest.approx(newest / passed)


@pytest.mark.parametrize(("rough", "step"), [(0.03, 0.05), (1, 1), (3, 5), (21, 25), (99, 100), (1200, 2000)])
def test_nice_step(rough: float, step: float) -> None:
    assert figures.nice_step(rough) == pytest.approx(step)
