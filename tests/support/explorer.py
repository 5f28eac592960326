"""Steps of tests in the explorer's page: wait until all is computed, set a control, read a panel."""

import time

PANELS = "document.querySelectorAll('canvas.panel')"


def wait(driver) -> None:
    """Until all is computed."""
    done = "!document.querySelector('.busy') && document.getElementById('said').textContent"
    driver.execute_async_script(
        f"const done = arguments[0]; const look = () => ({done}) ? done() : setTimeout(look, 10); look();"
    )


def address(driver) -> str:
    """Of the view: it is written a moment after."""
    time.sleep(0.3)
    return driver.current_url


def picture(driver, number: int) -> str:
    driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    return driver.execute_script(f"return {PANELS}[{number}].toDataURL()")


def put(driver, name: str, value: object) -> None:
    """Set a control and say so, as a hand would."""
    driver.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        "for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind, {bubbles: true}));", name, str(value),
    )  # fmt: skip
    wait(driver)
