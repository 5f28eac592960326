"""The categories in a raw folder: those that were asked for, or all that hold training samples."""

from collections.abc import Sequence
from pathlib import Path

from mafr.config import CATEGORIES, DATASET_TITLES, Config
from mafr.data.layout import SPLITS, some_of, spelled, subfolders, unknown_category
from mafr.data.manifest import check_category, data_command
from mafr.errors import DataError, notice

_SPLITS = {*SPLITS, "val", "test_public", "test_private"}


def chosen_categories(dataset: str, raw_root: Path, config: Config, asked: Sequence[str] | None) -> list[str]:
    """The names of the folders to preprocess, each once: `asked`, a profile's generated ones, or all categories found.

    Raises DataError where `raw_root` is missing, holds no categories or is one itself, or an asked one is not there.
    """
    found = subfolders(raw_root)
    if not raw_root.is_dir():
        for name in asked or ():
            if name not in CATEGORIES[dataset]:
                raise unknown_category(dataset, raw_root, name)
        if raw_root.is_file():
            raise DataError(f"{raw_root}: a file, where a folder of categories is needed; archives go with --archive")
        command = data_command(dataset, config)
        hint = "" if config.generated else f" (it belongs in DIR/raw/{dataset}, or name it by --source)"
        raise DataError(f"{raw_root}: no such folder; make the data ready with `{command}`{hint}")
    if is_category(raw_root):
        raise DataError(
            f"{raw_root}: this is a category itself, it holds train; name the folder above it, {raw_root.parent} "
            f"(with --categories {raw_root.name} for this one alone)"
        )
    if asked is not None:
        names = list(dict.fromkeys(spelled(name, found) for name in asked))
    else:
        names = list(config.categories(dataset)) if config.generated else categories_of(raw_root)
    for name in names:
        if name not in found and name not in CATEGORIES[dataset]:
            raise unknown_category(dataset, raw_root, name)
    if not names:
        raise DataError(f"{raw_root}: no category folders; expected are <category>/... as in {DATASET_TITLES[dataset]}")
    for name in names:
        check_category(dataset, raw_root, name, config)
    return names


def is_category(folder: Path) -> bool:
    """Whether a folder is a category, not a folder of categories: it holds train, and that is no category."""
    return "train" in subfolders(folder) and not _holds_split(folder / "train")


def categories_of(raw_root: Path) -> list[str]:
    """The folders that hold a split; others are passed over, which stderr says. All folders where none holds one.

    Raises DataError where the categories lie one folder deeper.
    """
    found = subfolders(raw_root)
    categories = [name for name in found if _holds_split(raw_root / name)]
    deeper = [name for name in found if any(_holds_split(raw_root / name / sub) for sub in subfolders(raw_root / name))]
    if deeper and not categories:
        raise DataError(f"{raw_root}: no category folders here, but in {raw_root / deeper[0]}: name that folder")
    if categories and len(categories) < len(found):
        others = some_of([name for name in found if name not in categories])
        notice(f"passed over in {raw_root}, as there is no train folder in them: {others}")
    return categories or found


def _holds_split(folder: Path) -> bool:
    return bool(_SPLITS & set(subfolders(folder)))
