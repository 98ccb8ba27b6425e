"""Other answers that come while a case is on the desk: what was entered stays, and nothing waits for them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pyarrow as pa
import pytest
from playwright.sync_api import Page, expect

from collector.catalog import PAYLOAD_SCHEMA
from relabel.alternatives import answered, presented
from relabel.case import Case
from servelens.clock import SystemClock
from tests.backends import BackendThread, Behaviour, OpenAIBackend, Received
from tests.browser.conftest import Served, Tab, served
from tests.browser.conversations import PROBE
from tests.browser.filled_labels import ENDPOINT, add_case
from tests.browser.filled_system import build, record
from tests.browser.test_relabel_page import done, settled, shown, start

ADDRESS = f"/relabel?endpoint={ENDPOINT}"
BETTER = f"A better answer {PROBE}"


class Endpoint:
    """What stands in for the proxy: answers when the test lets it."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.answer = Behaviour()

    def respond(self, _call: Received) -> Behaviour:
        assert self.gate.wait(30)
        return self.answer


@pytest.fixture(scope="module")
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory, endpoint: Endpoint) -> Iterator[Served]:
    services = build(tmp_path_factory.mktemp("alternatives"), SystemClock(), records=60)
    with (
        BackendThread(OpenAIBackend(respond=endpoint.respond)) as proxy,
        served(replace(services, proxy_url=proxy.url)) as console,
    ):
        yield console
        endpoint.gate.set()


@pytest.fixture(autouse=True)
def held_back(endpoint: Endpoint) -> None:
    endpoint.gate.clear()
    endpoint.answer = Behaviour(content=BETTER)


def answers(page: Page) -> list[str]:
    return page.locator(".answer .turn-text").all_inner_texts()


def chosen(page: Page) -> str:
    """The text of the answer that is preferred now."""
    checked = page.locator("[data-field=better] .option:has(:checked)")
    expect(checked).to_have_count(1)
    place = int(checked.locator(".option-title").inner_text().removeprefix("Answer ")) - 1
    return answers(page)[place]


def first_for(case: Case, annotator: str) -> str:
    """An answer that comes before all others, so that each of them has another letter then."""
    for number in range(200):
        new = answered("regenerated", {"role": "assistant", "content": f"{BETTER} {number}"})
        order = presented(replace(case, alternatives=(*case.alternatives, new)), annotator)
        if order[0].id == new.id:
            return new.text
    raise AssertionError("no lot in 200 is the first of three")


def test_another_answer_comes_while_somebody_types(tab: Tab, console: Served, endpoint: Endpoint) -> None:
    page, services = tab.page, console.services
    case = add_case(services, "Say thanks.", "Thanks.", shadow="Thank you.")
    better = first_for(services.queue.get(case), "Alma")
    endpoint.answer = Behaviour(content=better)
    start(page, console, "Alma", ADDRESS)
    assert shown(page) == case
    for place in (0, 1):
        if answers(page)[place] == "Thank you.":
            page.keyboard.press(str(place + 1))
    assert chosen(page) == "Thank you."
    page.keyboard.press("a")
    expect(page.locator("#relabel-asking")).to_contain_text("Asking the endpoint…")
    expect(page.locator("#relabel-another")).to_be_disabled()
    page.locator("[data-field=remark] textarea").click()
    page.keyboard.type("Becuse")
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    endpoint.gate.set()
    expect(page.locator(".answer")).to_have_count(3)
    done(page, "What you entered is kept.")
    page.keyboard.type("a")
    expect(page.locator("[data-field=remark] textarea")).to_have_value("Because")
    assert better in answers(page)
    assert chosen(page) == "Thank you."
    expect(page.locator("#relabel-asking")).to_be_empty()
    page.keyboard.press("Escape")
    place = answers(page).index(better)
    page.locator("[data-field=better] .option").nth(place).click()
    page.reload()
    expect(page.locator("#relabel-case .empty")).to_be_visible()
    expect(page.locator("#relabel-name")).to_have_value("Alma")
    page.keyboard.press("n")
    assert shown(page) == case
    assert chosen(page) == better
    page.locator("[data-field=quality] .option").first.click()
    page.locator("[data-field=topic] .option").first.click()
    page.keyboard.press("Control+Enter")
    done(page, f"Case {case} labeled")
    read = services.queue.get(case, "Alma")
    new = next(each for each in read.alternatives if each.source == "regenerated")
    assert (new.text, read.labels[0].label.preferred) == (better, new.id)
    assert read.labels[0].label.values["remark"] == "Because"
    assert page.evaluate("window.pwned") is None


def test_the_next_case_does_not_wait_for_an_answer(tab: Tab, console: Served, endpoint: Endpoint) -> None:
    page, services = tab.page, console.services
    case = add_case(services, "Say hello.", "Hello.", shadow=None)
    start(page, console, "Bea", ADDRESS)
    assert shown(page) == case
    expect(page.locator("[data-field=better]")).to_contain_text("only one answer")
    page.locator("#relabel-another").click()
    expect(page.locator("#relabel-asking")).to_contain_text("Asking the endpoint…")
    page.keyboard.press("s")
    done(page, f"Case {case} skipped.")
    following = shown(page)
    assert following != case
    expect(page.locator("#relabel-asking")).to_contain_text(f"for case {case}…")
    endpoint.gate.set()
    expect(page.locator("#relabel-another")).to_be_enabled()
    assert page.locator("#relabel-case-title").inner_text() == f"Case {following}"
    page.keyboard.press("r")
    done(page, "open for others again")
    expect(page.locator("#relabel-another")).to_be_hidden()


def test_what_went_wrong_is_told_and_nothing_is_lost(tab: Tab, console: Served, endpoint: Endpoint) -> None:
    page, services = tab.page, console.services
    endpoint.answer = Behaviour(status=503, body=json.dumps({"error": {"message": PROBE}}).encode())
    endpoint.gate.set()
    case = add_case(services, "Say bye.", "Bye.", shadow=None)
    start(page, console, "Cleo", ADDRESS)
    assert shown(page) == case
    page.keyboard.press("c")
    page.keyboard.type("half a thought")
    page.locator("#relabel-another").click()
    problem = page.locator("#relabel-another-problem")
    expect(problem).to_contain_text(f"No other answer for case {case}: the endpoint answered 503: {PROBE}")
    expect(page.locator("#relabel-another")).to_be_enabled()
    expect(page.locator("#relabel-comment")).to_have_value("half a thought")
    endpoint.answer = Behaviour(content="Bye.")
    page.locator("#relabel-another").click()
    expect(page.locator("#relabel-asking")).to_have_text("The endpoint said again what is there already.")
    expect(problem).to_be_empty()
    page.keyboard.press("r")
    done(page, "open for others again")


def test_a_shadow_that_was_late_is_looked_for(tab: Tab, console: Served) -> None:
    page, services = tab.page, console.services
    case_id = add_case(services, "Say please.", "Please.", shadow=None)
    case = services.queue.get(case_id)
    completion = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "If you please."}}]}
    row = record(case.request_time + timedelta(seconds=9), 1, endpoint=ENDPOINT, seed=case_id) | {
        "is_shadow": True,
        "shadow_of": case.databricks_request_id,
        "response": json.dumps(completion),
        "response_text": "If you please.",
    }
    services.catalog.tables(ENDPOINT).payload.append(pa.Table.from_pylist([row], schema=PAYLOAD_SCHEMA))
    start(page, console, "Dana", ADDRESS)
    expect(page.locator(".answer")).to_have_count(2)
    settled(page)
    assert sorted(answers(page)) == ["If you please.", "Please."]
    expect(page.locator(".answer-source").first).to_be_hidden()
    assert [each.source for each in services.queue.get(case_id).alternatives] == ["shadow"]
    page.keyboard.press("r")
    done(page, "open for others again")
