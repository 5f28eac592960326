"""Google Drive's page before a large file ("can't scan this file for viruses"): where its button leads."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

_HOSTS = (".google.com", ".googleusercontent.com")


def confirm_address(page: str, address: str) -> str | None:
    """The address behind a confirmation page's download button, None for any other page.

    Both forms are known: a form with hidden fields (id, export, confirm, uuid), and the older link with a
    confirm token. An address on another host than the page's is followed only to Google's.

    Args:
        page: HTML.
        address: of the page.
    """
    parser = _Parser()
    parser.feed(page)
    for target, fields in (*parser.forms, *((link, {}) for link in parser.links)):
        found = urljoin(address, target)
        if fields:
            found += ("&" if urlsplit(found).query else "?") + urlencode(fields)
        parts = urlsplit(found)
        here = urlsplit(address)
        near = parts.netloc == here.netloc or (parts.scheme == "https" and (parts.hostname or "").endswith(_HOSTS))
        if "confirm" in parse_qs(parts.query) and parts.scheme in ("http", "https") and near and found != address:
            return found
    return None


class _Parser(HTMLParser):
    """Collects forms with their hidden fields, and links."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[tuple[str, dict[str, str]]] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form" and values.get("method", "get").lower() == "get":
            self.forms.append((values.get("action", ""), {}))
        elif tag == "input" and self.forms and values.get("type") == "hidden" and "name" in values:
            self.forms[-1][1][values["name"]] = values.get("value", "")
        elif tag == "a" and "href" in values:
            self.links.append(values["href"])
