"""Labeling in a real browser where a schema asks everything: fields of every type, disputes, and annotators who are blind."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from relabel.case import CaseState, Resolution
from relabel.label import ANSWER, Rating
from tests.browser.conftest import Served, Tab
from tests.browser.conversations import PROBE
from tests.browser.filled_labels import EMOJI_ANSWER, EMOJI_PROMPT, SHADOW_ANSWER, add_case, label, say
from tests.browser.test_relabel_page import done, settled, shown, start

ADDRESS = "/relabel?endpoint=summaries"
PROMPT = f"You summarise. Be brief.\n{EMOJI_PROMPT}"


def prefer_recorded(page: Page) -> None:
    """Press the number of the recorded answer, which is known by its text alone."""
    answers = page.locator(".answer .turn-text")
    place = next(place for place in (0, 1) if answers.nth(place).inner_text() != SHADOW_ANSWER)
    page.keyboard.press(str(place + 1))


def select(page: Page, text: str, occurrence: int) -> None:
    """Select the n-th ``text`` on the screen with the mouse's means, as a double click does."""
    found = page.evaluate(
        """([text, occurrence]) => {
          for (const piece of document.querySelectorAll('.surface')) {
            const walker = document.createTreeWalker(piece, NodeFilter.SHOW_TEXT);
            for (let node = walker.nextNode(); node; node = walker.nextNode()) {
              for (let at = node.data.indexOf(text); at >= 0; at = node.data.indexOf(text, at + 1)) {
                if (occurrence-- > 0) continue;
                window.getSelection().setBaseAndExtent(node, at, node, at + text.length);
                return true;
              }
            }
          }
          return false;
        }""",
        [text, occurrence],
    )
    assert found


def test_a_field_of_every_type_is_answered_by_keyboard(tab: Tab, filled: Served) -> None:
    page = tab.page
    case = add_case(filled.services, EMOJI_PROMPT, EMOJI_ANSWER)
    start(page, filled, "Cora", ADDRESS)
    assert shown(page) == case
    expect(page.locator("#relabel-case .reason")).to_have_count(3)
    expect(page.locator("#relabel-feedback")).to_contain_text("Not what I asked.")
    expect(page.locator("#relabel-guidelines")).to_contain_text("Judge the answer")
    expect(page.locator(".answer-source").first).to_be_hidden()
    expect(page.locator(".option-why")).to_have_text("suggested: toxicity 0.710")

    prefer_recorded(page)
    expect(page.locator(".answer-source").first).to_be_visible()
    for digit in "422":  # quality, effort, topic: each moves on to the next
        page.keyboard.press(digit)
    page.keyboard.press("1")
    page.keyboard.press("3")
    page.keyboard.press("j")
    surface = page.get_by_role("textbox", name="Text of the answer")
    expect(surface).to_be_focused()
    page.keyboard.press("Home")
    for _ in range(2):
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("2")
    page.keyboard.type("xyzwq")
    expect(surface).to_have_text(EMOJI_ANSWER)
    select(page, "thanks", 5)
    page.keyboard.press("1")
    expect(page.locator(".surface mark")).to_have_count(2)
    page.keyboard.press("j")
    select(page, "🚀", 1)
    page.keyboard.press("1")
    page.keyboard.press("j")
    page.keyboard.type("Because it is short 🙂")
    page.keyboard.press("Escape")
    page.keyboard.press("e")
    page.keyboard.press("Control+End")
    page.keyboard.type(" Bye.")
    page.keyboard.press("Tab")
    page.keyboard.type("tone,")
    page.keyboard.press("Control+Enter")
    done(page, f"Case {case} labeled, rated 4 of 5 with a corrected answer.")

    given = next(
        each for each in filled.services.queue.get(case, "Cora").labels if each.annotator == "Cora"
    ).label
    assert given.preferred == ANSWER
    assert given.rating is Rating.GOOD
    assert given.corrected_answer == EMOJI_ANSWER + " Bye."
    assert given.tags == ("tone",)
    last = EMOJI_ANSWER.rindex("thanks")
    rocket = PROMPT.rindex("🚀")
    thumb = given.values["parts"]
    assert isinstance(thumb, list)
    assert thumb[0]["text"].startswith("👍🏽")
    assert thumb[1:] == [{"start": last, "end": last + 6, "label": "Error", "text": "thanks"}]
    assert given.values["asked"] == [{"start": rocket, "end": rocket + 1, "label": "Task", "text": "🚀"}]
    assert {name: given.values[name] for name in ("quality", "effort", "topic", "flaws", "remark")} == {
        "quality": 4,
        "effort": 2,
        "topic": "Refund",
        "flaws": ["Wrong", "Too long"],
        "remark": "Because it is short 🙂",
    }


def test_marks_are_taken_away_and_need_a_selection(tab: Tab, filled: Served) -> None:
    page = tab.page
    add_case(filled.services, "Say thanks.", "Thanks and thanks, thanks.")
    start(page, filled, "Mark", ADDRESS)
    shown(page)
    prefer_recorded(page)
    error = page.locator(".span-label", has_text="Error").first
    error.click()
    expect(page.locator("[data-field=parts] .field-error")).to_have_text(
        "Select some text of the answer first."
    )
    select(page, "thanks", 1)
    error.click()
    select(page, "Thanks and", 0)
    error.click()
    expect(page.locator(".span-list li")).to_have_count(2)
    expect(page.locator("[data-field=parts] .field-error")).to_be_hidden()
    page.get_by_role("button", name="Remove Error from “Thanks and”").click()
    expect(page.locator(".surface mark")).to_have_text("thanks")
    select(page, "thanks", 1)
    page.keyboard.press("Backspace")
    expect(page.locator(".surface mark")).to_have_count(0)
    page.keyboard.press("r")
    done(page, "open for others again")


def test_what_a_user_wrote_is_taken_over_when_asked_for(tab: Tab, filled: Served) -> None:
    page, services = tab.page, filled.services
    case = add_case(services, "Say it well.", "It.")
    better = f"Well: {PROBE}"
    for words in ("Badly.", better):  # people change their mind
        say(services, case, source_id="user-7", name="corrected_answer", comment=words)
    start(page, filled, "Wanda", ADDRESS)
    assert shown(page) == case
    expect(page.locator("#relabel-feedback")).to_contain_text(f"user: what it should have been{better}")
    expect(page.locator("#relabel-feedback")).not_to_contain_text("Badly.")
    field, take = page.locator("#relabel-corrected"), page.locator("#relabel-user-wrote")
    expect(take).to_be_visible()
    expect(field).to_have_value("")
    field.fill("My own words")
    page.keyboard.press("Escape")
    page.keyboard.press("w")
    expect(field).to_have_value(better)
    expect(page.locator(".diff ins").first).to_be_visible()
    page.keyboard.press("Control+z")
    expect(field).to_have_value("My own words")
    take.click()
    expect(field).to_have_value(better)
    page.keyboard.press("Escape")
    page.locator("[data-field=better] .option", has_text="None is better").click()
    page.locator("[data-field=quality] .option").first.click()
    page.locator("[data-field=topic] .option").first.click()
    page.keyboard.press("Control+Enter")
    done(page, f"Case {case} labeled, rated 1 of 5 with a corrected answer.")
    assert services.queue.get(case, "Wanda").labels[0].label.corrected_answer == better
    shown(page)
    expect(page.locator("#relabel-feedback")).to_contain_text("Not what I asked.")
    expect(page.locator("#relabel-user-wrote")).to_be_hidden()
    page.keyboard.press("r")
    done(page, "open for others again")


def test_a_dispute_is_decided_from_what_others_said(tab: Tab, filled: Served) -> None:
    page, queue = tab.page, filled.services.queue
    start(page, filled, "Dora", ADDRESS + "&tab=disputes")
    case = shown(page)
    compared = page.get_by_role("region", name="The labels that disagree")
    expect(compared.get_by_role("columnheader")).to_have_text(["Ann", "Bob"])
    expect(compared.locator("tr.differs")).to_have_count(1)
    expect(compared.locator("tr.differs")).to_contain_text("Quality of the recorded answer")
    expect(page.locator(".option :checked")).to_have_count(0)
    compared.get_by_role("button", name="Start from the majority").press("Enter")
    expect(page.locator("[data-field=topic] :checked")).to_have_count(1)
    expect(page.locator("[data-field=quality] :checked")).to_have_count(0)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#relabel-problem")).to_contain_text(
        "“Quality of the recorded answer” is not answered"
    )
    settled(page)
    page.keyboard.press("3")
    page.keyboard.press("Control+Enter")
    done(page, f"Case {case} decided")
    decided = queue.get(case)
    assert (decided.state, decided.resolution) == (CaseState.LABELED, Resolution.ADJUDICATED)
    own = next(each for each in decided.labels if each.is_adjudication)
    assert (own.annotator, own.label.values["quality"], own.label.values["topic"]) == ("Dora", 3, "Refund")
    page.keyboard.press("r")
    done(page, "open for others again")


def test_annotators_are_blind_to_each_other(tab: Tab, filled: Served) -> None:
    page, services = tab.page, filled.services
    case = add_case(services, "Summarise the secret.", "The secret is out.")
    values = {"better": "tie", "quality": 1, "topic": "Product", "tags": ["only-ann-knows"]}
    assert label(services, "Anna", values, "the comment of Anna") == case
    start(page, filled, "Bert", ADDRESS)
    assert shown(page) == case
    assert "only-ann-knows" not in page.content()
    assert "the comment of Anna" not in page.content()
    expect(page.locator(".option :checked")).to_have_count(0)
    page.goto(f"{filled.url}{ADDRESS}&tab=queue&case={case}")
    panel = page.locator("#relabel-panel-content")
    expect(panel).to_contain_text("The secret is out.")
    expect(panel).to_contain_text("1 of 2 labels")
    assert "only-ann-knows" not in page.content()
    assert "the comment of Anna" not in page.content()
    services.queue.release(case, "Bert")


def test_payload_text_is_never_interpreted(open_tab: Callable[..., Tab], filled: Served) -> None:
    page = open_tab(width=390, height=844, scheme="dark").page
    case = add_case(filled.services, f"Repeat: {PROBE}", f"Here: {PROBE}", 4)
    filled.services.queue.comment(case, PROBE[:100], f"{PROBE} as a comment")
    start(page, filled, "Eve", ADDRESS)
    assert shown(page) == case
    page.locator("#relabel-case summary").click()
    for words in (
        f"Here: {PROBE}",
        f"Repeat: {PROBE}",
        f"Fetches a report {PROBE}",
        f"similarity 0.42 {PROBE}",
    ):
        expect(page.locator("#relabel-case")).to_contain_text(words)
    expect(page.locator("#relabel-feedback")).to_contain_text(PROBE)
    expect(page.locator("[data-field=topic]")).to_contain_text(PROBE)
    page.keyboard.press("e")
    page.keyboard.type(PROBE)
    expect(page.locator(".diff")).to_contain_text(PROBE)
    assert page.locator("main img, main script").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    page.goto(f"{filled.url}{ADDRESS}&tab=queue&case={case}")
    expect(page.locator("#relabel-panel-comments")).to_contain_text(f"{PROBE} as a comment")
    assert page.locator("main img, .mantine-Drawer-content img").count() == 0
    assert page.evaluate("window.pwned") is None
    filled.services.queue.release(case, "Eve")
