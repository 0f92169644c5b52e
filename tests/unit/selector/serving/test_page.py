"""The page in a real browser: a video is chosen, its answer shown, and nobody else asked."""

from __future__ import annotations

import shutil
from concurrent.futures import Future

import numpy as np
import pytest

from pipeline.decode import DecodedVideo
from pipeline.errors import ClipStatus, DecodeError
from tests.servers import serving

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
sync_api = pytest.importorskip(
    "playwright.sync_api", reason="NO PLAYWRIGHT: the page was not opened"
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="NO BROWSER: the page was not opened")


class Pool:
    """Takes any file for a grey video, but for one that is `bad`."""

    def submit(self, request):
        future: Future = Future()
        with open(request.path, "rb") as file:
            if file.read() == b"bad":
                future.set_result(DecodeError(ClipStatus.DECODE_ERROR, "not a <i>video</i>"))
                return future
        grey = np.full((1, 4, 16, 16, 3), 99, np.uint8)
        future.set_result(
            DecodedVideo(clips=grey, num_frames_total=4, padded=False, damaged=False,
                         decoder="", decoder_version="")
        )  # fmt: skip
        return future


def test_a_chosen_video_is_answered_and_foreign_text_stays_text():
    with serving(Pool()) as server, sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(f"{request.method} {request.url}"))
        address = f"http://127.0.0.1:{server.port}/"
        page.goto(address)
        assert page.locator("#answer").is_hidden()
        page.set_input_files("#file", {"name": "a.mp4", "mimeType": "", "buffer": b"good"})
        page.wait_for_selector("#mask", state="visible")
        row = page.locator("#classes tr")
        assert row.inner_text().split("\t")[:2] == ["<b>jump</b>", "75.0 %"]
        assert "0.500 of 2.00 GMACs, 50 % of the tokens." in page.inner_text("#cost")
        assert page.locator("#mask").evaluate("image => image.naturalWidth") > 100
        assert said == [f"GET {address}", f"POST {address}predict?mask=true"]
        # By keyboard alone, the next one is chosen where the first was.
        page.keyboard.press("Tab")
        assert page.evaluate_handle("document.activeElement").get_attribute("id") == "file"
        page.set_input_files("#file", {"name": "b.mp4", "mimeType": "", "buffer": b"bad"})
        page.wait_for_selector("#status.wrong")
        assert page.inner_text("#status") == "not a <i>video</i>"
        assert page.locator("#answer").is_hidden()
        browser.close()
