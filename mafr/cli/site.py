"""The command that writes the site: `site`."""

import argparse
from pathlib import Path

from mafr.cli.options import Commands, add_command, chosen_variants, read_settings
from mafr.errors import printable


def add_site(commands: Commands) -> None:
    text = (
        "the executed notebooks as linked pages with search, and the heatmap explorer, in a folder that any file "
        "server can serve; nothing is trained"
    )
    sub = add_command(commands, "site", write_site, text, computes=False, variant="both")
    sub.add_argument("--out", type=Path, metavar="DIR", help="folder of the site (default: site/ in the checkout)")


def write_site(arguments: argparse.Namespace) -> None:
    """The explorer's data from the stored runs, then the pages."""
    from mafr.cli.stages import run_stages
    from mafr.experiments.prepare import what_is_there
    from mafr.explorer.page import write_explorer
    from mafr.site.pages import check_builder, write_pages

    config, paths = read_settings(arguments)
    config, datasets = what_is_there(config, paths)
    folder, variants = arguments.out or paths.site, chosen_variants(arguments)
    check_builder()
    run_stages({
        "explorer": lambda: write_explorer(config, paths, folder / "explorer", datasets, variants, arguments.workers),
        "pages": lambda: write_pages(paths, folder),
    })  # fmt: skip
    print(printable(str(folder / "index.html")))
    print(printable(f"serve it with: python -m http.server --directory {folder}"))
