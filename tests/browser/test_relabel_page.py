"""Labeling in a real browser, without the mouse."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import Page, expect

from relabel.case import CaseState
from tests.browser.conftest import TIMEOUT_MS, Served, Tab

expect.set_options(timeout=TIMEOUT_MS)


def settled(page: Page) -> None:
    """Wait until the page has heard from the server; it ignores keys until then."""
    expect(page.locator("#relabel-page:not([data-busy])")).to_be_attached()


def test_three_cases_are_labeled_by_keyboard_and_exported(tab: Tab, filled: Served, downloads: Path) -> None:
    page, queue = tab.page, filled.services.queue
    page.goto(filled.url + "/relabel")
    expect(page.locator("#relabel-queue tbody tr").first).to_be_visible()
    page.locator("#relabel-name").focus()
    page.keyboard.type("Ada")
    page.keyboard.press("Enter")
    case = page.locator("#relabel-case .case h2")
    expect(case).to_be_visible()
    settled(page)
    first = case.inner_text()
    expect(page.locator("#relabel-case .reason").first).to_be_visible()

    page.keyboard.press("Control+Enter")
    expect(page.locator("#relabel-problem")).to_contain_text("No rating is chosen")
    settled(page)
    page.keyboard.press("g")
    expect(page.locator("#relabel-good[aria-pressed=true]")).to_be_visible()
    page.keyboard.press("Control+Enter")
    expect(page.locator("#relabel-done")).to_contain_text("labeled good")
    settled(page)
    expect(page.locator("#relabel-problem")).to_be_empty()
    second = case.inner_text()
    assert second != first

    page.keyboard.press("b")
    page.keyboard.press("e")
    field = page.locator("#relabel-corrected")
    expect(field).to_be_focused()
    expect(field).not_to_have_value("")
    page.keyboard.press("Control+a")
    page.keyboard.type("A kind and correct answer: bags, eggs & sugar.")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#relabel-done")).to_contain_text("labeled bad with a corrected answer")
    settled(page)

    page.keyboard.press("s")
    expect(page.locator("#relabel-done")).to_contain_text("skipped")
    settled(page)
    page.keyboard.press("b")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#relabel-done")).to_contain_text("labeled bad.")
    settled(page)
    page.keyboard.press("r")
    expect(page.locator("#relabel-done")).to_contain_text("open for others again")
    settled(page)

    counts = queue.counts("support-chat")["support-chat"]
    assert (counts[CaseState.LABELED], counts[CaseState.SKIPPED], counts[CaseState.CLAIMED]) == (3, 1, 0)
    expect(page.locator("#relabel-counts")).to_contain_text("3 labeled")
    labeled = [queue.get(one.id) for one in queue.list(state=CaseState.LABELED).cases]
    corrected = [one.labels[0].label.corrected_answer for one in labeled]
    assert "A kind and correct answer: bags, eggs & sugar." in corrected
    assert {one.labels[0].annotator for one in labeled} == {"Ada"}

    page.locator("#relabel-export").press("Enter")
    expect(page.locator("#relabel-export-summary")).to_contain_text("2 examples")
    expect(page.locator("#relabel-export-summary")).to_contain_text("bad without correction")
    with page.expect_download() as download:
        page.locator("#relabel-download").press("Enter")
    path = downloads / "openai-chat.jsonl"
    download.value.save_as(path)
    examples = [json.loads(line) for line in path.read_text().splitlines()]
    assert [one["messages"][-1]["role"] for one in examples] == ["assistant", "assistant"]


def test_keys_are_text_while_a_field_is_edited(tab: Tab, filled: Served) -> None:
    page = tab.page
    page.goto(filled.url + "/relabel")
    page.locator("#relabel-name").fill("Grace")
    page.keyboard.press("Enter")
    expect(page.locator("#relabel-case .case h2")).to_be_visible()
    settled(page)
    before = page.locator("#relabel-case .case h2").inner_text()
    page.keyboard.press("e")
    page.keyboard.press("Control+a")
    page.keyboard.type("sgbnr")
    expect(page.locator("#relabel-corrected")).to_have_value("sgbnr")
    assert page.locator("#relabel-case .case h2").inner_text() == before
    expect(page.locator("#relabel-good[aria-pressed=true]")).to_have_count(0)
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    expect(page.locator("#relabel-good[aria-pressed=true]")).to_be_visible()
    page.keyboard.press("r")
    expect(page.locator("#relabel-done")).to_contain_text("open for others again")
    settled(page)


def test_name_is_remembered(tab: Tab, filled: Served) -> None:
    page = tab.page
    page.goto(filled.url + "/relabel")
    page.locator("#relabel-name").fill("Linus")
    page.wait_for_function("Object.values(window.localStorage).some((value) => value.includes('Linus'))")
    page.reload()
    expect(page.locator("#relabel-name")).to_have_value("Linus")
