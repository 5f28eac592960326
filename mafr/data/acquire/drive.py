"""Google Drive's page before a large file ("can't scan this file for viruses"), and the address behind its button."""

from html.parser import HTMLParser
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

_HOSTS = (".google.com", ".googleusercontent.com")


def confirm_address(page: str, address: str) -> str | None:
    """The address behind the download button of a confirmation page (HTML) at `address`, None for any other page.

    Both forms are known: a form with hidden fields (id, export, confirm, uuid), and the older link with a
    confirm token. An address on another host than the page's is followed only to Google's.
    """
    parser = _Parser()
    parser.feed(page)
    here = urlsplit(address)
    for target, fields in parser.targets:
        found = urljoin(address, target)
        if fields:
            found += ("&" if urlsplit(found).query else "?") + urlencode(fields)
        there = urlsplit(found)
        near = there.netloc == here.netloc or (there.scheme == "https" and (there.hostname or "").endswith(_HOSTS))
        if "confirm" in parse_qs(there.query) and there.scheme in ("http", "https") and near and found != address:
            return found
    return None


class _Parser(HTMLParser):
    """Collects where a page leads: GET forms with their hidden fields, and links."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[tuple[str, dict[str, str]]] = []
        self.fields: dict[str, str] = {}  # of the form that is open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form" and values.get("method", "get").lower() == "get":
            self.fields = {}
            self.targets.append((values.get("action", ""), self.fields))
        elif tag == "input" and values.get("type") == "hidden" and "name" in values:
            self.fields[values["name"]] = values.get("value", "")
        elif tag == "a" and "href" in values:
            self.targets.append((values["href"], {}))
