"""Pointing at the panels of the explorer's page, enlarging and moving them: by mouse, by fingers and by keys."""

import numpy as np
import pytest
from support.browser import resize
from support.explorer import PANELS, picture, wait

SHOWN = f"return [...{PANELS}].map((canvas) => canvas.toDataURL())"


def reading(driver) -> str:
    return driver.find_element("id", "reading").text


def touch(driver, kind: str, *places: tuple[float, float]) -> None:
    """Fingers at these places: kind is touchStart, touchMove or touchEnd."""
    points = [{"x": x, "y": y, "id": n} for n, (x, y) in enumerate(places)]
    driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def place(driver, canvas, x: float, y: float) -> tuple[float, float]:
    """Where shares x, y of a canvas lie in the window."""
    box = driver.execute_script(
        "arguments[0].scrollIntoView({block: 'center'}); const b = arguments[0].getBoundingClientRect();"
        "return [b.left, b.top, b.width, b.height];", canvas,
    )  # fmt: skip
    return box[0] + x * box[2], box[1] + y * box[3]


def test_pointing_shows_values_on_all_panels_and_the_wheel_zooms(fresh):
    from selenium.webdriver import ActionChains

    canvas = fresh.execute_script(f"return {PANELS}[1]")
    before = picture(fresh, 0)
    ActionChains(fresh).move_to_element(canvas).perform()
    assert "Ψ2D" in fresh.find_element("id", "reading").text
    assert picture(fresh, 0) != before  # the cursor is on the other panels too
    before = picture(fresh, 4)
    wheel = "new WheelEvent('wheel', {deltaY: -300, bubbles: true, cancelable: true})"
    fresh.execute_script(f"arguments[0].dispatchEvent({wheel})", canvas)
    assert picture(fresh, 4) != before


def test_arrow_keys_move_the_cursor_of_a_panel_reached_by_keys_and_else_choose_samples(fresh):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    name = "return document.getElementById('name').textContent"
    sample, canvas = fresh.execute_script(name), fresh.execute_script(f"return {PANELS}[0]")
    assert fresh.execute_script(f"return [...{PANELS}].filter((canvas) => canvas.tabIndex === 0).length") == 1
    fresh.execute_script("arguments[0].focus()", canvas)
    said = []
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN):
        canvas.send_keys(key)
        said.append([int(word.strip(",:")) for word in reading(fresh).split()[1:4:2]])
    (row, column), second, third = said
    assert second == [row, column + 1] and third == [row + 1, column + 1]
    before = picture(fresh, 2)
    canvas.send_keys(Keys.SHIFT, Keys.ARROW_UP)
    assert f"row {row - 9}, column {column + 1}" in reading(fresh)
    assert picture(fresh, 2) != before and fresh.execute_script(name) == sample
    # After a click with the mouse the arrows choose samples.
    ActionChains(fresh).move_to_element(canvas).click().perform()
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_LEFT):
        fresh.switch_to.active_element.send_keys(key)
        wait(fresh)
        changed = fresh.execute_script(name) != sample
        if changed:
            break
    assert changed


def test_the_view_follows_the_cursor_and_keys_enlarge(fresh):
    from selenium.webdriver.common.keys import Keys

    canvas = fresh.execute_script(f"return {PANELS}[0]")
    first = fresh.execute_script(SHOWN)
    body = fresh.find_element("css selector", "body")
    body.send_keys("+++++")
    picture(fresh, 0)  # drawn
    close = fresh.execute_script(SHOWN)
    assert all(one != other for one, other in zip(first, close, strict=True))
    fresh.execute_script("arguments[0].focus()", canvas)
    for _ in range(4):
        canvas.send_keys(Keys.SHIFT, Keys.ARROW_RIGHT)
    fresh.execute_script("arguments[0].blur()", canvas)  # no cursor: what differs is the place
    picture(fresh, 0)
    assert not reading(fresh) and fresh.execute_script(SHOWN)[0] != close[0]
    body.send_keys("0")
    picture(fresh, 0)
    assert fresh.execute_script(SHOWN) == first
    assert fresh.get_log("browser") == []


def test_two_fingers_enlarge_and_a_tap_shows_values(fresh):
    fresh.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True, "maxTouchPoints": 2})
    resize(fresh, 390, 844)
    try:
        canvas = fresh.execute_script(f"return {PANELS}[1]")
        middle, corner = place(fresh, canvas, 0.5, 0.5), place(fresh, canvas, 0.25, 0.25)
        top = fresh.execute_script("return [scrollX, scrollY, visualViewport.scale]")
        first = picture(fresh, 0)

        def told(where) -> np.ndarray:
            touch(fresh, "touchStart", where)
            touch(fresh, "touchEnd")
            assert "Ψ2D" in reading(fresh)
            return np.array([int(word) for word in reading(fresh).split(":")[0].replace(",", "").split()[1::2]])

        held = told(middle)
        before = held - told(corner)
        assert picture(fresh, 0) != first
        assert place(fresh, canvas, 0.5, 0.5) == middle  # what is said there moves nothing
        fingers = [[place(fresh, canvas, 0.5 + s, 0.5 + s) for s in (-far, far)] for far in (0.1, 0.15, 0.2, 0.3)]
        touch(fresh, "touchStart", *fingers[0])
        for ends in fingers[1:]:
            touch(fresh, "touchMove", *ends)
        touch(fresh, "touchEnd")
        # What was between the fingers stayed there, three times as large; the page has not moved.
        now = told(middle)  # once: a double tap resets
        assert abs(now - held).max() <= 1
        assert now - told(corner) == pytest.approx(before / 3, abs=2)
        assert fresh.execute_script("return [scrollX, scrollY, visualViewport.scale]") == pytest.approx(top, abs=1)
    finally:
        fresh.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
        resize(fresh, 1366, 768)
