"""The `mafr` command as its user sees it: commands, options, help."""

from __future__ import annotations

import argparse

from mafr import __version__
from mafr.baselines.methods import BASELINES, MAFR, METHODS
from mafr.cli import commands
from mafr.cli.options import names, numbers
from mafr.config import DATASETS, PROFILES, VARIANTS

BESIDE = f"the methods of Tables I-III, of {','.join(METHODS)} (default: all; mafr is always there)"

DESCRIPTION = """\
MAFR, reproduced: 2D-3D feature fusion for industrial anomaly detection.

first steps:
  mafr reproduce                 everything on the embedded default: data, features, Tables I-V, figures, notebooks
  mafr reproduce --profile smoke the same in about a minute, far smaller, to see that it works
  mafr tables                    write the tables again from the stored runs

your own parts (RGB images and organised point clouds, see "Your own data" in the README):
  mafr data mvtec3d --source MY_PARTS --data-root WORK
  mafr fit --data-root WORK --category bracket --out detectors/bracket
  mafr predict --detector detectors/bracket --rgb scan.png --xyz scan.tiff
"""


def build_parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("mafr", description=DESCRIPTION, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"mafr {__version__}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(
        name: str,
        run,
        text: str,
        *,
        parallel: bool = True,
        cluster: bool = False,
        methods: str = "",
        variant: str = "paper",
        profile: str = "demo",
    ) -> argparse.ArgumentParser:
        sub = subparsers.add_parser(name, help=text, description=text, formatter_class=raw)
        sub.set_defaults(run=run)
        sub.add_argument("--profile", choices=PROFILES, default=profile, help=f"how large (default: {profile})")
        both = (*VARIANTS, "both") if variant == "both" else VARIANTS
        text = "the paper's text, the authors' released code" + (", or both" if variant == "both" else "")
        sub.add_argument("--variant", choices=both, default=variant, help=f"{text} (default: {variant})")
        sub.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="settings",
                         help="change a setting, e.g. --set epochs=3; `mafr config` lists them")  # fmt: skip
        sub.add_argument("--random-weights", action="store_true", help="untrained backbones, to test or time the code: "
                         "numbers mean nothing, and every output says so")  # fmt: skip
        sub.add_argument("--data-root", metavar="DIR", help="folder with raw/ and processed/ data of your own")
        if parallel:
            sub.add_argument("--workers", type=int, metavar="N", help="local processes (default: one a processor; "
                             "for features and runs on GPUs, one a GPU)")  # fmt: skip
        if methods:
            sub.add_argument("--methods", type=names, metavar="A,B", help=methods)
        if cluster:
            sub.add_argument("--scheduler", metavar="ADDRESS", help="send the work to the Dask cluster with this "
                             "scheduler, like tcp://host:8786; its workers must see the same files")  # fmt: skip
        return sub

    sub = command("reproduce", commands.reproduce_all, "regenerate every table, figure and notebook", cluster=True,
                  variant="both", methods=BESIDE)  # fmt: skip
    sub.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds; several give mean ± deviation")
    sub.add_argument("--tables", type=numbers, default=(1, 2, 3, 4, 5), metavar="1,2,…", help="only these")
    sub.add_argument("--stages", default="", metavar="A,B", help="only these of data,features,runs,tables,figures,"
                     "notebooks")  # fmt: skip

    sub = command("data", commands.provide_data, "generate a data set; or download, unpack, check and preprocess a "
                  "real one", cluster=True)  # fmt: skip
    sub.add_argument("what", choices=("generate", *DATASETS), help="generate: the embedded stand-ins; else a real one")
    sub.add_argument("--root", metavar="DIR", dest="data_root", help="the same as --data-root")
    given = sub.add_mutually_exclusive_group()
    given.add_argument("--source", metavar="DIR", help="raw category folders, if not under DATA_ROOT/raw")
    given.add_argument("--archive", nargs="+", metavar="FILE", help="local archives, or a folder of them, instead of "
                       "downloading")  # fmt: skip
    given.add_argument("--url", help="another address of the archive; for Eyecandies with {category} in it")
    sub.add_argument("--categories", metavar="A,B", type=lambda text: text.split(","), help="only these")
    sub.add_argument("--allow-incomplete", action="store_true", help="other numbers of samples than published: a part "
                     "of a data set")  # fmt: skip
    sub.add_argument("--plane", choices=("remove", "none"), help="none: scans without a table; then give later "
                     "commands --set plane=none")  # fmt: skip

    command("features", commands.store_features, "extract and store the features of the prepared data", cluster=True,
            methods=BESIDE)  # fmt: skip

    sub = command("run", commands.make_runs, "train and score: the runs of tables, or of one category", cluster=True,
                  variant="both", methods=f"only these of {','.join(METHODS)} (default: all of a table; of a category "
                  "mafr)")  # fmt: skip
    sub.add_argument("--table", type=numbers, default=(), metavar="1,2,…", help="the runs of these tables")
    sub.add_argument("--dataset", choices=DATASETS, default="mvtec3d")
    sub.add_argument("--category", help="one category instead of tables")
    sub.add_argument("--shots", type=int, help="training samples; default all")
    sub.add_argument("--seeds", type=int, default=1, metavar="N")

    sub = command("tables", commands.write_tables, "write the tables from the stored runs", parallel=False,
                  variant="both", methods=BESIDE)  # fmt: skip
    sub.add_argument("--seeds", type=int, default=1, metavar="N")
    sub.add_argument("--tables", type=numbers, default=(1, 2, 3, 4, 5), metavar="1,2,…", help="only these")

    command("figures", commands.draw_figures, "draw the figures from the stored runs", variant="both")

    sub = command("notebooks", commands.execute_notebooks, "execute the notebooks by papermill")
    sub.add_argument("names", nargs="*", metavar="NAME", help="only those that begin so, e.g. 02")
    sub.add_argument("--force", action="store_true", help="also those that are up to date")

    sub = command("fit", commands.fit_detector, "train and save a detector on a category of your own", parallel=False)
    sub.add_argument("--dataset", choices=DATASETS, default="mvtec3d")
    sub.add_argument("--category", required=True)
    sub.add_argument("--method", choices=METHODS, default=MAFR, metavar="M", help=f"mafr (default) or a compared "
                     f"method: {', '.join(BASELINES)}")  # fmt: skip
    sub.add_argument("--out", required=True, metavar="DIR", help="folder for the detector")

    sub = subparsers.add_parser("predict", help="score one RGB + xyz pair with a saved detector", formatter_class=raw)
    sub.set_defaults(run=commands.predict_pair)
    sub.add_argument("--detector", required=True, metavar="DIR", help="a folder written by `mafr fit`")
    sub.add_argument("--rgb", required=True, metavar="FILE", help="image, png")
    sub.add_argument("--xyz", required=True, metavar="FILE", help="organised point cloud: H x W x 3 tiff in metres, "
                     "PLY or PCD; or a depth image")  # fmt: skip
    sub.add_argument("--intrinsics", metavar="FILE", help="camera of a depth image, or unit of a PLY or PCD file: json "
                     "with fx, fy, cx, cy, depth_scale, unit")  # fmt: skip
    sub.add_argument("--processed", action="store_true", help="the scan is from a processed copy already")
    sub.add_argument("--threshold", type=float, help="instead of the detector's own")
    sub.add_argument("--out", metavar="FILE", help="heatmap picture, png")
    sub.add_argument("--json", action="store_true", help="machine-readable result")

    sub = command("weights", commands.show_weights, "show the backbones' weight files, and fetch them", parallel=False,
                  profile="full")  # fmt: skip
    sub.add_argument("--fetch", action="store_true", help="download what is missing")

    sub = command("import-released", commands.import_released, "make a detector of the released code's checkpoints",
                  parallel=False, variant="released", profile="full")  # fmt: skip
    place = sub.add_mutually_exclusive_group(required=True)
    place.add_argument("--folder", metavar="DIR", help="with fusion_encoder_*.pth, decoder_2D_*.pth, decoder_3D_*.pth")
    place.add_argument("--files", nargs=3, metavar="FILE", help="the three files, where a folder holds more")
    sub.add_argument("--out", required=True, metavar="DIR", help="folder for the detector")

    sub = command("bench", commands.time_paths, "time the plain path against the product path, with untrained weights",
                  parallel=False, variant="both", profile="full")  # fmt: skip
    sub.add_argument("--valid", type=numbers, default=(25, 60, 100), metavar="25,60,…",
                     help="valid pixels, per cent (default: 25,60,100)")  # fmt: skip
    sub.add_argument("--stages", default="", metavar="A,B", help="only these of extraction,training step,inference "
                     "from tokens,sample to map,metrics")  # fmt: skip
    sub.add_argument("--repeats", type=int, default=2, metavar="N", help="repetitions; the best counts (default: 2)")
    sub.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU where there is one")
    sub.add_argument("--out", metavar="FILE", help="the same as json")

    sub = command("precision", commands.compare_precision, "measure what bfloat16 changes in the results of Table I",
                  variant="both")  # fmt: skip
    sub.add_argument("--train", action="store_true", help="also train in bfloat16, once a run")

    sub = subparsers.add_parser("pretrain-points", help="pretrain the small Point-MAE again, as it was shipped")
    sub.set_defaults(run=commands.pretrain_points)
    sub.add_argument("--out", default="pretrained", metavar="DIR")
    sub.add_argument("--steps", type=int, help="default: as shipped")
    sub.add_argument("--seed", type=int, help="default: as shipped")

    command("config", commands.show_config, "print every setting of a profile and a variant", parallel=False)
    return parser
