"""The published archives: where they are, and what to do when one cannot be had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mafr.data.acquire.drive import confirm_address
from mafr.data.acquire.fetch import BrokenError, ChecksumError, fetch
from mafr.data.acquire.web import FetchError, remote_size
from mafr.errors import DataError

PAGES = {
    "mvtec3d": "https://www.mvtec.com/company/research/datasets/mvtec-3d-ad",
    "eyecandies": "https://eyecan-ai.github.io/eyecandies/",
}
MVTEC3D_ARCHIVE = "mvtec_3d_anomaly_detection.tar.xz"
MVTEC3D_MD5 = "d8bb2800fbf3ac88e798da6ae10dc819"
MVTEC3D_ADDRESSES = (  # newer, older
    "https://www.mydrive.ch/shares/150646/25de33f1276dd418cd856f2f48a84cdb/download/428824485-1643299897/"
    + MVTEC3D_ARCHIVE,
    "https://www.mydrive.ch/shares/45920/dd1eb345346df066c63b5c95676b961b/download/428824485-1643285832/"
    + MVTEC3D_ARCHIVE,
)
EYECANDIES_IDS = {
    "CandyCane": "1OI0Jh5tUj98j3ihFXCXf7EW2qSpeaTSY",
    "ChocolateCookie": "1PEvIXZOcxuDMBo4iuCsUVDN63jisg0QN",
    "ChocolatePraline": "1dRlDAS31QJSwROgA6yFcXo85mL0EBh25",
    "Confetto": "10GNPUIQTUheT-qd6EzO76fsUgAwsHfaq",
    "GummyBear": "1OCAKXPmpNrD9s3oUcQ--mhRZTt4HGJ-W",
    "HazelnutTruffle": "1PsKc4hXxsuIjqwyHh7ciPAeS-IxsPikm",
    "LicoriceSandwich": "1dtU_l9gD1zoCN7fIYRksd_9KeyZklaHC",
    "Lollipop": "1DbL91Zjm2I9-AfJewU3M354pW4vnuaNz",
    "Marshmallow": "1pebIU3AegEFilqqoROaVzOZqkSgX-JTo",
    "PeppermintCandy": "1tF_1fPJYaUVaf1AwjlEi-fsGWzgCx6UF",
}
DRIVE = "https://drive.usercontent.google.com/download?id={}&export=download&confirm=t"


@dataclass(frozen=True)
class Remote:
    """A file that a server offers: its size in bytes, or None where it does not say."""

    address: str
    size: int | None


def locate(addresses: Sequence[str], what: str, advice: str) -> Remote:
    """The first of several addresses that answers with a file. Raises DataError, with `advice`, if none does."""
    reasons = []
    for address in addresses:
        try:
            return Remote(address, remote_size(address, _behind))
        except FetchError as error:
            reasons.append(f"{_host(address)}: {error.reason}")
    raise DataError(f"{what}: no address gives the file ({'; '.join(reasons)}); {advice}")


def download(address: str, target: Path, what: str, advice: str, md5: str | None = None) -> Path:
    """`mafr.data.acquire.fetch.fetch` for a data set: what an earlier call has fetched is kept and completed.

    Args:
        what: for the progress bar and messages.
        advice: what to do when it can't be had, for messages.
        md5: hexadecimal; a file with another one is removed.

    Raises:
        DataError: the address refuses, the connection stays broken, the disk is full, or the checksum is another one.
    """
    try:
        return fetch(address, target, md5=md5, what=what, follow=_behind)
    except FetchError as error:
        way = f", or {advice}" if isinstance(error, BrokenError) else f"; {advice}"
        raise DataError(f"{what}: {_host(address)}: {error.reason}{way}") from None
    except ChecksumError as error:
        raise DataError(
            f"{what}: the MD5 of the downloaded file is {error.found}, {md5} is published: damaged on the way or not "
            f"the published archive, and removed; run the same command again, or {advice}"
        ) from None


def _behind(page: str, address: str) -> str | None:
    """Through Google Drive's confirmation page, see `mafr.data.acquire.fetch.fetch`."""
    found = confirm_address(page, address)
    if found is None and ("download quota" in page.lower() or "too many users" in page.lower()):
        raise FetchError(address, "its download quota is used up for today")
    return found


def _host(address: str) -> str:
    return urlsplit(address).netloc or address
