"""What a viewer does on the Quality page: hold an alert back, choose what drift is about, ask for a report, look for delay."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.conftest import TIMEOUT_MS, Served, Tab
from tests.browser.test_pages import WITH_DATA, drawn, show

expect.set_options(timeout=TIMEOUT_MS)


def test_an_alert_is_silenced_told_of_again_and_leads_to_its_records(tab: Tab, filled: Served) -> None:
    page = show(tab, filled, "/quality", ".incident")
    expect(page.locator(".incident")).to_contain_text("toxic-answers (challenger)")
    expect(page.locator("#nav-firing")).to_have_text("1")
    page.locator(".incident").get_by_role("button", name="Silence toxic-answers (challenger)").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Tell nobody of toxic-answers (challenger).")
    send = dialog.get_by_role("button", name="Silence", exact=True)
    send.click()
    expect(dialog.get_by_role("alert")).to_contain_text("Say why")
    dialog.get_by_label("Reason").fill("a <b>load</b> test")
    send.click()
    expect(dialog).to_be_hidden()
    silences = page.get_by_role("region", name="Silences that hold")
    expect(silences).to_contain_text("a <b>load</b> test (console)")
    expect(page.locator(".incident")).to_contain_text("Silenced")
    silences.get_by_role("button", name="End the silence of toxic-answers").click()
    expect(silences).to_have_count(0)
    page.locator("#quality-alerts-ended-title").click()
    expect(page.get_by_role("region", name="Ended incidents")).to_contain_text("errors")
    expect(page.locator(".incident")).not_to_contain_text("Silenced")
    page.locator(".incident").get_by_role("link", name="record 1").click()
    expect(page.locator(".panel .turn-answer")).to_be_visible()
    assert "request=" in page.url


def test_drift_of_a_slice_and_against_another_reference(tab: Tab, filled: Served) -> None:
    page = show(tab, filled, "/quality", WITH_DATA["/quality"])
    expect(page.locator("#quality-drift-verdict")).to_have_text("3 drifted")
    page.get_by_role("textbox", name="Slice").click()
    page.get_by_role("option", name="variant: champion").click()
    expect(page.locator("#quality-drift-verdict")).to_have_text("Insufficient data")
    window = page.get_by_role("region", name="Verdicts of the chosen window")
    expect(window.get_by_text("Insufficient data")).to_have_count(12)
    page.get_by_role("textbox", name="Compared with").click()
    page.get_by_role("option", name="Variant champion in the same window").click()
    expect(page.locator("#quality-drift-note")).to_contain_text("variant champion in the same window")
    # There are no two windows that a report could be of.
    expect(page.locator("#quality-report")).to_be_disabled()
    expect(page.locator("#quality-report-why")).to_contain_text("A report is of two windows")


def test_a_report_of_a_window_pair_is_made_and_linked(tab: Tab, filled: Served) -> None:
    page = show(tab, filled, "/quality", WITH_DATA["/quality"])
    reports = page.locator("#quality-reports .report-link")
    expect(reports).to_have_count(3)
    page.locator("#quality-report").click()
    expect(page.locator("#quality-reports .report-job")).to_contain_text("Window of")
    expect(reports).to_have_count(4, timeout=150_000)
    expect(page.locator("#quality-reports .report-job")).to_have_count(0)
    address = reports.first.get_attribute("href")
    assert address is not None
    made = page.request.get(filled.url + address)
    assert made.ok
    assert "against" in made.text()


def test_late_evaluations_labels_and_model_quality(tab: Tab, filled: Served) -> None:
    page = show(tab, filled, "/quality", "#quality-standings table")
    for name, state in (
        ("perplexity", "Up to date"),
        ("toxicity", "Late"),
        ("language", "Failed"),
        ("json_schema", "Paused"),
    ):
        row = page.locator("#quality-standings tbody tr", has=page.locator(f".strong:text-is('{name}')"))
        expect(row).to_contain_text(state)
    drawn(page, "quality-lag")
    expect(page.get_by_role("region", name="Evaluator runs").get_by_role("row")).to_have_count(21)
    page.locator("#quality-evaluator").get_by_text("Json schema").click()
    expect(page.locator("#quality-caveat")).to_contain_text("Share “valid”")
    expect(page.locator("#quality-distribution-card")).to_be_hidden()
    drawn(page, "quality-labels")
    page.locator("#quality-evaluator").get_by_text("Perplexity").click()
    expect(page.locator("#quality-distribution-card")).to_be_visible()
    expect(page.locator("#quality-labels-card")).to_be_hidden()
    quality = page.get_by_role("region", name="Quality of predicted classes")
    expect(quality.get_by_role("row")).to_have_count(4)
