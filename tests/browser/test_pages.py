"""Every page in a real browser: with data and without, narrow and wide, light and dark, deep links and the back button."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pyarrow as pa
import pytest
from playwright.sync_api import Page, expect

from collector.catalog import PAYLOAD_SCHEMA
from tests.browser.conftest import TIMEOUT_MS, Served, Tab
from tests.browser.conversations import PROBE
from tests.browser.filled_system import record, rows_of

expect.set_options(timeout=TIMEOUT_MS)

# What must be on a page before it counts as loaded: with data, and without.
WITH_DATA = {
    "/": "#overview-tiles .tile-value >> nth=0",
    "/requests": "#requests-grid .ag-row >> nth=0",
    "/experiments": ".verdict-sentence",
    "/quality": "#quality-drift-body .js-plotly-plot",
    "/relabel": "text=wait for a judgement",
}
WITHOUT_DATA = {
    "/": "text=Waiting for the first request",
    "/requests": "text=No request has been recorded yet",
    "/experiments": "text=has no exposures yet",
    "/quality": "text=Nothing has been scored yet",
    "/relabel": "text=No case has been flagged",
}


def show(tab: Tab, console: Served, address: str, selector: str) -> Page:
    """Open an address and wait until ``selector`` is visible."""
    tab.page.goto(console.url + address)
    expect(tab.page.locator(selector)).to_be_visible()
    return tab.page


def drawn(page: Page, graph: str) -> None:
    """Wait until a chart has marks."""
    marks = page.locator(f"#{graph} .cartesianlayer .trace").first
    expect(marks).to_be_attached()


def overflow(page: Page) -> int:
    """By how many pixels the document is wider than the window."""
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


@pytest.mark.parametrize("address", WITH_DATA)
def test_page_shows_data(tab: Tab, filled: Served, address: str) -> None:
    page = show(tab, filled, address, WITH_DATA[address])
    expect(page.locator(".problem")).to_have_count(0)
    expect(page.locator("h1")).to_have_count(1)
    assert page.title().endswith("· servelens")


@pytest.mark.parametrize("address", WITHOUT_DATA)
def test_empty_page_says_what_to_do(tab: Tab, bare: Served, address: str) -> None:
    page = show(tab, bare, address, WITHOUT_DATA[address])
    expect(page.locator(".problem")).to_have_count(0)


@pytest.mark.parametrize("address", WITH_DATA)
def test_phone_needs_no_sideways_scroll(open_tab: Callable[..., Tab], filled: Served, address: str) -> None:
    tab = open_tab(width=390, height=844, scheme="dark")
    page = show(tab, filled, address, WITH_DATA[address])
    assert overflow(page) <= 0
    expect(page.locator("nav .nav-link")).to_have_count(5)


def test_overview_counts_what_the_table_holds(tab: Tab, filled: Served) -> None:
    page = show(tab, filled, "/?range=30d", WITH_DATA["/"])
    number = page.locator("#overview-tiles .tile-value").first.inner_text()
    assert int(number.replace(",", "")) == rows_of(filled.services, "support-chat").height
    for graph in ("requests", "latency", "error-rate", "errors", "first-token", "tokens"):
        drawn(page, f"overview-{graph}")
    expect(page.locator("#overview-variants tbody tr")).to_have_count(2)


def test_new_record_shows_without_a_reload(tab: Tab, filled: Served) -> None:
    page = show(tab, filled, "/?range=15m&endpoint=summaries", "text=Waiting for the first request")
    row = record(filled.services.clock.now() - timedelta(seconds=5), 1, endpoint="summaries")
    table = filled.services.catalog.tables("summaries").payload
    table.append(pa.Table.from_pylist([row], schema=PAYLOAD_SCHEMA))
    expect(page.locator("#overview-tiles .tile-value").first).to_have_text("1")


def test_filter_goes_to_the_address_and_back(tab: Tab, filled: Served) -> None:
    page = show(tab, filled, "/", WITH_DATA["/"])
    page.locator("#variants").click()
    page.get_by_role("option", name="challenger").click()
    expect(page.locator("#overview-variants tbody tr")).to_have_count(1)
    assert "variants=challenger" in page.url
    page.locator("nav .nav-link", has_text="Quality").click()
    expect(page.locator(WITH_DATA["/quality"])).to_be_visible()
    assert "variants=challenger" in page.url
    page.go_back()
    expect(page.locator(WITH_DATA["/"])).to_be_visible()
    expect(page.locator("#overview-variants tbody tr")).to_have_count(1)
    page.go_back()
    expect(page.locator("#overview-variants tbody tr")).to_have_count(2)


def test_deep_link_restores_the_view(tab: Tab, filled: Served) -> None:
    page = show(tab, filled, "/?variants=champion&range=7d", WITH_DATA["/"])
    expect(page.locator("#overview-variants tbody tr")).to_have_count(1)
    expect(page.locator("#overview-variants")).to_contain_text("champion")
    expect(page.locator("#range")).to_have_value("Last 7 days")


def test_unusable_address_still_shows_a_page(tab: Tab, filled: Served) -> None:
    page = show(
        tab, filled, "/?endpoint=nope&range=never&from=x&to=y&variants=%3Cscript%3E", "#overview-empty h2"
    )
    assert page.evaluate("window.pwned") is None
    page.goto(filled.url + "/no/such/page")
    expect(page.get_by_text("There is no such page")).to_be_visible()


def test_dark_and_light_are_switched_and_remembered(tab: Tab, filled: Served) -> None:
    page = show(tab, filled, "/", WITH_DATA["/"])
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.locator("#toggle-scheme").click()
    expect(page.locator("html[data-mantine-color-scheme=dark]")).to_be_attached()
    dark = page.evaluate(background)
    assert light != dark
    page.reload()
    expect(page.locator(WITH_DATA["/"])).to_be_visible()
    assert page.evaluate(background) == dark
    drawn(page, "overview-requests")


def test_first_visit_follows_the_system(open_tab: Callable[..., Tab], filled: Served) -> None:
    page = show(open_tab(scheme="dark"), filled, "/", WITH_DATA["/"])
    expect(page.locator("html[data-mantine-color-scheme=dark]")).to_be_attached()


def test_request_opens_as_a_conversation(tab: Tab, filled: Served) -> None:
    page = show(tab, filled, "/requests", WITH_DATA["/requests"])
    page.locator("#requests-search").fill("heat pump")
    expect(page.locator("#requests-grid .ag-row").first).to_contain_text("heat pump")
    page.locator("#requests-grid .ag-row .ag-cell").nth(3).click()
    panel = page.locator(".panel")
    expect(panel.locator(".turn-user").last).to_contain_text("how a heat pump works")
    expect(panel.locator(".turn-answer")).to_be_visible()
    expect(panel.locator(".score")).to_have_count(4)
    link = page.url
    assert "request=" in link
    panel.get_by_text("Request body").click()
    expect(panel.locator("pre").first).to_contain_text('"messages"')
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    assert "request=" not in page.url
    page.goto(link)
    expect(page.locator(".panel .turn-answer")).to_be_visible()


def test_request_is_sent_to_the_queue(tab: Tab, filled: Served) -> None:
    page = show(tab, filled, "/requests", WITH_DATA["/requests"])
    page.locator("#requests-search").fill("onerror")
    expect(page.locator("#requests-count")).to_have_text("1 request")
    page.locator("#requests-grid .ag-row .ag-cell").nth(3).click()
    expect(page.locator(".panel .turn-answer")).to_be_visible()
    page.get_by_text("Send to the relabeling queue").click()
    page.locator("#request-queue").click()
    expect(page.locator("#request-queue-problem")).to_contain_text("The reason is missing")
    page.locator("#request-queue-reason").fill(f"It looks odd {PROBE}")
    page.locator("#request-queue-name").fill("Nora")
    page.locator("#request-queue").click()
    expect(page.locator("#request-queue-done")).to_contain_text("It is a new case: case")
    expect(page.locator("#request-queue-problem")).to_be_empty()
    expect(page.locator("#request-queue-reason")).to_have_value("")
    page.locator("#request-queue-reason").fill("Once more")
    page.locator("#request-queue").click()
    expect(page.locator("#request-queue-done")).to_contain_text("was in the queue already")
    page.locator("#request-queue-done a").click()
    panel = page.locator("#relabel-panel-content")
    expect(panel.locator(".reason")).to_contain_text(f"Added by hand: Nora: It looks odd {PROBE}")
    expect(panel.locator(".turn-answer")).to_contain_text("Here it is")
    assert page.evaluate("window.pwned") is None
    page.goto(filled.url + "/requests")
    page.locator("#requests-grid .ag-row .ag-cell").nth(3).click()
    expect(page.locator(".panel .turn-user").last).to_be_visible()
    page.get_by_text("Send to the relabeling queue").click()
    expect(page.locator("#request-queue-name")).to_have_value("Nora")
    expect(page.locator("#request-queue-done")).to_be_empty()


def test_grid_filters_on_the_server(tab: Tab, filled: Served) -> None:
    page = show(tab, filled, "/requests?range=30d", WITH_DATA["/requests"])
    rows = rows_of(filled.services, "support-chat")
    page.get_by_text("Failed", exact=True).click()
    failed = rows.filter(rows["error_type"].is_not_null()).height
    expect(page.locator("#requests-count")).to_have_text(f"{failed} requests")
    page.locator("#requests-search").fill("nothing has these words")
    expect(page.locator("#requests-count")).to_have_text("0 requests")


def test_payload_is_never_interpreted(tab: Tab, filled: Served) -> None:
    page = show(tab, filled, "/requests", WITH_DATA["/requests"])
    page.locator("#requests-search").fill("onerror")
    expect(page.locator("#requests-count")).to_have_text("1 request")
    page.locator("#requests-grid .ag-row .ag-cell").nth(3).click()
    expect(page.locator(".panel .turn-answer")).to_contain_text(PROBE)
    expect(page.locator(".panel")).to_contain_text(f"probe: {PROBE}")
    assert page.locator(".panel img, .panel script").count() == 0
    page.goto(filled.url + "/quality")
    expect(page.locator("#quality-runs")).to_contain_text(PROBE[:20])
    assert page.locator("main img, main script").count() == 0
    assert page.evaluate("window.pwned") is None


def test_experiment_shows_every_metric(tab: Tab, filled: Served) -> None:
    page = show(tab, filled, "/experiments", WITH_DATA["/experiments"])
    expect(page.locator(".metric")).to_have_count(6)
    expect(page.locator(".metric-plot .js-plotly-plot")).to_have_count(6)
    expect(page.get_by_role("region", name="Guardrails").get_by_role("row")).to_have_count(3)
    expect(page.locator(".verdict-basis")).to_contain_text("wrong verdicts over any number of looks")
    expect(page.locator(".verdict-sentence")).to_contain_text("breaks the guardrail on typical latency")
    expect(page.locator(".verdict-more")).to_contain_text("perplexity")
    page.locator("#experiments-look").click()
    expect(page.get_by_text("looked just now")).to_be_visible()


def test_a_canary_shows_its_steps_and_its_decisions_before_any_traffic(tab: Tab, filled: Served) -> None:
    page = show(tab, filled, "/experiments?endpoint=summaries", "text=has no exposures yet")
    expect(page.locator(".rollout-steps li")).to_have_count(3)
    expect(page.locator(".rollout-steps li[aria-current]")).to_contain_text("5 %")
    decisions = page.get_by_role("region", name="Decisions")
    expect(decisions.get_by_role("row")).to_have_count(3)
    expect(decisions).to_contain_text("not enough data")


def test_failure_of_a_read_keeps_the_page(tab: Tab, filled: Served) -> None:
    page = show(tab, filled, "/requests?request=not-an-id", WITH_DATA["/requests"])
    expect(page.locator("#request-problem")).to_contain_text("not the id of a request")
    page.keyboard.press("Escape")
    expect(page.locator(WITH_DATA["/requests"])).to_be_visible()
