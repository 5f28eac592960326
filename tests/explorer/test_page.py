"""The explorer's page in a real browser: its values are those of the package, and every control changes the picture."""

import json
from dataclasses import replace

import numpy as np
import pytest
from support.browser import resize
from support.explorer import PANELS, address, picture, put, wait
from support.limits import GENEROUS

from mafr.config import FUSIONS
from mafr.errors import ResultError
from mafr.experiments.plan import Run
from mafr.experiments.results import load_result
from mafr.explorer import data
from mafr.explorer.page import write_explorer
from mafr.figures.view import explore
from mafr.paths import Paths
from mafr.standardise import Scales


def test_maps_of_the_preset_for_own_parts_equal_those_of_the_package(page, smoke, monkeypatch):
    """Cells of a window around the part, filled masks, and maps on a common scale: sent at pixels."""
    config, paths = smoke
    result = load_result(Run("mvtec3d", "bagel", config), paths)
    own = replace(config, view="part", scored="filled", fusion="calibrated_sum")
    scales = Scales.of(result.psi_rgb, result.psi_xyz, result.valid).as_dict()
    own = replace(result, run=replace(result.run, config=own), record={**result.record, "scales": scales})
    monkeypatch.setattr(data, "load_result", lambda *_: own)
    monkeypatch.setattr(data, "compared_maps", lambda *_: {})
    text = data.as_json(data.category_data(config, paths, "mvtec3d", "bagel", ["paper"]))
    page.get(page.address)
    wait(page)
    said = page.execute_async_script("""
        const [text, done] = arguments, category = new Category(JSON.parse(text)), said = [];
        const {fusion, blur, sigma} = category.data.variants.paper, settings = {variant: "paper", fusion, blur, sigma};
        const {scores, range} = await category.analyse(settings, () => true);
        for (let k = 0; k < category.samples.length; k++) {
          const {pixels, points, solid} = await category.sample(k);
          said.push([pixels.length, points.length / 3, solid.reduce((a, b) => a + b)]);
        }
        done({fusion, scores, range, said});""", text)
    maps, scores = own.rescored("calibrated_sum", own.config.blur, own.config.sigma)
    assert np.allclose(maps, own.maps, rtol=1e-4, atol=1e-5)  # the package's own way
    assert said["fusion"] == "sum" and said["scores"] == pytest.approx(scores.tolist(), rel=1e-4)
    assert said["range"] == pytest.approx(list(explore(own, 0, maps, scores).ranges[2]), rel=1e-3)
    for (pixels, points, solid), sample in zip(said["said"], own.samples, strict=True):
        assert pixels == points and solid == sample.valid.sum()
    assert own.mask.sum() > sum(solid for *_, solid in said["said"])  # filled


def test_maps_scores_and_agreement_equal_those_of_the_package(page, smoke):
    config, paths = smoke
    page.get(page.address)
    wait(page)
    for dataset, category in (("mvtec3d", "bagel"), ("eyecandies", "Lollipop")):
        file = f"data/{dataset}/{category}.js"
        found = page.execute_async_script("""
            const [file, fusions, sigma, done] = arguments;
            const text = await (await fetch(file)).text();
            const category = new Category(JSON.parse(text.slice(text.indexOf("{"), text.lastIndexOf("}") + 1)));
            const said = [];
            for (const variant of Object.keys(category.data.variants)) for (const fusion of fusions)
              for (const blur of ["gaussian", "box", null]) {
                const analysis = await category.analyse({variant, fusion, blur, sigma}, () => true);
                const threshold = scoring.quantile(analysis.ofGood, 0.99), fits = [];
                for (let k = 0; k < category.samples.length; k++) {
                  const sample = await category.sample(k), map = category.map(sample, {variant, fusion, blur, sigma});
                  const truth = sample.meta.label ? sample.truth : null;
                  const fit = scoring.agreement(map, threshold, truth, sample.mask, category.side);
                  fits.push([fit.iou, fit.overlap, fit.falsePositives, category.aboveGood(analysis.scores, k),
                    map.reduce((sum, value) => sum + value, 0)]);
                }
                said.push({variant, fusion, blur, scores: analysis.scores, range: analysis.range, threshold, fits});
              }
            done(said);""", file, list(FUSIONS), config.sigma)
        assert len(found) == 2 * len(FUSIONS) * 3
        for one in found:
            result = load_result(Run(dataset, category, config.with_variant(one["variant"])), paths)
            maps, scores = result.rescored(one["fusion"], one["blur"], config.sigma)
            assert one["scores"] == pytest.approx(scores.tolist(), rel=1e-4)
            for k, (iou, overlap, alarms, above, total) in enumerate(one["fits"]):
                view = explore(result, k, maps, scores, 0.01)
                assert one["threshold"] == pytest.approx(view.threshold, rel=1e-4)
                assert total == pytest.approx(float(maps[k].sum()), rel=1e-4)
                assert above == pytest.approx(view.above_good)
                # Pixels whose value is the threshold, such as a plateau at a border, may fall on either side.
                low, high = (maps[k] > view.threshold * edge for edge in (1 + 1e-4, 1 - 1e-4))
                normal = result.mask[k] & ~result.gt[k]
                shares = [(part & normal).sum() / normal.sum() for part in (low, high)]
                assert shares[0] - 1e-9 <= alarms <= shares[1] + 1e-9
                assert (iou is None) == (view.iou is None)
                if iou is not None and (low == high).all():
                    assert [iou, overlap] == pytest.approx([view.iou, view.overlap])
            assert one["range"] == pytest.approx(list(explore(result, 0, maps, scores).ranges[2]), rel=1e-3)


def test_a_category_comes_with_what_its_own_settings_give(page):
    """At every step of the threshold's slider: so the list is there before all samples are unpacked."""
    page.get(page.address)
    wait(page)
    found = page.execute_async_script("""
        const [done] = arguments, text = await (await fetch("data/mvtec3d/bagel.js")).text();
        const category = new Category(JSON.parse(text.slice(text.indexOf("{"), text.lastIndexOf("}") + 1)));
        const key = Samples.prototype, slider = document.getElementById("rate"), said = [];
        for (const variant of Object.keys(category.data.variants)) {
          const {fusion, blur, sigma} = category.data.variants[variant], settings = {variant, fusion, blur, sigma};
          const known = await category.analyse(settings, () => true, -2), unpacked = category.unpacked.size;
          const whole = await category.analyse(settings, () => true), steps = [];
          for (let rate = +slider.min; rate <= +slider.max + 1e-9; rate += +slider.step)
            steps.push([known, whole].map((one) => key.threshold(one, {rate})));
          const between = await category.analyse(settings, () => true, -2.02);
          const other = await category.analyse({...settings, sigma: sigma + 1}, () => true, -2);
          said.push({unpacked, scores: [known.scores, whole.scores], range: [known.range, whole.range], steps,
            computed: !!between.ofGood && !!other.ofGood});
        }
        done(said);""")
    assert found[0]["unpacked"] == 0
    for one in found:
        assert one["computed"] and len(one["steps"]) == 71
        for known, whole in (*one["steps"], one["range"], *zip(*one["scores"], strict=True)):
            assert known == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "value", "panel"),
    [("fusion", "sum", 3), ("blur", "box", 3), ("blur", "none", 3), ("sigma", 9, 3), ("rate", -0.6, 4),
     ("opacity", 0.1, 3), ("variant", "released", 1), ("category", "tire", 0), ("dataset", "eyecandies", 0)],
)  # fmt: skip
def test_every_control_changes_the_picture(fresh, name, value, panel):
    before = picture(fresh, panel)
    put(fresh, name, value)
    assert picture(fresh, panel) != before
    assert fresh.get_log("browser") == []
    kept = address(fresh, f"{name}={value}")
    after = picture(fresh, panel)
    fresh.get("about:blank")
    fresh.get(kept)  # the address holds the view
    wait(fresh)
    assert picture(fresh, panel) == after


def test_buttons_and_keys(fresh):
    from selenium.webdriver.common.keys import Keys

    name, body = "return document.getElementById('name').textContent", fresh.find_element("css selector", "body")
    first = fresh.execute_script(name)
    for key, other in ((Keys.ARROW_RIGHT, Keys.ARROW_LEFT), ("p", "n")):
        body.send_keys(key)
        wait(fresh)
        changed = fresh.execute_script(name)
        body.send_keys(other)
        wait(fresh)
        assert fresh.execute_script(name) == first
        if changed == first:  # the first or the last of the list
            body.send_keys(other)
            wait(fresh)
            assert fresh.execute_script(name) != first
            body.send_keys(key)
            wait(fresh)
    for key, panel in (("o", 3), ("l", 0), ("w", 0)):
        before = picture(fresh, panel)
        body.send_keys(key)
        assert picture(fresh, panel) != before, key
        body.send_keys(key)
        assert picture(fresh, panel) == before, key
    # Letters typed into a menu choose there, and into the search find there.
    fresh.find_element("id", "category").send_keys("t")
    wait(fresh)
    assert fresh.execute_script("return document.getElementById('category').value") == "tire"
    fresh.find_element("id", "find").send_keys("good")
    shown = fresh.find_elements("css selector", "#samples button")
    assert shown and all("good" in button.text for button in shown)
    assert fresh.get_log("browser") == []


def test_reset_returns_to_the_first_view_of_the_same_sample(fresh):
    name, first = "return document.getElementById('name').textContent", picture(fresh, 3)
    sample = fresh.execute_script(name)
    for control, value in (("fusion", "xyz"), ("blur", "box"), ("opacity", 0.2), ("rate", -1)):
        put(fresh, control, value)
    fresh.find_element("css selector", "#methods button").click()
    wait(fresh)
    assert picture(fresh, 3) != first
    fresh.find_element("id", "reset").click()
    wait(fresh)
    assert picture(fresh, 3) == first and fresh.execute_script(name) == sample


def test_a_bar_of_the_histogram_lists_its_samples(fresh):
    fresh.execute_script("document.querySelector('.bin[tabindex=\"0\"]').dispatchEvent(new Event('click'))")
    wait(fresh)
    said = fresh.find_element("css selector", ".bin[tabindex='0'] title").get_attribute("textContent")
    good, bad = (int(text) for text in (said.split()[0], said.split()[3]))
    assert len(fresh.find_elements("css selector", "#samples button")) == good + bad
    fresh.find_element("id", "bin").click()
    total = len(fresh.find_elements("css selector", "#samples button"))
    assert fresh.find_element("id", "count").text == f"{total} of {total} samples"


def test_methods_stand_beside_with_their_scores(fresh):
    before = len(fresh.find_elements("css selector", "figure"))
    for button in fresh.find_elements("css selector", "#methods button"):
        button.click()
        wait(fresh)
    added = fresh.find_elements("css selector", "figure")[before:]
    assert len(added) >= 3 and all("score" in figure.text for figure in added)


def test_a_method_beside_leaves_the_cloud_as_it_is(fresh):
    fresh.find_element("css selector", "#methods button").click()
    wait(fresh)
    put(fresh, "tone", "image")
    cloud = fresh.find_element("id", "cloud")
    for _ in range(2):
        fresh.find_element("css selector", "body").send_keys("p")
        wait(fresh)
        put(fresh, "sigma", 3)
    assert fresh.find_element("id", "cloud") == cloud
    assert fresh.execute_script("return document.getElementById('tone').value") == "image"


def test_what_is_chosen_while_a_category_loads_counts_for_it(fresh):
    fresh.execute_script("""
        const set = (name, value, kind) => { const e = document.getElementById(name); e.value = value;
          e.dispatchEvent(new Event(kind)); };
        set("category", "tire", "change"); set("sigma", 9, "input"); document.getElementById("next").click();""")
    wait(fresh)
    said = fresh.find_element("id", "name").text
    assert said.startswith("tire") and address(fresh, "sigma=9", "category=tire")
    put(fresh, "sigma", 9)
    kept = picture(fresh, 3)
    fresh.get("about:blank")
    fresh.get(f"{fresh.address}#category=tire&sigma=9")
    wait(fresh)
    assert picture(fresh, 3) == kept and fresh.get_log("browser") == []


def test_an_address_with_impossible_settings_shows_possible_ones(fresh):
    for wrong in ("sigma=0", "sigma=", "rate=5", "blur=foo", "fusion=mean", "opacity=-3", "sort=x", "kind=nothing",
                  "methods=cfm,cfm"):  # fmt: skip
        fresh.get("about:blank")
        fresh.get(f"{fresh.address}#{wrong}")
        wait(fresh)
        said = fresh.find_element("id", "said").text
        assert "NaN" not in said and "score 0," not in said, wrong
        values = "return [...document.querySelectorAll('select')].map((one) => one.value || one.id)"
        assert not {"blur", "fusion", "sort", "kind"} & set(fresh.execute_script(values)), wrong
    assert fresh.get_log("browser") == []


def test_pictures_of_all_samples(fresh):
    from selenium.webdriver.support.wait import WebDriverWait

    fresh.find_element("css selector", "body").send_keys("g")
    inked = (
        "return [...document.querySelectorAll('#samples canvas')].map((c) => { if (!c.width) return 0;"
        "const p = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let sum = 0;"
        "for (let k = 0; k < p.length; k++) sum += p[k]; return sum; })"
    )
    WebDriverWait(fresh, GENEROUS).until(lambda driver: min(driver.execute_script(inked)) > 0)
    before = fresh.execute_script(inked)
    fresh.execute_script("""
        const {small} = panels, slider = document.getElementById("opacity");
        window.drawn = 0;
        panels.small = (...given) => { window.drawn++; return small(...given); };
        for (let k = 30; k; k--) { slider.value = 0.1 + k / 40; slider.dispatchEvent(new Event("input")); }
        slider.value = 0.1;
        slider.dispatchEvent(new Event("input"));""")
    WebDriverWait(fresh, GENEROUS).until(lambda driver: not set(driver.execute_script(inked)) & {0, *before})
    assert fresh.execute_script("return window.drawn") <= 3 * len(before)  # not once for each step of the slider
    row = fresh.find_elements("css selector", "#samples button")[2]
    name = row.find_element("css selector", "b").text
    row.click()
    wait(fresh)
    assert fresh.find_element("id", "name").text.endswith(name)
    assert fresh.find_element("id", "panels").is_displayed()


def test_the_saved_picture_names_its_settings_and_data(fresh):
    put(fresh, "sigma", 3)
    wide, tall, written = fresh.execute_script("""
        const write = CanvasRenderingContext2D.prototype.fillText, said = [];
        let made = null;
        CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) { said.push(text);
          return write.call(this, text, ...rest); };
        HTMLCanvasElement.prototype.toBlob = function () { made = this; };
        document.getElementById("save").click();
        return [made.width, made.height, said.join(" ")];""")
    assert wide > 1400 and tall > 700
    for part in ("variant paper", "Gaussian of 3 pixels", "1 % of the good", "GENERATED DATA", "Ψ2D", "IoU"):
        assert part in written


@pytest.mark.parametrize("width", [1366, 900, 390])
def test_nothing_is_cut_at_any_width_and_no_other_host_is_asked(fresh, width):
    resize(fresh, width, 768)
    try:
        fresh.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
        assert fresh.execute_script("return document.documentElement.scrollWidth") <= width
        if width == 1366:  # every panel is in view beside its controls
            bottoms = fresh.execute_script(
                f"return [...{PANELS}].map((canvas) => canvas.getBoundingClientRect().bottom)"
            )
            assert max(bottoms) <= 768
    finally:
        resize(fresh, 1366, 768)
    asked = [json.loads(entry["message"])["message"] for entry in fresh.get_log("performance")]
    urls = [one["params"]["request"]["url"] for one in asked if one["method"] == "Network.requestWillBeSent"]
    host = fresh.address.rsplit("/", 1)[0]
    assert all(url.startswith((host, "data:", "about:", "blob:")) for url in urls)


def test_the_dark_theme_is_dark(fresh):
    colour = "return getComputedStyle(document.querySelector('.frame')).backgroundColor.match(/\\d+/g).map(Number)"
    light = fresh.execute_script(colour)
    fresh.find_element("id", "theme").click()
    assert np.mean(fresh.execute_script(colour)) < 80 < 200 < np.mean(light)


def test_memory_does_not_grow_over_many_samples(fresh):
    heap = "return new Promise((done) => { if (window.gc) gc(); done(performance.memory.usedJSHeapSize); })"
    for _ in range(8):
        fresh.find_element("css selector", "body").send_keys("n" if _ % 2 else "p")
        wait(fresh)
    fresh.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    before = fresh.execute_script(heap)
    for k in range(50):
        fresh.find_element("css selector", "body").send_keys("np"[k % 2])
        wait(fresh)
    fresh.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    assert fresh.execute_script(heap) < before + 10e6


def test_a_missing_or_damaged_category_is_named_and_others_still_open(fresh):
    whole = fresh.folder / "data" / "mvtec3d" / "tire.js"
    text = whole.read_text(encoding="utf-8")
    packed = text.replace('"bytes":"', '"bytes":"AAAA')
    try:
        for broken, said in ((text[: len(text) // 2], "tire.js cannot be read"), (None, "tire.js cannot be read"),
                             (packed, "its data are damaged")):  # fmt: skip
            whole.unlink(missing_ok=True)
            if broken:
                whole.write_text(broken, encoding="utf-8")
            fresh.get("about:blank")
            fresh.get(f"{fresh.address}#category=tire")
            fresh.execute_async_script(
                "const done = arguments[0], look = () => document.getElementById('reading').textContent ? done() "
                ": setTimeout(look, 10); look();"
            )
            assert said in fresh.find_element("id", "reading").text
            shown = fresh.execute_script("return document.getElementById('name').textContent")
            assert not shown or shown.split(",")[0] == fresh.execute_script(
                "return document.getElementById('category').selectedOptions[0].text"
            )  # the menu says what is shown
            put(fresh, "category", "bagel")
            assert "bagel" in fresh.find_element("id", "name").text
    finally:
        whole.write_text(text, encoding="utf-8")


def test_categories_without_a_run_leave_the_folder(smoke, tmp_path):
    config, paths = smoke
    old = tmp_path / "data" / "mvtec3d" / "peach.js"
    old.parent.mkdir(parents=True)
    old.write_text("")
    write_explorer(config, paths, tmp_path)
    assert not old.exists() and (old.parent / "bagel.js").is_file()


def test_without_runs_the_command_is_named(smoke, tmp_path):
    config, _ = smoke
    with pytest.raises(ResultError, match="mafr reproduce --profile smoke"):
        write_explorer(config, Paths(tmp_path, "smoke"), tmp_path / "out")
