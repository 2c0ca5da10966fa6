"""The gallery: what is in the page, and what a browser makes of it."""

import base64
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from tests.xai.drawing.test_sheets import CASES, heat_row, pixels, table
from trainables.core.errors import DataError
from trainables.core.quoting import printable
from trainables.sources.phantom import draw_phantom
from xai.drawing import render
from xai.drawing.gallery import LARGEST_MAP, write_gallery
from xai.methods.placement import Placement

OWNED = "document.title='owned'"
HOSTILE = (
    f"</script><script>{OWNED}</script>.png",
    f"<img src=x onerror={OWNED}>.png",
    f"\"><svg onload={OWNED}> & 'quotes'.png",
    f"<!-- {OWNED} --> <script>.png",
    "line\nbreak \u2028 and \u202egnp.exe \x00 胸部.png",
    "javascript:" + OWNED,
    "$&`${" + OWNED + "}{{ 7 * 7 }}{% raw %}.png",
)


class Page(HTMLParser):
    """The elements of a page by tag, as pairs of attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html[html.index("<html") :])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.handle_starttag(f"/{tag}", [])  # what comes after it is not its text

    def handle_data(self, data: str) -> None:
        self.texts[-1] += data

    def of(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        found = zip(self.elements, self.texts, strict=True)
        return [(attributes, text) for (name, attributes), text in found if name == tag]


def write(
    folder: Path, rows: pd.DataFrame, images: Callable[[str], render.Bytes] = pixels, **more: Any
) -> Page:
    path = write_gallery(
        folder / "gallery.html", rows, images, more.pop("title", "Maps"), more.pop("scores", ())
    )
    return Page(path.read_text("utf-8"))


def data_of(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(page.of("script")[0][1])
    return found


def records(data: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(data["columns"], values, strict=True)) for values in data["rows"]]


def hostile_table() -> pd.DataFrame:
    rows = [heat_row(name, kind, "Spot", 0.8) for name in HOSTILE for kind in ("Spot", HOSTILE[0])]
    rows += [heat_row("broken", "Spot", "Spot", 0.8, error=f"<b onclick={OWNED}>no such file</b>")]
    more = {
        "candidate": HOSTILE[1],
        "layer": HOSTILE[2],
        "method": HOSTILE[3],
        "group": HOSTILE[0],
        "split": HOSTILE[1],
    }
    return pd.DataFrame([row | more for row in rows])


# --- the page -------------------------------------------------------------------------------------


def test_the_page_needs_nothing_else_and_allows_its_own_script_only(tmp_path: Path) -> None:
    page = write(tmp_path, table(CASES))
    for _, attributes in page.elements:
        for name, value in attributes.items():
            assert name not in {"src", "srcset", "action", "style"}
            assert not name.startswith("on")
            assert name != "href" or value == "data:,"
    policy = next(
        a["content"] or ""
        for a, _ in page.of("meta")
        if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    for tag, text in (("style", page.of("style")[0][1]), ("script", page.of("script")[1][1])):
        assert "url(" not in text
        assert "://" not in text
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_every_control_has_a_name(tmp_path: Path) -> None:
    write(tmp_path, table(CASES))
    html = (tmp_path / "gallery.html").read_text("utf-8")
    for control in re.findall(r"<(?:select|input)[^>]*>", html):
        before = html[: html.index(control)]
        assert before.rfind("<label") > before.rfind("</label"), control


def test_maps_come_back_from_the_page(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    heats = rng.normal(0, 3, (6, 5, 4)).astype(np.float16)
    rows = [
        heat_row(str(number), "Spot", "Spot", 0.8, map=heat.ravel(), height=5, width=4)
        for number, heat in enumerate(heats)
    ]
    data = data_of(write(tmp_path, pd.DataFrame(rows)))
    for row, heat in zip(records(data), np.maximum(heats.astype(float), 0), strict=True):
        levels = np.frombuffer(base64.b64decode(row["map"]), np.uint8).reshape(
            row["height"], row["width"]
        )
        np.testing.assert_allclose(levels * row["high"] / 255, heat, atol=row["high"] / 509)
        assert row["peak"] == pytest.approx(render.peak(heat))
    scale = render.scale_of_peaks(map(render.peak, np.maximum(heats.astype(np.float32), 0)))
    assert data["sets"][0]["scale"] == pytest.approx(scale)


def test_large_maps_are_averaged_down_and_the_page_says_so(tmp_path: Path) -> None:
    heat, at = np.zeros((96, 64), np.float16), Placement(0.05, 0.02, 0.01, 0.015, "field")
    heat[:3, :3] = 6
    of_map = {"map": heat.ravel(), "height": 96, "width": 64, **at._asdict()}
    page = write(tmp_path, pd.DataFrame([heat_row("a", "Spot", "Spot", 0.8, **of_map)]))
    row = records(data_of(page))[0]
    assert (row["height"], row["width"]) == (LARGEST_MAP, 21)
    assert row["high"] == pytest.approx(6, rel=0.05)
    placement = data_of(page)["placements"][row["placement"]]
    assert placement[2:] == pytest.approx([0.03, 0.015 * 64 / 21])
    assert placement[:2] == pytest.approx([0.05 + 0.01, 0.02 - 0.0075 + 0.015 * 32 / 21])
    assert any("averaged down" in text for text in page.texts)
    assert not any("averaged down" in text for text in write(tmp_path, table(CASES)).texts)


def test_images_are_small_grey_or_coloured_jpegs_of_their_own_shape(tmp_path: Path) -> None:
    images = {
        "wide": np.full((300, 900), 99, np.uint8),
        "small": np.full((20, 10, 3), (250, 0, 0), np.uint8),
    }
    rows = table({"wide": ("Spot", 0.9), "small": ("Clear", 0.9)})
    entries = data_of(write(tmp_path, rows, images.__getitem__))["images"]
    coded = [np.frombuffer(base64.b64decode(entry["jpeg"]), np.uint8) for entry in entries]
    decoded = [np.asarray(cv2.imdecode(content, cv2.IMREAD_UNCHANGED)) for content in coded]
    assert [picture.shape for picture in decoded] == [(96, 288), (20, 10, 3)]
    assert decoded[1][10, 5, 2] > 240
    assert [(e["width"], e["height"]) for e in entries] == [(900, 300), (10, 20)]


def test_what_cannot_be_drawn_is_in_the_page_with_its_reason(tmp_path: Path) -> None:
    def reader(name: str) -> render.Bytes:
        if name == "gone":
            raise DataError("gone: missing file")
        return pixels(name)

    nan = np.full(6, np.nan, np.float16)
    rows = pd.DataFrame(
        [
            heat_row("bad", "Spot", "Spot", 0.8, map=nan),
            heat_row(
                "gone",
                "Spot",
                None,
                0.8,
                **{"map": None, "error": "missing file", "class": None, "fold": None},
            ),
            heat_row("good", "Spot", "Spot", 0.8, outside_lung=0.25),
        ]
    )
    data = data_of(write(tmp_path, rows, reader, scores=["outside_lung"]))
    bad, gone, good = records(data)
    assert bad["error"] == "the map holds NaN or infinite values"
    assert (gone["error"], gone["map"], data["images"][1]["jpeg"]) == ("missing file", None, None)
    assert data["images"][1]["error"] == "gone: missing file"
    assert (good["outside_lung"], bad["outside_lung"], good["fold"]) == (0.25, None, "0")
    assert data["sets"][0]["scale"] == pytest.approx(render.peak(np.array([0.8], np.float16)))


def test_hostile_text_is_data_only(tmp_path: Path) -> None:
    page = write(tmp_path, hostile_table(), title=HOSTILE[0])
    assert len(page.of("script")) == 2
    assert not page.of("svg") + page.of("b")
    assert [image["name"] for image in data_of(page)["images"][:2]] == list(HOSTILE[:2])
    html = (tmp_path / "gallery.html").read_text("utf-8")
    assert "\u2028" not in html
    assert "\u202e" not in html
    assert OWNED not in page.of("script")[1][1]


def test_equal_tables_give_equal_pages(tmp_path: Path) -> None:
    first, second = (
        write_gallery(tmp_path / name, table(CASES), pixels, "Maps")
        for name in ("a.html", "b.html")
    )
    assert first.read_bytes() == second.read_bytes()


# --- in a browser ---------------------------------------------------------------------------------

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
WHEN = "done => {{ const wait = () => {} ? done(true) : setTimeout(wait, 20); wait(); }}"
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run")


@pytest.mark.slow
@needs_browser
def test_hostile_names_are_shown_and_nothing_of_them_runs(tmp_path: Path) -> None:
    path = write_gallery(tmp_path / "it's a #gallery?.html", hostile_table(), pixels, HOSTILE[0])
    command = [
        CHROMIUM or "",
        *FLAGS,
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=4000",
    ]
    dumped = subprocess.run(
        [*command, "--dump-dom", path.as_uri()], capture_output=True, timeout=120, check=True
    )
    page = Page(dumped.stdout.decode())
    assert page.of("title")[0][1] == HOSTILE[0]
    assert len(page.of("li")) == len(HOSTILE) + 1
    named = {attributes.get("title") for attributes, _ in page.of("span")}
    assert named >= {printable(name) for name in HOSTILE}
    assert len(page.of("script")) == 2
    assert not page.of("svg") + page.of("b")


class Browser:
    """A headless Chromium, spoken to in the DevTools protocol over two pipes."""

    def __init__(self, profile: Path) -> None:
        (reads, self.commands), (self.answers, writes) = os.pipe(), os.pipe()
        start = shlex.join(
            [CHROMIUM or "", *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        )
        line = f"exec {start} about:blank 3<&{reads} 4>&{writes}"
        nowhere = subprocess.DEVNULL
        self.process = subprocess.Popen(
            ["bash", "-c", line], pass_fds=(reads, writes), stdout=nowhere, stderr=nowhere
        )
        os.close(reads)
        os.close(writes)
        self.events: list[dict[str, Any]] = []
        self.number, self.session, self.rest = 0, "", b""
        page = next(
            target
            for target in self("Target.getTargets")["targetInfos"]
            if target["type"] == "page"
        )
        self.session = self("Target.attachToTarget", targetId=page["targetId"], flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while (answer := self.next_message()).get("id") != self.number:
            self.events.append(answer)
        result: dict[str, Any] = answer["result"]
        return result

    def next_message(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            self.rest += os.read(self.answers, 1 << 20)
        message, _, self.rest = self.rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def open(self, path: Path) -> None:
        self("Page.navigate", url=path.as_uri())
        assert self.value(f"new Promise({WHEN.format('document.readyState === `complete`')})")

    def value(self, expression: str) -> Any:
        answer = self(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def choose(self, control: str, value: Any) -> None:
        self.value(
            f"(c => {{ c.value = {json.dumps(value)}; for (const type of ['input', 'change']) "
            "c.dispatchEvent(new Event(type, {bubbles: true})); "
            f"}})(document.querySelector({json.dumps(control)}))"
        )

    def press(self, key: str) -> None:
        code = {
            "Escape": 27,
            "ArrowLeft": 37,
            "ArrowUp": 38,
            "ArrowRight": 39,
            "ArrowDown": 40,
        }.get(key, 0)
        text = {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                windowsVirtualKeyCode=code,
                **(text if kind == "keyDown" else {}),
            )

    def names(self) -> list[str]:
        found: list[str] = self.value("visible.map(card => card.image.name)")
        return found

    def close(self) -> None:
        os.close(self.commands)  # Chromium ends with its pipe
        os.close(self.answers)
        self.process.wait(30)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    running = Browser(tmp_path_factory.mktemp("profile"))
    yield running
    running.close()


def several() -> pd.DataFrame:
    """Two candidates, one of them with two methods, and a score."""
    rows = pd.concat(
        [table(CASES), table(CASES, method="rise", layer="input"), table(CASES, candidate="other")]
    )
    rows["outside_lung"] = [
        round(1 - p, 2) if label == "Spot" else np.nan
        for label, p in zip(rows["label"], rows["probability"], strict=True)
    ]
    return rows.reset_index(drop=True)


@pytest.mark.slow
@needs_browser
def test_images_are_sorted_and_filtered(browser: Browser, tmp_path: Path) -> None:
    browser.open(write_gallery(tmp_path / "g.html", several(), pixels, "Maps", ["outside_lung"]))
    assert browser.names() == list(CASES)
    browser.choose("#class", "1")  # Spot
    browser.choose("#sort", "probability")
    browser.choose("#order", "-1")
    by_probability = sorted(CASES, key=lambda name: -CASES[name][1])
    assert browser.names() == by_probability
    browser.choose("#label", "1")
    browser.choose("#result", "wrong")
    assert browser.names() == ["spot 0.3"]
    browser.value("document.getElementById('clear').click()")
    browser.choose("#ranges input[aria-label='Outside lung, highest']", "0.2")
    assert browser.names() == ["spot 0.99", "spot 0.9", "spot 0.8"]
    browser.choose("#sort", "outside_lung")
    browser.value("document.getElementById('clear').click()")
    # No number: last, in either order.
    assert browser.names()[-3:] == [
        "clear 0.1",
        "clear 0.2",
        "clear 0.85",
    ]
    browser.choose("#name", "CLEAR")
    assert browser.value("document.getElementById('count').textContent").startswith("3 of 9 images")
    browser.choose("#candidate", "1")
    assert (
        browser.value("document.getElementById('method').selectedOptions[0].textContent")
        == "Grad-CAM"
    )
    assert browser.value("data.sets[chosen(images[0]).set].candidate") == 1


@pytest.mark.slow
@needs_browser
def test_the_keyboard_is_enough(browser: Browser, tmp_path: Path) -> None:
    browser.open(write_gallery(tmp_path / "g.html", several(), pixels, "Maps"))
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft"):
        browser.press(key)
    assert browser.value("document.activeElement === cards[1].button")
    browser.value("document.activeElement.click()")
    assert browser.value("document.getElementById('large').open")
    assert browser.value("document.querySelectorAll('#classes li').length") == 2
    assert browser.value("document.querySelectorAll('#others li').length") == 2
    browser.press("ArrowRight")
    assert browser.value("document.getElementById('large-name').textContent") == list(CASES)[2]
    browser.press("o")
    assert (
        browser.value("getComputedStyle(document.querySelector('#large canvas')).visibility")
        == "hidden"
    )
    browser.press("o")
    assert (
        browser.value("getComputedStyle(document.querySelector('#large canvas')).visibility")
        == "visible"
    )
    browser.press("Escape")
    assert not browser.value("document.getElementById('large').open")
    assert browser.value(
        f"new Promise({WHEN.format('document.activeElement === cards[2].button')})"
    )


@pytest.mark.slow
@needs_browser
def test_images_that_failed_before_their_layer_was_known_can_be_looked_at(
    browser: Browser, tmp_path: Path
) -> None:
    lost = {"layer": None, "class": None, "map": None, "error": "damaged file", "prediction": None}
    failed = pd.DataFrame([heat_row(name, "Spot", "Spot", 0.9, **lost) for name in "ab"])
    for rows in (failed, pd.concat([failed, table(CASES)])):
        browser.open(write_gallery(tmp_path / "g.html", rows, pixels, "Maps"))
        assert browser.value("cards[0].error.textContent") == "damaged file"
        assert browser.value("cards[0].result") == "unknown"
        browser.value("cards[0].button.click()")
        assert browser.value("document.querySelectorAll('#large .error').length") == 1
        assert browser.value("document.querySelectorAll('.strip li').length") == 0


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("scale", ["shared", "image"])
@pytest.mark.parametrize("colours", ["inferno", "jet"])
def test_the_page_draws_what_render_draws(
    scale: str, colours: render.Colours, browser: Browser, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    heats = (rng.normal(0, 1, (3, 7, 7)) * np.array([1, 0.2, 3])[:, None, None]).astype(np.float16)
    places = [
        Placement.tiles(7, 7),
        Placement(0.14, 0.003, 0.14, 0.14, "field"),
        Placement(-0.05, 0.2, 0.1, 0.2, "field"),
    ]
    rows = pd.DataFrame(
        [
            heat_row(
                str(n), "Spot", "Spot", 0.9, map=heat.ravel(), height=7, width=7, **at._asdict()
            )
            for n, (heat, at) in enumerate(zip(heats, places, strict=True))
        ]
    )
    black = np.zeros((256, 256), np.uint8)
    browser.open(write_gallery(tmp_path / "g.html", rows, lambda _: black, "Maps"))
    browser.choose("#scale", scale)
    browser.choose("#colours", colours)
    scales = render.Scales.of(rows, per_image=scale == "image")
    for number, row in enumerate(rows.to_dict("records")):
        script = (
            f"(c => {{{{ draw(c, cards[{number}].row, images[{number}]); return [...{{}}]; "
            "}})({})"
        )
        pixels_of = "c.getContext('2d').getImageData(0, 0, 256, 256).data"
        values = browser.value(script.format(pixels_of, "document.createElement('canvas')"))
        drawn = np.array(values).reshape(256, 256, 4)
        expected = render.overlay(
            black,
            render.evidence_of(row),
            scales[row],
            colours,
            opacity=1,
            placement=render.placement_of(row),
        )
        over_black = drawn[..., :3] * (drawn[..., 3:] / 255)
        assert np.abs(over_black - expected).mean() < 1
        assert np.abs(over_black - expected).max() < 16  # a canvas rounds faint colours


@pytest.mark.slow
@needs_browser
def test_a_thousand_images_open_at_once_draw_what_is_seen_and_ask_for_nothing(
    browser: Browser, tmp_path: Path
) -> None:
    phantoms = [draw_phantom(number % 3, number, 0, 224, 0, False).pixels for number in range(8)]
    cases: dict[str, tuple[str | None, float]] = {
        f"{number:04}": ("Spot", number / 1000) for number in range(1000)
    }
    path = write_gallery(
        tmp_path / "g.html", table(cases), lambda name: phantoms[int(name) % 8], "A thousand"
    )
    assert path.stat().st_size < 25e6
    browser.events.clear()
    browser(
        "Emulation.setDeviceMetricsOverride",
        width=390,
        height=844,
        deviceScaleFactor=1,
        mobile=True,
    )
    browser.open(path)
    assert len(browser.names()) == 1000
    assert browser.value(f"new Promise({WHEN.format('cards[0].near')})")
    assert 0 < browser.value("cards.filter(card => card.img.hasAttribute('src')).length") < 60
    assert browser.value("document.documentElement.scrollWidth") <= 390
    browser("Emulation.clearDeviceMetricsOverride")
    asked = {
        event["params"]["request"]["url"]
        for event in browser.events
        if event.get("method") == "Network.requestWillBeSent"
    }
    assert all(url.startswith(("data:image/jpeg;base64,", path.as_uri())) for url in asked)
    assert not [
        event
        for event in browser.events
        if event.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")
    ]
