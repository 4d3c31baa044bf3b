"""The page of examples/web in Chromium: what it answers, and whom it asks."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import serve_page
from chromium import PROGRAM, Chromium

from tfopt.export.interpreter import softmax

pytestmark = pytest.mark.slow
STATUS = "(document.getElementById('status')?.textContent ?? '')"
ROWS = ("[...document.querySelectorAll('#scores tr')].map("
        "row => [...row.cells].map(cell => cell.textContent))")
# A kernel for WebAssembly adds floats in another order; a rounded activation, one step
# of 127 apart, moves a score by some thousandths.
NEAR = 0.02
POLICY = "Content Security Policy"


def logged(browser: Chromium) -> list[str]:
    """What the browser wrote into its log."""
    return [event["params"]["entry"]["text"] for event in browser.events
            if event["method"] == "Log.entryAdded"]


def open_page(browser: Chromium, model: Path):
    """The page with a model, and what ends its server."""
    try:
        files = serve_page.files(model)
    except ValueError as error:
        pytest.skip(f"{error}; make test-clients does, where there is npm")
    served = serve_page.server(files, port=0)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    return browser.open(f"http://127.0.0.1:{served.server_port}/"), served


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not PROGRAM:
        pytest.skip("there is no Chromium: Debian's package `chromium` has it")
    with Chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


def test_50_texts_have_pythons_labels(browser, export, dev, labels, logits_of,
                                      tmp_path):
    texts = [text for text in dev.texts if text.isascii()][:50]
    page, served = open_page(browser, export())
    with served:
        page.wait_for(f"{STATUS}.startsWith('Ready')")
        assert "s. Type a text." in page.value(STATUS)
        found = []
        for text in texts:
            page.type(text)
            assert page.value("document.getElementById('text').value") == text
            assert float(page.value(STATUS).removesuffix(" ms")) > 0
            found.append(page.value(ROWS))
        picture = page.picture()
        served.shutdown()
    (tmp_path / "page.png").write_bytes(picture)
    print(f"A picture of the page: {tmp_path / 'page.png'}")
    assert picture.startswith(b"\x89PNG")
    expected = softmax(logits_of(export(), texts))
    assert [rows[0][0] for rows in found] == [labels[i] for i in
                                              expected.argmax(axis=1)]
    best = -np.sort(-expected, axis=1)[:, :len(found[0])]
    np.testing.assert_allclose([[float(row[1]) for row in rows] for rows in found],
                               best, atol=NEAR)


def test_nobody_else_is_asked(browser):
    """After the test above: all that the browser asked for, and what went wrong.

    MediaPipe tries to send figures a minute after the page was opened.
    """
    asked = [event["params"]["request"]["url"] for event in browser.events
             if event["method"] == "Network.requestWillBeSent"]
    assert any(url.endswith(".wasm") for url in asked)
    assert [url for url in asked
            if not url.startswith(("http://127.0.0.1:", "data:"))] == []
    assert not any(event["method"] == "Runtime.exceptionThrown"
                   for event in browser.events)
    assert [message for message in logged(browser) if POLICY not in message] == []


def test_the_page_weighs_little(browser):
    """As it was sent for the first test, without model and WebAssembly."""
    names = {event["params"]["requestId"]: event["params"]["request"]["url"]
             for event in browser.events
             if event["method"] == "Network.requestWillBeSent"}
    sent = {names[event["params"]["requestId"]]: event["params"]["encodedDataLength"]
            for event in browser.events if event["method"] == "Network.loadingFinished"}
    weights = {url: size for url, size in sent.items()
               if "/wasm/" not in url and not url.endswith("model.tflite")}
    assert len(weights) == 4 and 20_000 < sum(weights.values()) <= 30_000, weights


def test_the_page_forbids_to_ask_another(browser, export):
    page, served = open_page(browser, export())
    with served:
        page.wait_for(f"{STATUS}.startsWith('Ready')")
        before = len(logged(browser))
        assert page.value("fetch('https://elsewhere.invalid/', {method: 'POST'})"
                          ".then(() => 'sent', () => 'refused')") == "refused"
        assert any(POLICY in message for message in logged(browser)[before:])
        served.shutdown()


def test_a_file_without_metadata_is_told_in_a_sentence(browser, tmp_path):
    (tmp_path / "none.tflite").write_bytes(b"no model")
    page, served = open_page(browser, tmp_path / "none.tflite")
    with served:
        page.wait_for(f"{STATUS}.startsWith('The model cannot be opened: ')")
        assert page.value("document.getElementById('text').disabled") is True
        served.shutdown()


def test_a_text_is_shown_as_text_and_an_empty_one_as_none(browser, export):
    page, served = open_page(browser, export())
    with served:
        page.wait_for(f"{STATUS}.startsWith('Ready')")
        page.type("<img src=x onerror=alert(1)>")
        assert page.value("document.images.length") == 0 and page.value(ROWS)
        page.type("  ")
        assert page.value(STATUS) == "Type a text."
        assert page.value("document.querySelector('table').hidden") is True
        served.shutdown()
