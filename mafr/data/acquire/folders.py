"""Raw folders from nothing: from local archives, or downloaded; then `preprocess` has what it needs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mafr.config import CATEGORIES, DATASET_TITLES
from mafr.data.acquire.archive import is_archive, staged_size, unpack, unpacked_size
from mafr.data.acquire.counts import unpacked_bytes
from mafr.data.acquire.download import (
    DRIVE,
    EYECANDIES_IDS,
    MVTEC3D_ADDRESSES,
    MVTEC3D_ARCHIVE,
    MVTEC3D_MD5,
    PAGES,
    Remote,
    download,
    locate,
)
from mafr.data.acquire.fetch import fetched
from mafr.data.layout import subfolders, unknown_category
from mafr.data.manifest import read_json
from mafr.errors import DataError
from mafr.parallel.progress import Workers
from mafr.paths import write_json

_KNOWN = ".archives.json"  # archives that were unpacked, with the categories that they hold
_PACKED = 3  # a compressed tar of other data than the published: unpacked, at most so many times its size
_PROCESSED = 0.4  # processed copies against unpacked files: clouds are packed, and most points are dropped


def acquire(
    dataset: str,
    raw: Path,
    downloads: Path,
    *,
    archives: Sequence[str | Path] | None = None,
    url: str | None = None,
    categories: Sequence[str] | None = None,
    allow_incomplete: bool = False,
    workers: Workers = 1,
) -> None:
    """Make `<raw>/<category>/...` from local archives, or by a download where there is none of it.

    See `unpack_archives` and `download_raw`, which this calls.

    Args:
        archives: files, or folders of them; None: what is missing is downloaded.
        allow_incomplete: a download need not be the published archive.
        workers: of which only local processes unpack.
    """
    if archives:
        count = workers if isinstance(workers, int) or workers is None else 1
        unpack_archives(dataset, [Path(path).expanduser() for path in archives], raw, categories, count)
    else:
        download_raw(dataset, raw, downloads, url, categories, whole=not allow_incomplete)


def unpack_archives(
    dataset: str, sources: Sequence[Path], raw: Path, categories: Sequence[str] | None = None, workers: int | None = 1
) -> None:
    """Unpack local archives, or folders of them, into `<raw>/<category>`; at once where that was done before.

    Raises DataError for files that are no archives, damaged or dangerous ones, wanted categories that are not in
    them, and too little free disk.
    """
    archives = [path for source in sources for path in _archives(source)]
    known = read_json(raw / _KNOWN, "delete it and use the same command again") or {}
    there = subfolders(raw)
    stamps = {path: f"{path.resolve()} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in archives}
    todo = [
        path
        for path in archives
        if stamps[path] not in known
        or not {name for name in known[stamps[path]] if categories is None or name in categories} <= set(there)
    ]
    if todo:
        size = sum(_size(dataset, path, categories) for path in todo)
        check_space(raw, DATASET_TITLES[dataset], 0, size, staged_size(todo, raw, categories))
        for path, held in unpack(todo, raw, categories, workers).items():
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
    """Download and unpack the categories that `raw` misses.

    Data that was put in place by hand stays as it is: without `url`, `categories` or a begun download, nothing is
    downloaded to a `raw` that holds some; which published categories are missing is then said on stderr. What an
    interrupted call has downloaded and unpacked is kept; a finished archive is removed once it is unpacked.

    Args:
        raw: gets `<category>/...`.
        downloads: for archives, until they are unpacked.
        url: instead of the known address; for Eyecandies with {category} in it.
        categories: default: all published ones.
        whole: the archive must be the published one, by its checksum where that is known.

    Raises:
        DataError: a category is neither published nor there, no address answers with the archive, the disk is too
            small, or the archive is damaged.
    """
    found, published = subfolders(raw), CATEGORIES[dataset]
    missing = [name for name in (published if categories is None else categories) if name not in found]
    if unknown := [name for name in missing if name not in published]:
        raise unknown_category(dataset, raw, unknown[0])
    if not missing:
        return
    if found and categories is None and url is None and not downloads.is_dir():
        if len(missing) < len(published):  # else it is data of one's own
            print(f"mafr: no {', '.join(missing)} in {raw}: not downloaded, as there is data already; --categories "
                  f"{','.join(missing)} downloads what is missing", file=sys.stderr)  # fmt: skip
        return
    title, page = DATASET_TITLES[dataset], PAGES[dataset]
    advice = f"get the archive or a new address from {page}, then use --archive FILE or --url ADDRESS"
    if dataset == "mvtec3d":
        files = {MVTEC3D_ARCHIVE: (missing, (url,) if url else MVTEC3D_ADDRESSES)}
    else:
        files = {f"{name}.tar": ([name], (_class_address(name, url),)) for name in missing}
    remotes = {name: locate(addresses, title, advice) for name, (_, addresses) in files.items()}
    _check_download(dataset, raw, downloads, remotes, missing)
    size = _gb(sum(remote.size or 0 for remote in remotes.values()))
    print(f"mafr: no {', '.join(missing)} in {raw}: downloading {title} ({size}; licence: see {page}); --archive or "
          "--source take what is on disk already", file=sys.stderr)  # fmt: skip
    downloads.mkdir(parents=True, exist_ok=True)  # from here on the next call goes on with all that is missing
    for name, remote in remotes.items():
        md5 = MVTEC3D_MD5 if dataset == "mvtec3d" and whole else None
        path = download(remote.address, downloads / name, name, advice, md5)
        if not is_archive(path):
            path.unlink()
            raise DataError(f"{name}: {remote.address} gave a file that is neither a tar nor a zip archive; {advice}")
        try:
            held = unpack([path], raw, files[name][0])[path]
            if absent := [category for category in files[name][0] if category not in held]:
                raise DataError(f"{path}: the archive holds {', '.join(held)}, not {', '.join(absent)}; {advice}")
        except DataError:
            path.unlink(missing_ok=True)  # it would be no better the next time
            raise
        path.unlink(missing_ok=True)  # another process may have wanted it for other categories
    with suppress(OSError):  # other calls' archives are still on their way
        downloads.rmdir()


def check_space(folder: Path, what: str, archive: float, unpacked: float, staged: float = 0) -> None:
    """Raise DataError unless the disk of `folder` has room for an archive, its files and the processed copy.

    staged: bytes of the unpacked files that are on the disk already.
    """
    place = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(place).free
    left, processed = max(unpacked - staged, 0), _PROCESSED * unpacked
    needed = archive + left + processed
    if needed > free:
        parts = f"{_gb(archive)} to download, {_gb(left)} unpacked, some {_gb(processed)} processed"
        raise DataError(
            f"{place}: {what} needs {_gb(needed)} of disk ({parts}), {_gb(free)} are free; make room, choose another "
            "folder by --data-root, or fewer by --categories"
        )


def _check_download(
    dataset: str, raw: Path, downloads: Path, remotes: dict[str, Remote], categories: Sequence[str]
) -> None:
    sizes = {name: remote.size or 0 for name, remote in remotes.items()}
    left = sum(max(size - fetched(downloads / name), 0) for name, size in sizes.items())
    # A published class of Eyecandies is a plain tar: as large unpacked, and the next one comes when it is gone.
    unpacked = unpacked_bytes(dataset, categories) or sum(sizes.values())
    whole = [downloads / name for name in sizes if (downloads / name).is_file()]
    staged = sum(staged_size([path], raw, categories) for path in whole)
    archive = max(sizes.values()) if len(sizes) > 1 else left
    check_space(downloads, DATASET_TITLES[dataset], archive, unpacked, staged)


def _class_address(category: str, url: str | None) -> str:
    if url is None:
        return DRIVE.format(EYECANDIES_IDS[category])
    if "{category}" not in url:
        raise DataError(f"--url {url}: Eyecandies is an archive a class; put {{category}} where its name belongs")
    return url.replace("{category}", category)


def _archives(source: Path) -> list[Path]:
    """The archives that a path names: itself, or those in the folder."""
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
    """Bytes that an archive needs unpacked: what it says, else what the table or its own size suggests."""
    if not is_archive(path):
        raise DataError(f"{path}: neither a tar nor a zip archive; download it again")
    known = unpacked_size(path)
    if known is not None:
        return known
    published = unpacked_bytes(dataset, categories or CATEGORIES[dataset]) or _PACKED * path.stat().st_size
    return min(published, _PACKED * path.stat().st_size)


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
