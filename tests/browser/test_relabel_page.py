"""Labeling in a real browser, without the mouse: the default schema, with its undo, drafts, queue and export."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import Page, expect

from relabel.case import CaseState
from relabel.label import Rating
from tests.browser.conftest import TIMEOUT_MS, Served, Tab

expect.set_options(timeout=TIMEOUT_MS)


def settled(page: Page) -> None:
    """Wait until the page has heard from the server; it ignores keys until then."""
    expect(page.locator("#relabel-page:not([data-busy])")).to_be_attached()


def start(page: Page, console: Served, annotator: str, address: str = "/relabel") -> None:
    """Open the page, say who sits here, and claim a case, all with the keyboard."""
    page.goto(console.url + address)
    expect(page.locator("#relabel-case .empty")).to_be_visible()
    page.locator("#relabel-name").focus()
    page.keyboard.press("Control+a")
    page.keyboard.type(annotator)
    page.keyboard.press("Enter")
    shown(page)


def shown(page: Page) -> int:
    """Wait until a case is there with its form; its id."""
    heading = page.locator("#relabel-case-title")
    expect(heading).to_be_visible()
    settled(page)
    expect(heading).to_be_focused()
    return int(heading.inner_text().removeprefix("Case "))


def done(page: Page, words: str) -> None:
    """Wait until the page says that a case has been dealt with."""
    expect(page.locator("#relabel-done")).to_contain_text(words)
    settled(page)


def test_ten_cases_are_labeled_by_keyboard_and_exported(tab: Tab, filled: Served, downloads: Path) -> None:
    page, queue = tab.page, filled.services.queue
    start(page, filled, "Ada")
    first = shown(page)
    expect(page.locator("#relabel-case .reason").first).to_be_visible()

    page.keyboard.press("Control+Enter")
    expect(page.locator("#relabel-problem")).to_contain_text("“Rating” is not answered")
    expect(page.locator("[data-field=rating] .field-error")).to_be_visible()
    settled(page)
    page.keyboard.press("g")
    expect(page.locator("#relabel-good")).to_be_checked()
    page.keyboard.press("Control+Enter")
    done(page, f"Case {first} labeled good.")
    expect(page.locator("#relabel-problem")).to_be_empty()
    assert shown(page) != first

    for number in range(8):
        case = shown(page)
        page.keyboard.press("bg"[number % 2])
        page.keyboard.press("Control+Enter")
        done(page, f"Case {case} labeled {'good' if number % 2 else 'bad'}.")

    tenth = shown(page)
    page.keyboard.press("b")
    page.keyboard.press("e")
    field = page.locator("#relabel-corrected")
    expect(field).to_be_focused()
    expect(field).not_to_have_value("")
    page.keyboard.press("Control+a")
    page.keyboard.type("A kind and correct answer: bags, eggs & sugar.")
    expect(page.locator(".diff ins").first).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.type("tone")
    page.keyboard.press("Enter")
    page.keyboard.type("needs source")
    page.keyboard.press("Control+Enter")
    done(page, f"Case {tenth} labeled bad with a corrected answer.")

    skipped = shown(page)
    page.keyboard.press("s")
    done(page, f"Case {skipped} skipped.")
    given_back = shown(page)
    page.keyboard.press("r")
    done(page, f"Case {given_back} is open for others again.")

    mine = [queue.get(one.id) for one in queue.list(annotator="Ada", endpoint="support-chat").cases]
    labels = [each.labels[0].label for each in mine if each.state is CaseState.LABELED]
    assert [label.rating for label in labels].count(Rating.GOOD) == 5
    assert len(labels) == 10
    corrected = next(label for label in labels if label.corrected_answer)
    assert corrected.corrected_answer == "A kind and correct answer: bags, eggs & sugar."
    assert corrected.tags == ("tone", "needs source")
    assert queue.get(skipped).state is CaseState.SKIPPED
    assert queue.get(given_back).state is CaseState.OPEN

    page.locator("#relabel-export").press("Enter")
    expect(page.locator("#relabel-export-summary")).to_contain_text("examples")
    with page.expect_download() as download:
        page.locator("#relabel-download").press("Enter")
    path = downloads / "openai-chat.jsonl"
    download.value.save_as(path)
    examples = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(examples) >= 6
    assert {one["messages"][-1]["role"] for one in examples} == {"assistant"}
    assert corrected.corrected_answer in [one["messages"][-1]["content"] for one in examples]


def test_the_last_label_is_taken_back_with_what_it_said(tab: Tab, filled: Served) -> None:
    page, queue = tab.page, filled.services.queue
    start(page, filled, "Uma")
    case = shown(page)
    expect(page.locator("#relabel-undo")).to_be_hidden()
    page.keyboard.press("b")
    page.keyboard.press("c")
    page.keyboard.type("not sure")
    page.keyboard.press("Control+Enter")
    done(page, f"Case {case} labeled bad.")
    following = shown(page)
    page.keyboard.press("u")
    done(page, f"The label of case {case} was taken back.")
    assert shown(page) == case
    assert queue.get(case, "Uma").state is CaseState.CLAIMED
    expect(page.locator("#relabel-bad")).to_be_checked()
    expect(page.locator("#relabel-comment")).to_have_value("not sure")
    page.keyboard.press("g")
    page.keyboard.press("Control+Enter")
    done(page, f"Case {case} labeled good.")
    assert queue.get(case).labels[0].label.rating is Rating.GOOD
    assert shown(page) == following
    page.keyboard.press("r")
    done(page, "open for others again")


def test_what_was_entered_survives_a_reload_and_is_nobody_elses(tab: Tab, filled: Served) -> None:
    page = tab.page
    start(page, filled, "Rita")
    case = shown(page)
    page.keyboard.press("g")
    page.keyboard.press("c")
    page.keyboard.type("half a thought")
    page.reload()
    expect(page.locator("#relabel-case .empty")).to_be_visible()
    expect(page.locator("#relabel-name")).to_have_value("Rita")
    page.keyboard.press("n")
    assert shown(page) == case
    expect(page.locator("#relabel-good")).to_be_checked()
    expect(page.locator("#relabel-comment")).to_have_value("half a thought")
    page.keyboard.press("r")
    done(page, f"Case {case} is open for others again.")
    page.locator("#relabel-name").fill("Sam")
    page.keyboard.press("Enter")
    assert shown(page) == case
    expect(page.locator("#relabel-comment")).to_have_value("")
    expect(page.locator("#relabel-good")).not_to_be_checked()
    page.keyboard.press("r")
    done(page, "open for others again")


def test_keys_are_text_while_a_field_is_edited(tab: Tab, filled: Served) -> None:
    page = tab.page
    start(page, filled, "Grace")
    before = shown(page)
    page.keyboard.press("e")
    page.keyboard.press("Control+a")
    page.keyboard.type("sgbnru")
    expect(page.locator("#relabel-corrected")).to_have_value("sgbnru")
    assert page.locator("#relabel-case-title").inner_text() == f"Case {before}"
    expect(page.locator("#relabel-good")).not_to_be_checked()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    expect(page.locator("#relabel-good")).to_be_checked()
    page.keyboard.press("r")
    done(page, "open for others again")


def test_a_case_that_somebody_else_has_by_now_is_refused_and_nothing_is_lost(
    tab: Tab, filled: Served
) -> None:
    page, queue = tab.page, filled.services.queue
    start(page, filled, "Lara")
    case = shown(page)
    queue.reassign(case, "Lara", "Max", actor="Ann")
    page.keyboard.press("g")
    page.keyboard.press("c")
    page.keyboard.type("too late")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#relabel-problem")).to_contain_text("Press N to claim another case")
    settled(page)
    expect(page.locator("#relabel-comment")).to_have_value("too late")
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    expect(page.locator("#relabel-problem")).to_be_empty()
    assert shown(page) != case
    page.keyboard.press("r")
    done(page, "open for others again")
    queue.release(case, "Max")


def test_the_queue_is_filtered_turned_over_and_opened(tab: Tab, filled: Served) -> None:
    page, queue = tab.page, filled.services.queue
    page.goto(filled.url + "/relabel?tab=queue")
    rows = page.locator("#relabel-queue tbody tr")
    expect(rows.first).to_be_visible()
    page.locator("#relabel-filter-state").click()
    page.get_by_role("option", name="Any state").click()
    expect(rows).to_have_count(25)
    first = rows.first.get_by_role("button").inner_text()
    page.locator("#relabel-following").click()
    expect(page.locator("#relabel-place")).to_contain_text("26–")
    expect(rows.first.get_by_role("button")).not_to_have_text(first)
    page.locator("#relabel-filter-kind").click()
    page.get_by_role("option", name="Random sample").click()
    expect(page.locator("#relabel-queue")).to_contain_text("No such case")
    page.locator("#relabel-filter-kind").click()
    page.get_by_role("option", name="Score past a threshold").click()
    expect(rows).to_have_count(25)
    page.locator("#relabel-filter-evaluator").fill("toxicity")
    expect(page.locator("#relabel-following")).to_be_disabled()
    expect(page.locator("#relabel-queue")).to_contain_text("toxicity")
    expect(page.locator("#relabel-queue")).not_to_contain_text("perplexity")
    page.locator("#relabel-filter-evaluator").fill("no such evaluator")
    expect(page.locator("#relabel-queue")).to_contain_text("No such case")
    page.locator("#relabel-filter-evaluator").fill("perplexity")
    page.locator("#relabel-filter-state").click()
    page.get_by_role("option", name="Open", exact=True).click()
    expect(rows.first).to_contain_text("open")
    expect(page.locator("#relabel-queue")).not_to_contain_text("toxicity")

    page.locator("#relabel-name").fill("Olga")
    case = int(rows.last.get_by_role("button").inner_text())
    rows.last.get_by_role("button").press("Enter")
    panel = page.locator(".mantine-Drawer-content")
    expect(panel.locator(".turn-answer")).to_be_visible()
    assert f"case={case}" in page.url
    page.locator("#relabel-do-comment").click()
    expect(page.locator("#relabel-act-problem")).to_contain_text("Write what others should know")
    page.locator("#relabel-remark").fill("Look at <b>this</b> one.")
    page.locator("#relabel-do-comment").click()
    expect(page.locator("#relabel-panel-comments")).to_contain_text("Look at <b>this</b> one.")
    expect(page.locator("#relabel-act-problem")).to_be_empty()
    expect(page.locator("#relabel-remark")).to_have_value("")

    page.locator("#relabel-manage-gold summary").click()
    panel.locator("#relabel-gold-fields .option-bad").click()
    page.locator("#relabel-do-gold").click()
    expect(page.locator("#relabel-act-done")).to_contain_text("gold case now")
    assert queue.get(case).state is CaseState.GOLD
    page.locator("#relabel-do-ungold").click()
    expect(page.locator("#relabel-act-done")).to_contain_text("no gold case any more")
    assert queue.get(case).state is CaseState.OPEN
    expect(page.locator("#relabel-history")).to_contain_text("Olga")
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    assert "case=" not in page.url


def test_name_is_remembered(tab: Tab, filled: Served) -> None:
    page = tab.page
    page.goto(filled.url + "/relabel")
    page.locator("#relabel-name").fill("Linus")
    page.wait_for_function("Object.values(window.localStorage).some((value) => value.includes('Linus'))")
    page.reload()
    expect(page.locator("#relabel-name")).to_have_value("Linus")


def test_rules_and_agreement_are_tabs_of_the_page(tab: Tab, filled: Served) -> None:
    page = tab.page
    page.goto(filled.url + "/relabel")
    page.get_by_role("link", name="Rules").click()
    expect(page.get_by_role("region", name="Found today")).to_contain_text("toxicity response above")
    expect(page.locator("#relabel-bench")).to_be_hidden()
    page.get_by_role("link", name="Agreement").click()
    expect(page.locator("#relabel-section")).to_contain_text("labeled")
    expect(page.get_by_role("link", name="Agreement")).to_have_attribute("aria-current", "page")
    page.go_back()
    expect(page.get_by_role("region", name="Found today")).to_be_visible()
    page.get_by_role("link", name="Label", exact=True).click()
    expect(page.locator("#relabel-bench")).to_be_visible()
