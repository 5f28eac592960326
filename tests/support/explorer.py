"""Steps of tests in the explorer's page: wait until all is computed, set a control, read a panel."""

import time
from urllib.parse import parse_qsl, urlsplit

from support.limits import GENEROUS

PANELS = "document.querySelectorAll('canvas.panel')"


def wait(driver) -> None:
    """Until all is computed."""
    done = "!document.querySelector('.busy') && document.getElementById('said').textContent"
    driver.execute_async_script(
        f"const done = arguments[0]; const look = () => ({done}) ? done() : setTimeout(look, 10); look();"
    )


def address(driver, *expected: str) -> str:
    """Of the view, which is written a moment after: once it holds what is expected, each as `name=value`.

    Raises TimeoutError.
    """
    until = time.monotonic() + GENEROUS
    while not set(expected) <= _told(found := driver.current_url):
        if time.monotonic() > until:
            raise TimeoutError(f"{found} does not hold {', '.join(expected)} within {GENEROUS} s")
        time.sleep(0.05)
    return found


def _told(url: str) -> set[str]:
    return {f"{name}={value}" for name, value in parse_qsl(urlsplit(url).fragment)}


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
