"""The page in a real browser: drawn, readable, within its width, and asking for nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.errors import ClipStatus
from selector.report.contents import sections
from selector.report.page import Section, render
from selector.report.strips import bare_strip
from tests.evaluations import make_lite_evaluation
from tests.stores import make_store

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
sync_api = pytest.importorskip(
    "playwright.sync_api", reason="NO PLAYWRIGHT: the page was not opened"
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="NO BROWSER: the page was not opened")

LONG = "averyveryverylongnamewithoutanyspace" * 4

CONTRAST = """() => {
  const parts = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => parts(c).slice(0, 3).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor, p = parts(c);
      if (p.length < 4 || p[3] > 0) return c;
    }
    return 'rgb(255, 255, 255)';
  };
  const found = [];
  for (const e of document.querySelectorAll('p, li, h1, h2, h3, td, th, summary, figcaption,'
      + '.badge, code, label, svg.plot text')) {
    if (!e.textContent.trim() || !e.getClientRects().length) continue;
    const style = getComputedStyle(e);
    const ink = e instanceof SVGElement ? style.fill : style.color;
    const pair = [light(ink), light(behind(e))].sort((a, b) => b - a);
    const ratio = (pair[0] + .05) / (pair[1] + .05);
    if (ratio < 4.5) found.push([e.textContent.trim().slice(0, 40), ink, ratio]);
  }
  return found;
}"""

PLOTS = """() => [...document.querySelectorAll('svg.plot')].map(e => {
  const box = e.getBoundingClientRect(), text = [...e.querySelectorAll('text')];
  const inside = e.querySelector('g').getBBox();
  const letters = text.filter(t => getComputedStyle(t).display !== 'none')
    .map(t => t.getBoundingClientRect().height).filter(h => h > 0);
  return [box.width, box.height, inside.width, inside.height, Math.max(0, ...letters)];
})"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    """A page with every kind of section, from rows that are made up."""
    root = tmp_path_factory.mktemp("page")
    store = make_store(
        root / "store",
        12,
        failed={3: ClipStatus.MISSING_FILE},
        label_names=[LONG, "pulling", "turning"],
    )
    evaluation, _ = make_lite_evaluation(root / "e", num_videos=60)
    parts = sections(store, [evaluation])
    strips = [bare_strip(store, 0, "as asked")]
    text = render(LONG, [*parts, Section("Strips", strips=strips)])
    path = root / "page.html"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser, page_file: Path):
    """Opens the page in a size and a theme; at the end nothing may have been said or asked for."""
    said: list[str] = []
    pages = []

    def at(width: int, theme: str = "light"):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        page.on("console", lambda message: said.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("request", lambda request: said.append(f"request: {request.url[:80]}"))
        page.goto(page_file.as_uri())
        pages.append(page)
        return page

    yield at
    for page in pages:
        page.close()
    # A data: URL is part of the file.
    asked = [line for line in said if not line.startswith(("request: data:", "request: file:"))]
    assert asked == []
    assert sum(line.startswith("request: file:") for line in said) == len(pages)


@pytest.mark.parametrize("width", [390, 1440])
def test_plots_strips_and_width(opened, width: int):
    page = opened(width)
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    plots = page.evaluate(PLOTS)
    assert len(plots) == page.locator("svg.plot").count() >= 10
    for box_width, box_height, inner_width, inner_height, letters in plots:
        assert min(box_width, box_height) > 100
        assert min(inner_width, inner_height) > 50
        assert letters >= 9
    frames = page.evaluate(
        "[...document.querySelectorAll('.frames img')].map(e => [e.complete, e.naturalWidth,"
        " e.getBoundingClientRect().width])"
    )
    assert len(frames) == 2 * 2  # map and kept tokens, at two places in time
    assert all(done and pixels > 0 and seen > 40 for done, pixels, seen in frames)
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(opened, theme: str):
    page = opened(1440, theme)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (theme == "light")
    assert page.evaluate(CONTRAST) == []


def test_the_keyboard_opens_tables_and_reads_points(opened):
    page = opened(1440)
    summary = page.locator("summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.get_attribute("open") is not None
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "region"
    point = page.locator(".tip:visible").first
    point.focus()
    assert "%" in page.evaluate("document.activeElement.getAttribute('aria-label')")


def test_the_published_layer(opened):
    page = opened(1440)
    box, points = page.locator(".layer input"), page.locator(".over")
    assert points.count() > 10
    assert not any(point.is_visible() for point in points.all())
    box.focus()
    page.keyboard.press("Space")
    assert all(point.is_visible() for point in points.all())
    page.emulate_media(media="print")
    assert not any(point.is_visible() for point in points.all())
