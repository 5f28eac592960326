"""Raw data folders from local archives or a download; then `preprocess` has what it needs."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from mafr.config import CATEGORIES, DATASET_TITLES
from mafr.data.acquire.archive import check_archives, is_archive, staged_size, unpack, unpacked_size
from mafr.data.acquire.counts import unpacked_bytes
from mafr.data.acquire.fetch import BrokenError, ChecksumError, FetchError, content_length, fetch, fetched, open_address
from mafr.data.layout import PROCESSED_SHARE, subfolders, unknown_category
from mafr.data.manifest import read_json
from mafr.disk import free_space, size_text, writing
from mafr.errors import DataError, notice
from mafr.parallel.progress import Workers
from mafr.paths import write_json

PAGES = {
    "mvtec3d": "https://www.mvtec.com/company/research/datasets/mvtec-3d-ad",
    "eyecandies": "https://eyecan-ai.github.io/eyecandies/",
    "adam3d": "https://huggingface.co/datasets/pmchard/3D-ADAM_anomalib",
}
LICENCE_NAMES = {"mvtec3d": "CC BY-NC-SA 4.0, ", "adam3d": "CC BY-NC-SA 4.0, "}  # Eyecandies names it on its page
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
ADAM3D_ARCHIVE = "adam3d_cropped.zip"  # all categories, some 5 GB
ADAM3D_SHA256 = "ffc4c52afa1566a4165c42300c21758ec8292ff04305c65e81e830abb8200c36"
ADAM3D_ADDRESSES = (f"{PAGES['adam3d']}/resolve/main/{ADAM3D_ARCHIVE}",)
DRIVE = "https://drive.usercontent.google.com/download?id={}&export=download&confirm=t"
_KNOWN = ".archives.json"  # archives that were unpacked, with the categories that they hold
_PACKED = 3  # a compressed tar of other data than the published is unpacked at most this many times its size


class Remote(NamedTuple):
    """A file on a server, with its size in bytes or None where the server does not say."""

    address: str
    size: int | None


def unpack_archives(
    dataset: str, sources: Sequence[Path], raw: Path, categories: Sequence[str] | None = None, workers: Workers = 1
) -> None:
    """Unpack local archives, or folders of them, into `<raw>/<category>`; those unpacked before are not read again.

    workers: of which only local processes unpack. Raises DataError for files that are no archives, damaged or
    dangerous ones, missing categories, and too little free disk.
    """
    archives = [path for source in sources for path in _archives(source)]
    known = read_json(raw / _KNOWN, "delete it and use the same command again") or {}
    known = {stamp: held for stamp, held in known.items() if isinstance(held, list)}
    there = subfolders(raw)
    stamps = {path: f"{path.resolve()} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in archives}
    todo = [
        path
        for path in archives
        if stamps[path] not in known
        or not {name for name in known[stamps[path]] if categories is None or name in categories} <= set(there)
    ]
    if todo:
        check_archives(todo)
        size = sum(_size(dataset, path, categories) for path in todo)
        check_space(raw, DATASET_TITLES[dataset], 0, size, staged_size(todo, raw, categories))
        local = workers if isinstance(workers, int | None) else 1
        with writing(raw):
            for path, held in unpack(todo, raw, categories, local).items():
                known[stamps[path]] = held
            write_json(raw / _KNOWN, known)
        there = subfolders(raw)
    missing = [name for name in categories or () if name not in there]
    if missing:
        raise DataError(
            f"{raw}: no {', '.join(missing)} after unpacking {', '.join(path.name for path in archives)} (there are "
            f"{', '.join(there) or 'no categories'}); name the archive that holds it with --archive"
        )


def download_raw(
    dataset: str,
    raw: Path,
    downloads: Path,
    url: str | None = None,
    categories: Sequence[str] | None = None,
    whole: bool = True,
) -> None:
    """Download and unpack the categories (default: all published ones) that `raw` misses; interrupted calls continue.

    Of 3D-ADAM, whose categories are not listed here, the default is all of the archive. Data put in place by hand stays
    as it is: without `url`, `categories` or a begun download, nothing is downloaded to a `raw` that holds some, and
    stderr names the published categories that are missing.

    Args:
        raw: gets `<category>/...`.
        downloads: for archives, until they are unpacked.
        url: instead of the known address; for Eyecandies with {category} in it.
        whole: the archive must be the published one, by its checksum where that is known.

    Raises DataError where a category is neither published nor there, no address answers with the archive, the disk is
    too small, or the archive is damaged.
    """
    found, published = subfolders(raw), CATEGORIES[dataset]
    missing = [name for name in (published if categories is None else categories) if name not in found]
    if published and (unknown := [name for name in missing if name not in published]):
        raise unknown_category(dataset, raw, unknown[0])
    wanted = missing if published or categories is not None else None  # None: all that the archive holds
    if not missing and wanted is not None:
        return
    if found and categories is None and url is None and not downloads.is_dir():
        if len(missing) < len(published):  # else it is the user's own data
            notice(
                f"no {', '.join(missing)} in {raw}: not downloaded, as there is data already; --categories "
                f"{','.join(missing)} downloads what is missing"
            )
        return
    title, page = DATASET_TITLES[dataset], PAGES[dataset]
    advice = f"get the archive or a new address from {page}, then use --archive FILE or --url ADDRESS"
    archive, addresses, *checksum = _published_archive(dataset)
    if dataset == "eyecandies":
        files = {f"{name}.tar": ([name], (_class_address(name, url),)) for name in missing}
    else:
        files = {archive: (wanted, (url,) if url else addresses)}
    remotes = {name: locate(addresses, title, advice) for name, (_, addresses) in files.items()}
    sizes = {name: remote.size or 0 for name, remote in remotes.items()}
    left = sum(max(size - fetched(downloads / name), 0) for name, size in sizes.items())
    # A published class of Eyecandies is a plain tar: as large unpacked, and removed before the next one is downloaded.
    packed = 1 if dataset == "eyecandies" else _PACKED
    unpacked, largest = unpacked_bytes(dataset, missing) or packed * sum(sizes.values()), max(sizes.values())
    staged = sum(staged_size([downloads / name], raw, wanted) for name in sizes if (downloads / name).is_file())
    check_space(downloads, title, largest if len(sizes) > 1 else left, unpacked, staged)
    size, licence = size_text(sum(sizes.values())), LICENCE_NAMES.get(dataset, "")
    notice(
        f"no {', '.join(missing) or 'categories'} in {raw}: downloading {title} ({size}; licence: {licence}see "
        f"{page}); --archive or --source take what is on disk already"
    )
    with writing(downloads):
        downloads.mkdir(parents=True, exist_ok=True)  # from here on the next call continues with all that is missing
    checksum = checksum if whole else []
    for name, remote in remotes.items():
        path, asked = download(remote.address, downloads / name, name, advice, *checksum), files[name][0]
        try:
            if not is_archive(path):
                problem = f"{remote.address} gave a file that is neither a tar nor a zip archive"
                raise DataError(f"{name}: {problem}; {advice}")
            with writing(raw):
                held = unpack([path], raw, asked)[path]
            absent = [category for category in asked or () if category not in held]
            if absent and published:
                raise DataError(f"{path}: the archive holds {', '.join(held)}, not {', '.join(absent)}; {advice}")
        except DataError:
            path.unlink(missing_ok=True)  # it would be no better the next time
            raise
        if absent:  # a name that was not typed right is no reason to download again
            there = f"the archive holds {', '.join(held)}, not {', '.join(absent)}"
            raise DataError(f"{path}: {there}; correct --categories: the archive is kept")
        path.unlink(missing_ok=True)  # another process may have wanted it for other categories
    with suppress(OSError):  # not empty while other calls download
        downloads.rmdir()


def locate(addresses: Sequence[str], what: str, advice: str) -> Remote:
    """The first of several addresses that answers with a file. Raises DataError, with `advice`, if none does."""
    reasons = []
    for address in addresses:
        try:
            with open_address(address) as (answer, _):
                return Remote(address, content_length(answer))
        except FetchError as error:
            reasons.append(error.short)
    raise DataError(f"{what}: no address gives the file ({'; '.join(reasons)}); {advice}")


def download(address: str, target: Path, what: str, advice: str, checksum: str = "", kind: str = "MD5") -> Path:
    """`fetch` for a data set: its errors become DataErrors that name `what` and end with `advice`."""
    try:
        with writing(target.parent):
            return fetch(address, target, checksum, kind, what)
    except FetchError as error:
        way = f", or {advice}" if isinstance(error, BrokenError) else f"; {advice}"
        raise DataError(f"{what}: {error.short}{way}") from None
    except ChecksumError as error:
        raise DataError(
            f"{what}: the {kind} of the downloaded file is {error.found}, {checksum} is published: damaged on the way "
            f"or not the published archive, and removed; run the same command again, or {advice}"
        ) from None


def check_space(folder: Path, what: str, archive: float, unpacked: float, staged: float = 0) -> None:
    """Raise DataError unless the disk of `folder` has room for an archive, its files and the processed copy.

    All in bytes; `staged` of the unpacked files are on the disk already.
    """
    place, free = free_space(folder)
    left, processed = max(unpacked - staged, 0), PROCESSED_SHARE * unpacked
    needed = archive + left + processed
    if needed > free:
        parts = f"{size_text(archive)} to download, {size_text(left)} unpacked, about {size_text(processed)} processed"
        raise DataError(
            f"{place}: {what} needs {size_text(needed)} of disk ({parts}), {size_text(free)} are free; make room, "
            "choose another folder by --data-root, or fewer by --categories"
        )


def _published_archive(dataset: str) -> tuple[str, tuple[str, ...], str, str]:
    """Name, addresses, checksum and its kind of a data set's one archive; nothing of Eyecandies, which has several."""
    if dataset == "eyecandies":
        return "", (), "", "MD5"
    if dataset == "adam3d":
        return ADAM3D_ARCHIVE, ADAM3D_ADDRESSES, ADAM3D_SHA256, "SHA-256"
    return MVTEC3D_ARCHIVE, MVTEC3D_ADDRESSES, MVTEC3D_MD5, "MD5"


def _class_address(category: str, url: str | None) -> str:
    if url is None:
        return DRIVE.format(EYECANDIES_IDS[category])
    if "{category}" not in url:
        raise DataError(f"--url {url}: Eyecandies has one archive per class; put {{category}} where its name belongs")
    return url.replace("{category}", category)


def _archives(source: Path) -> list[Path]:
    """A path's archives: itself, or those in the folder."""
    if not source.exists():
        raise DataError(f"{source}: no such file or folder; name an archive, or a folder of archives")
    if not source.is_dir():
        return [source]
    found = [path for path in sorted(source.iterdir()) if not path.name.startswith(".") and is_archive(path)]
    if not found:
        hint = f" (folders of raw data, such as {subfolders(source)[0]}, go with --source)"
        raise DataError(f"{source}: no tar or zip archive in this folder{hint if subfolders(source) else ''}")
    return found


def _size(dataset: str, path: Path, categories: Sequence[str] | None) -> int:
    """Bytes of an archive's files: as it says, else estimated from the published table and its own size."""
    if (known := unpacked_size(path)) is not None:
        return known
    published = unpacked_bytes(dataset, categories or CATEGORIES[dataset]) or _PACKED * path.stat().st_size
    return min(published, _PACKED * path.stat().st_size)
