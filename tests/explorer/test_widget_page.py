"""The widget's JavaScript in a browser, with a model whose kernel answers when the test lets it."""

import json
from base64 import b64encode

import pytest
from support.browser import browser, served
from support.limits import GENEROUS

from mafr.explorer import Explorer

PATIENCE = "const PATIENCE = 15000;"
# A model as a front end has it: traits, and questions to a kernel that are kept in `asked`.
PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><div id="here"></div>
<script type="module">
import widget from "./widget.js";
const {traits, first, answers} = await (await fetch("given.json")).json();
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const heard = {};
window.asked = [];
window.model = {
  get: (name) => (name === "_first" ? bytes(first) : traits[name]),
  set: (name, value) => {
    if (String(traits[name]) === String(value)) return;
    traits[name] = value;
    for (const act of heard[`change:${name}`] ?? []) act();
  },
  on: (name, act) => (heard[name] ??= []).push(act),
  off: () => null,
  save_changes: () => null,
  send: ({load}) => window.asked.push(load),
};
window.answer = (key) => { for (const act of heard["msg:custom"]) act({key}, [bytes(answers[key])]); };
widget.render({model: window.model, el: document.getElementById("here")});
window.root = document.getElementById("here").shadowRoot;
window.said = () => root.getElementById("reading").textContent;
window.shown = () => root.getElementById("said").textContent && !root.querySelector(".frame.busy")
  ? root.getElementById("name").textContent : "";
window.put = (name, value) => {
  const e = root.getElementById(name);
  e.value = value;
  e.dispatchEvent(new Event("change", {bubbles: true}));
};
</script>"""


@pytest.fixture(scope="module")
def page(smoke, tmp_path_factory):
    """A browser with the widget, whose patience is short, and its address."""
    explorer, folder = Explorer(*smoke), tmp_path_factory.mktemp("widget")
    assert explorer._first_key == "mvtec3d/bagel" and PATIENCE in explorer._esm
    script = explorer._esm.replace(PATIENCE, "const PATIENCE = 200;")
    (folder / "widget.js").write_text(script, encoding="utf-8")
    (folder / "index.html").write_text(PAGE, encoding="utf-8")
    names = [name for name in explorer.trait_names(sync=True) if name != "_esm"]
    values = {name: getattr(explorer, name) for name in names}
    traits = {name: value for name, value in values.items() if isinstance(value, str | float | list | dict | None)}
    answers = {f"{d}/{c}": b64encode(explorer._packed(f"{d}/{c}")).decode()
               for d, c in (("mvtec3d", "tire"), ("eyecandies", "CandyCane"))}  # fmt: skip
    given = {"traits": traits, "first": b64encode(explorer._first).decode(), "answers": answers}
    (folder / "given.json").write_text(json.dumps(given), encoding="utf-8")
    with browser() as driver, served(folder) as address:
        driver.address = f"{address}/index.html"
        yield driver


@pytest.fixture
def fresh(page):
    """The same, just opened, with its first category."""
    page.get("about:blank")
    page.get(page.address)
    until(page, "return window.shown?.().startsWith('bagel')")
    return page


def until(driver, script):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, GENEROUS).until(lambda one: one.execute_script(script))


def test_a_late_answer_shows_what_was_asked_for(fresh):
    fresh.execute_script("put('category', 'tire')")
    until(fresh, "return said().startsWith('No answer from the kernel yet')")
    until(fresh, "return shown().startsWith('bagel')")  # what was there before is shown again
    assert fresh.execute_script("return [asked.join(), model.get('category')]") == ["mvtec3d/tire", "bagel"]
    fresh.execute_script("answer('mvtec3d/tire')")
    until(fresh, "return shown().startsWith('tire')")
    assert fresh.execute_script("return [said(), model.get('category')]") == ["", "tire"]
    assert fresh.get_log("browser") == []


def test_a_late_answer_to_a_cell_shows_what_it_has_set(fresh):
    fresh.execute_script("model.set('category', 'tire')")
    until(fresh, "return said().startsWith('No answer') && shown().startsWith('bagel')")
    fresh.execute_script("answer('mvtec3d/tire')")
    until(fresh, "return shown().startsWith('tire')")
    assert fresh.execute_script("return model.get('category')") == "tire"


def test_a_late_answer_does_not_take_a_hand_elsewhere(fresh):
    fresh.execute_script("put('category', 'tire')")
    until(fresh, "return said().startsWith('No answer') && shown().startsWith('bagel')")
    fresh.execute_script("put('dataset', 'eyecandies'); answer('mvtec3d/tire'); answer('eyecandies/CandyCane')")
    until(fresh, "return /^Candy ?Cane/.test(shown())")
    fresh.execute_script("put('dataset', 'mvtec3d')")
    until(fresh, "return shown().startsWith('bagel')")
    fresh.execute_script("put('category', 'tire')")  # here by now
    until(fresh, "return shown().startsWith('tire')")


def test_a_late_answer_does_not_interrupt_the_next_sample(fresh):
    fresh.execute_script("put('category', 'tire')")
    until(fresh, "return said().startsWith('No answer') && shown().startsWith('bagel')")
    before = fresh.execute_script("return shown()")
    fresh.execute_script(
        "for (const one of root.querySelectorAll('#next, #previous'))"
        "if (one.ariaDisabled !== 'true') { one.click(); break; }"
    )
    until(fresh, f"return shown() && shown() !== {json.dumps(before)}")
    fresh.execute_script("answer('mvtec3d/tire')")
    fresh.execute_async_script("setTimeout(arguments[0], 100)")
    assert fresh.execute_script("return shown()").startswith("bagel")
