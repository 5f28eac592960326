"""The report of many parts: its structure, what its data decode to, escapes, addresses, sizes and memory."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import shutil
import tempfile
import tracemalloc
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.browser import browser, resize
from support.explorer import address
from support.limits import GENEROUS
from support.places import CHECKOUT
from support.samples import make_sample

from mafr.data.display import around_middle, thinned
from mafr.errors import StorageError
from mafr.report import Part, Report
from mafr.report.histogram import histogram

HOSTILE = "</script><script>alert(1)</script> \"a\" & 'b' {{data}} {{items}} ü"
VOID = {"meta", "link", "input", "canvas/", "br"}


def part(seed: int = 0, score: float | None = None, name: str = "", size: int = 56, scale: float = 1.0) -> Part:
    """A part whose score is its map's maximum unless given."""
    sample = make_sample(seed, size)
    v, u = np.mgrid[:size, :size] / size - 0.5
    heat = scale * (1 + np.exp(-((v - 0.1) ** 2 + u**2) / 0.01)).astype(np.float32)
    score = float(heat.max()) if score is None else score
    rgb = np.round(255 * sample.rgb.transpose(1, 2, 0)).astype(np.uint8)
    return Part(name or f"scan {seed}", score, "OK" if score <= 2.5 else "not OK", rgb, heat, sample.xyz)


class Page(HTMLParser):
    """Elements as (tag, attributes), the text of scripts by id, and the list's entries as lists of texts."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.scripts: dict[str, str] = {}
        self.entries: list[tuple[dict, list[str]]] = []
        self.title, self.notes, self._script = "", [], None
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attributes: list) -> None:
        found = dict(attributes)
        self.elements.append((tag, found))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self._script = found.get("id", "")
            self.scripts[self._script] = ""
        if tag == "li" and "part" in found.get("class", ""):
            self.entries.append((found, []))

    def handle_startendtag(self, tag: str, attributes: list) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag  # every element is closed, in order

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[self._script] += data
        elif "li" in self.open and self.entries:
            self.entries[-1][1].append(data)
        elif self.open and self.open[-1] == "title" and "svg" not in self.open:
            self.title = data
        elif "li" in self.open:
            self.notes.append(data)

    def data(self, number: int) -> dict:
        return json.loads(self.scripts[f"part-{number}"])


def decoded(value: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Image, mask, map, cloud and shown pixels of a part's data, see mafr/report/encode.py; page.js reads them so."""
    side, count = value["side"], value["cloud"]["count"]
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(value["image"].partition(",")[2]))).convert("RGB"))
    content = np.frombuffer(zlib.decompress(base64.b64decode(value["bytes"])), dtype=np.uint8)
    start = math.ceil(side * side / 8)
    bits, more, changes, coordinates = np.split(content, [start, 2 * start, 2 * start + side * side])
    mask, shown = (np.unpackbits(one)[: side * side].reshape(side, side).astype(bool) for one in (bits, more))
    levels = changes.reshape(side, side).cumsum(axis=0).cumsum(axis=1) % 256
    heat = value["heat"]["low"] + value["heat"]["step"] * levels
    high, low = coordinates.reshape(2, 3, count).astype(np.int64)
    steps = (256 * high + low).cumsum(axis=1) % 65536
    cloud = (np.array(value["cloud"]["corner"])[:, None] + value["cloud"]["step"] * steps).T
    return image, mask, heat, cloud, shown


def made(path: Path, parts: list[Part], **more: object) -> Page:
    report = Report(path, **({"threshold": 2.5, "title": "bracket"} | more))
    for one in parts:
        report.add(one)
    assert report.finish() == path
    return Page(path)


@pytest.mark.parametrize("size", [56, 131, 224])  # 131 x 131 bits fill no whole number of bytes
def test_every_parts_data_decode_within_the_stated_precision(tmp_path: Path, size: int) -> None:
    parts = [part(seed, size=size, scale=1 + seed) for seed in range(3)]
    page = made(tmp_path / "report.html", parts)
    for number, one in enumerate(parts):
        value = page.data(number)
        image, mask, heat, cloud, shown = decoded(value)
        assert np.array_equal(shown, mask)
        assert image.shape == one.rgb.shape and np.array_equal(mask, (one.xyz != 0).any(axis=0))
        spread = float(np.ptp(one.heat))
        assert np.abs(heat - one.heat).max() <= spread / 510 * (1 + 1e-4) and np.ptp(heat) == pytest.approx(spread)
        rows, columns = thinned(mask, 6000)
        step, slant = value["cloud"]["lattice"]
        again = np.nonzero(mask & ((np.arange(size)[:, None] + slant * np.arange(size)) % step == 0))
        assert np.array_equal(again, (rows, columns)) and len(cloud) == len(rows) <= 6000  # where its colours come from
        sample = make_sample(number, size)
        true = around_middle(sample, rows, columns)
        assert np.abs(cloud - true).max() <= np.ptp(true, axis=0).max() / 131070 * (1 + 1e-6)


def test_heat_is_shown_at_scored_pixels_without_a_point(tmp_path: Path) -> None:
    one = part(size=64)
    scored = np.ones((64, 64), bool)
    *_, shown = decoded(made(tmp_path / "r.html", [replace(one, scored=scored)]).data(0))
    assert shown.all() and not (one.xyz != 0).any(axis=0).all()
    with pytest.raises(ValueError, match="scored"):
        made(tmp_path / "r.html", [replace(one, scored=scored[:5])])


def test_a_smooth_image_comes_back_nearly_as_it_was(tmp_path: Path) -> None:
    v, u = np.mgrid[:64, :64]
    smooth = np.stack([4 * u, 4 * v, 2 * (u + v)], axis=2).astype(np.uint8)
    one = part(size=64)
    image, *_ = decoded(made(tmp_path / "r.html", [Part("a", 1.0, "OK", smooth, one.heat, one.xyz)]).data(0))
    assert np.abs(image.astype(int) - smooth).mean() < 4


def test_the_worst_comes_first_and_verdicts_are_words_and_signs(tmp_path: Path) -> None:
    parts = [part(0, 1.0), part(1, 9.0), part(2, 2.5), part(3, 3.0), Part.unread("bad.tiff", "bad.tiff: not a tiff")]
    page = made(tmp_path / "report.html", parts, validation_scores=[1.0, 2.0], notes=["a <note>"])
    assert [found["data-name"] for found, _ in page.entries] == ["scan 1", "scan 3", "scan 2", "scan 0", "bad.tiff"]
    texts = ["|".join(text.strip() for text in texts) for _, texts in page.entries]
    assert "✕|not OK" in texts[0] and "score 9, 3.60 × threshold" in texts[0] and "✓|OK" in texts[2]
    assert "bad.tiff: not a tiff" in texts[4] and page.entries[4][0]["class"] == "part error"
    assert "part-4" not in page.scripts
    whole = (tmp_path / "report.html").read_text()
    assert "5 parts: 2 not OK, 2 OK, 1 could not be scored. Threshold 2.5." in whole
    assert page.title == "bracket" and page.notes == ["a <note>"]
    (picture,) = [found for tag, found in page.elements if tag == "svg"]
    assert picture["aria-label"] == ("Histogram of the scores of 4 parts, 2 of them above the threshold 2.5, "
                                     "over those of 2 validation parts.")  # fmt: skip


def test_names_titles_and_messages_cannot_become_code(tmp_path: Path) -> None:
    parts = [part(0, name=HOSTILE), Part.unread(HOSTILE, HOSTILE)]
    page = made(tmp_path / "report.html", parts, title=HOSTILE, notes=[HOSTILE])
    assert page.open == [] and sorted(page.scripts) == ["", "part-0", "settings"]
    assert [found["data-name"] for found, _ in page.entries] == [HOSTILE, HOSTILE]
    assert page.title == HOSTILE and "".join(page.notes) == HOSTILE and HOSTILE in page.entries[1][1]
    assert "alert(1)" not in "".join(page.scripts.values())


def test_it_needs_nothing_from_outside(tmp_path: Path) -> None:
    page = made(tmp_path / "report.html", [part()], validation_scores=[1.0])
    text = (tmp_path / "report.html").read_text().replace("http://www.w3.org/2000/svg", "")  # a name, not an address
    assert not re.findall(r"(?:https?:)?//[a-z0-9]+\.|url\(|@import|\bimport\s|fetch\(|XMLHttp|WebSocket", text)
    used = [found[name] for _, found in page.elements for name in ("src", "href", "action") if name in found]
    assert used == ["data:,"]
    (policy,) = [found["content"] for tag, found in page.elements if tag == "meta" and "http-equiv" in found]
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_one_scale_of_colours_serves_all_parts(tmp_path: Path) -> None:
    page = made(tmp_path / "a.html", [part(0), part(1, scale=3)])
    settings = json.loads(page.scripts["settings"])
    assert settings["level"] == pytest.approx(2.5) and settings["heat"]["threshold"] == pytest.approx([1.25, 3.75])
    assert settings["heat"]["all"] == pytest.approx([0, part(1, scale=3).heat.max()])
    colours = np.frombuffer(base64.b64decode(settings["colours"]), dtype=np.uint8).reshape(256, 3)
    assert tuple(colours[0]) == (0, 0, 4) and tuple(colours[255]) == (252, 255, 164)  # inferno's two ends
    # A score of twice the maximum: the threshold of the map is half that of the score.
    twice = [part(k, score=2 * float(part(k, scale=s).heat.max()), scale=s) for k, s in enumerate((1, 3))]
    assert json.loads(made(tmp_path / "b.html", twice).scripts["settings"])["level"] == pytest.approx(1.25)
    # A score that is no multiple of the maximum: no threshold on the map.
    loose = json.loads(made(tmp_path / "c.html", [part(0), part(1, score=7.0)]).scripts["settings"])
    assert loose["level"] is None and loose["heat"]["threshold"] == loose["heat"]["all"]
    none = json.loads(made(tmp_path / "d.html", [part(0)], threshold=math.nan).scripts["settings"])
    assert none["threshold"] is None and none["level"] is None


def test_odd_parts_do_not_break_the_page(tmp_path: Path) -> None:
    plain = part(0)
    flat = Part("flat", 0.0, "OK", plain.rgb, np.zeros_like(plain.heat), np.zeros_like(plain.xyz))
    holes = Part("nan", 1.0, "OK", plain.rgb, np.where(plain.heat > 1.5, np.nan, plain.heat), plain.xyz)
    unscored = Part("no number", math.nan, "OK", plain.rgb, plain.heat, plain.xyz)
    page = made(tmp_path / "report.html", [flat, holes, unscored])
    _, mask, heat, cloud, _ = decoded(page.data(0))
    assert not mask.any() and not heat.any() and cloud.shape == (0, 3)
    assert np.isfinite(decoded(page.data(1))[2]).all()
    assert "the score is nan, no number" in page.entries[-1][1]
    assert made(tmp_path / "empty.html", []).entries == []
    with pytest.raises(ValueError, match=r"part 'x': rgb \(S, S, 3\), heat \(S, S\), xyz \(3, S, S\) and scored"):
        Report(tmp_path / "x.html", 1.0, "x").add(Part("x", 1.0, "OK", plain.rgb[:-1], plain.heat, plain.xyz))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = rf"^{re.escape(str(tmp_path))}: the disk is full \(.* free, .* kB more needed\)"
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", lambda **_: open("/dev/full", "r+b", buffering=0))  # noqa: SIM115, PTH123
        report = Report(tmp_path / "report.html", 2.5, "x")
    with pytest.raises(StorageError, match=message):
        report.add(part())
    report = Report(tmp_path / "report.html", 2.5, "x")
    report.add(part())
    monkeypatch.setattr(shutil, "copyfileobj", lambda *_: Path("/dev/full").write_bytes(b"x"))
    with pytest.raises(StorageError, match=message):
        report.finish()
    assert list(tmp_path.iterdir()) == []


def test_it_can_be_written_again_with_more_parts_and_leaves_nothing_beside(tmp_path: Path) -> None:
    report = Report(tmp_path / "new" / "report.html", 2.5, "watched")
    for count in (1, 2, 3):
        report.add(part(count))
        page = Page(report.finish())
        assert len(page.entries) == count
        assert all(decoded(page.data(k))[1].any() for k in range(count))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]
    again = made(tmp_path / "again.html", [part(count) for count in (1, 2, 3)], title="watched")
    assert len(again.entries) == 3
    assert (tmp_path / "again.html").read_bytes() == report.path.read_bytes()


def test_many_parts_need_little_memory_and_few_bytes(tmp_path: Path) -> None:
    one, report = part(0, size=112), Report(tmp_path / "report.html", 2.5, "many")
    report.add(one)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(30):
        report.add(one)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 100_000  # a line of text each
    each = report.finish().stat().st_size / 31
    assert each < 60_000


def test_the_histogram_counts_every_score_and_shows_the_threshold() -> None:
    scores, validation = [1.0, 1.1, 2.0, 5.0], [1.0, 1.2]
    text = histogram(scores, validation, 1.5)
    assert text.count('class="bar"') == text.count('class="bar wrong"') == 2
    assert text.count('class="bar validation"') == 2
    bars = [float(x) for x in re.findall(r'class="bar(?: wrong)?" x="([\d.]+)"', text)]
    (line,) = [float(x) for x in re.findall(r'class="threshold" x1="([\d.]+)"', text)]
    assert sum(x > line for x in bars) == 2 and "threshold 1.5" in text and "logarithmic" not in text
    wide = histogram([1.0, 2.0, 400.0], [], 1.5)
    assert "score (logarithmic)" in wide and "validation" not in wide and ">100<" in wide
    assert 'class="threshold"' not in histogram(scores, validation, math.nan)
    assert histogram([], [], 1.0) == "" and "<svg" in histogram([2.0, 2.0], [], 2.0)


def test_the_page_is_part_of_an_installed_package() -> None:
    listed = re.search(r"package-data\]\nmafr = (\[.*\])", (CHECKOUT / "pyproject.toml").read_text())[1]
    files = {path.name for pattern in json.loads(listed) for path in (CHECKOUT / "mafr").glob(pattern)}
    assert {"page.html", "page.css", "page.js"} <= files


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> object:
    """A browser with a report of five parts and an unread one, from the file system."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    parts = [part(seed, scale=0.9 + 0.2 * seed) for seed in range(5)]
    made(path, [*parts, Part.unread("bad.tiff", "bad.tiff: not a tiff")], validation_scores=[1.0, 1.2], notes=["n"])
    with browser() as driver:
        driver.get(path.as_uri())
        settle(driver)
        yield driver


def settle(driver: object) -> None:
    done = "!document.querySelector('.busy') && document.getElementById('said').textContent"
    driver.execute_async_script(
        "const done = arguments[0], look = () => "
        f"({done}) ? requestAnimationFrame(() => requestAnimationFrame(done)) : setTimeout(look, 10); look();"
    )


def severe(driver: object) -> list[dict]:
    """Errors; the browser also advises on the reading of canvases, which these tests do and the page does not."""
    return [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def drawn(driver: object, selector: str) -> list[int]:
    """The number of colours on each canvas."""
    return driver.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((c) => { if (!c.width) return 0;"
        "const p = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, found = new Set();"
        "for (let k = 0; k < p.length; k += 4) "
        "if (p[k + 3]) found.add([p[k], p[k + 1], p[k + 2]].join()); return found.size; })", selector,
    )  # fmt: skip


def test_the_page_begins_with_all_parts_as_pictures_the_worst_first(opened: object) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(opened, GENEROUS).until(lambda driver: min(drawn(driver, "#samples canvas")) > 10)
    texts = [item.text.split() for item in opened.find_elements("css selector", "#samples li")]
    assert [" ".join(words[:2]) for words in texts[:2]] == ["scan 4", "scan 3"] and "bad.tiff" in texts[-1]
    assert any("threshold" in words for words in texts)
    labels = [c.get_attribute("aria-label") for c in opened.find_elements("css selector", "#samples canvas")]
    assert labels[0] == "scan 4 with its map" and len(labels) == 5
    assert not opened.find_element("id", "parts").is_displayed() and opened.find_element("id", "notes").is_displayed()
    opened.execute_script(
        "const e = document.getElementById('kind'); e.value = 'bad'; e.dispatchEvent(new Event('input'))"
    )
    shown = opened.find_elements("css selector", "#samples button")
    assert 0 < len(shown) < 5 and all("not OK" in one.text for one in shown)
    opened.execute_script(
        "const e = document.getElementById('kind'); e.value = 'all'; e.dispatchEvent(new Event('input'))"
    )
    assert severe(opened) == []


def test_a_part_opens_with_map_mask_cloud_and_scores(opened: object) -> None:
    opened.execute_script("document.querySelector('#samples button').click()")
    settle(opened)
    assert all(colours > 10 for colours in drawn(opened, "canvas.panel, #cloud"))
    names = [caption.text.split("\n")[0] for caption in opened.find_elements("css selector", "figcaption")]
    assert names[:4] == ["image", "heat over the image", "heat", "mask above the threshold"] and len(names) == 6
    assert "not OK: score" in opened.find_element("id", "said").text
    assert len(opened.find_elements("css selector", "svg.histogram .threshold")) == 2  # above all parts, and here
    assert len(opened.find_elements("css selector", "#panels .validation")) == 2
    for selector, value in (("#tone", "image"), ("#scale", "all"), ("#opacity", "0.1")):
        before = opened.execute_script(
            "return [...document.querySelectorAll('#panels canvas[role=img]')].map((c) => c.toDataURL()).join()"
        )
        opened.execute_script(
            "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
            "for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind))", selector, value,
        )  # fmt: skip
        settle(opened)
        after = "return [...document.querySelectorAll('#panels canvas[role=img]')].map((c) => c.toDataURL()).join()"
        assert opened.execute_script(after) != before, selector
    name = opened.find_element("id", "name").text
    opened.find_element("css selector", "body").send_keys("n")
    settle(opened)
    assert opened.find_element("id", "name").text != name
    kept = opened.find_element("id", "name").text
    link = address(opened, f"id={kept.rpartition(', ')[2]}")
    opened.get("about:blank")
    opened.get(link)  # the link to this part
    settle(opened)
    assert opened.find_element("id", "name").text == kept
    assert severe(opened) == []


def test_a_bar_lists_its_parts_until_it_is_given_back(opened: object) -> None:
    rows = "return document.querySelectorAll('#samples button').length"
    opened.execute_script("[...document.querySelectorAll('.bin[tabindex]')][0].dispatchEvent(new Event('click'))")
    settle(opened)
    assert opened.execute_script(rows) < 5
    opened.find_element("css selector", "body").send_keys("n")
    settle(opened)
    assert opened.execute_script(rows) < 5
    opened.execute_script("document.getElementById('bin').click()")
    assert opened.execute_script(rows) == 5
    for kind, count in (("error", 1), ("all", 6)):
        opened.execute_script(
            "const e = document.getElementById('kind'); e.value = arguments[0];"
            "e.dispatchEvent(new Event('input'))", kind,
        )  # fmt: skip
        assert len(opened.find_elements("css selector", "#samples li:not(.line)")) == count
    assert "nothing fits" not in opened.find_element("id", "samples").text


@pytest.mark.parametrize("width", [1366, 900, 390])
def test_nothing_of_the_report_is_cut(opened: object, width: int) -> None:
    resize(opened, width, 768)
    try:
        for pictures in (True, False):
            opened.execute_script(
                "const b = document.getElementById('sheet');"
                "if (b.getAttribute('aria-pressed') !== arguments[0]) b.click()", str(pictures).lower(),
            )  # fmt: skip
            settle(opened)
            assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        resize(opened, 1366, 768)


def test_warnings_are_seen_in_every_view(tmp_path: Path) -> None:
    made(tmp_path / "report.html", [part()], warnings=["a warning"], notes=["a note"])
    with browser() as driver:
        driver.get((tmp_path / "report.html").as_uri())
        settle(driver)
        assert driver.find_element("id", "panels").is_displayed()  # a single part is shown at once
        assert driver.find_element("css selector", ".warning").is_displayed()
        assert not driver.find_element("id", "notes").is_displayed()
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        assert driver.find_element("id", "parts").is_displayed() and driver.find_element("id", "notes").is_displayed()
        assert not driver.find_element("id", "panels").is_displayed()


def test_without_scripts_there_is_a_plain_list(tmp_path: Path) -> None:
    made(tmp_path / "report.html", [part(seed) for seed in range(3)], warnings=["w"], notes=["n"])
    with browser() as driver:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        driver.get((tmp_path / "report.html").as_uri())
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        for name, seen in (("parts", True), ("warnings", True), ("notes", True), ("controls", False), ("view", False)):
            assert driver.find_element("id", name).is_displayed() == seen, name
        assert driver.find_element("css selector", "svg.histogram").is_displayed()


def test_a_report_without_a_scored_part_lists_what_was_not_read(tmp_path: Path) -> None:
    made(tmp_path / "report.html", [Part.unread("bad.tiff", "bad.tiff: not a tiff")])
    with browser() as driver:
        driver.get((tmp_path / "report.html").as_uri())
        assert "not a tiff" in driver.find_element("id", "samples").text
        assert driver.get_log("browser") == []


def test_names_too_long_for_the_grid_are_cut_at_their_beginnings(tmp_path: Path) -> None:
    names = [f"a folder of many parts/good (second shift)/00{k}" for k in range(3)]
    made(tmp_path / "report.html", [part(k, name=name) for k, name in enumerate(names)])
    with browser() as driver:
        driver.get((tmp_path / "report.html").as_uri())
        settle(driver)
        shown = driver.execute_script("""
            return [...document.querySelectorAll("#samples b")].map((b) => {
              const {left, right} = b.getBoundingClientRect(), inside = document.createRange();
              inside.selectNodeContents(b);
              const whole = inside.getBoundingClientRect();
              return [b.textContent, whole.left < left - 20, whole.right <= right + 1];
            });""")
    assert sorted(shown) == [[name, True, True] for name in names]
