"""`mafr bench`: the plain path against the product path, in pairs on the same inputs, with untrained weights.

Each path has processes of its own, so that its memory can be measured; the parent lets them take turns, one
repetition each, so that a slow minute of the machine falls on both.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

from mafr.bench import work as bench_work
from mafr.bench.child import Child, child
from mafr.config import Config
from mafr.parallel.progress import bar

# stage -> (which product process runs it, which plain stage it stands beside)
STAGES = {
    "extraction": ("sample", "extraction"),
    "training step": ("tokens", "training step"),
    "inference from tokens": ("tokens", "inference"),
    "sample to map": ("sample", "inference"),
    "metrics": ("tokens", "metrics"),
}
_ADVICE = "; the plain path needs some 14 GB at full size: leave out a share of --valid, or --variant released"


@dataclass(frozen=True)
class Row:
    """One stage of one case: best times (s), peak memory above the libraries (MB), the arithmetic's floor (s)."""

    variant: str
    valid: float
    stage: str
    plain_s: float
    product_s: float
    plain_mb: float
    product_mb: float
    product_gflop: float
    floor_s: float
    difference: float  # of the product's anomaly map from the plain one, relative; NaN where no map is made

    @property
    def ratio(self) -> float:
        """How many times faster the product path is."""
        return self.plain_s / self.product_s


def bench(
    config: Config,
    variants: Sequence[str],
    valid: Sequence[float],
    stages: Sequence[str] = tuple(STAGES),
    repeats: int = 2,
) -> tuple[dict[str, float | str | list[str]], list[Row]]:
    """Measure: (the machine: names and GFLOP/s, rows). valid: shares of the image's pixels with a 3D point."""
    config = replace(config, random_weights=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        with _process("machine", bench_work.Case(config, 1.0, Path(folder))) as (_, machine):
            pass
        for variant in variants:
            for share in valid:
                case = bench_work.Case(config.with_variant(variant), share, Path(folder) / f"{variant}-{share}.pt")
                rows += _case(case, stages, repeats, machine)
    return machine, rows


def _case(case: bench_work.Case, stages: Sequence[str], repeats: int, machine: dict) -> list[Row]:
    kinds = dict.fromkeys(["sample", *(STAGES[stage][0] for stage in stages), "plain"])  # "sample" makes the tokens
    with ExitStack() as running:
        processes = {kind: running.enter_context(_process(kind, case))[0] for kind in kinds}
        return _take_turns(case, stages, repeats, processes, machine)


@contextmanager
def _process(kind: str, case: bench_work.Case) -> Iterator[tuple[Child, object]]:
    """A process of `mafr.bench.work.serve`, and its first answer."""
    with child(bench_work.serve, (kind, case), "a process of the benchmark", _ADVICE) as process:
        yield process, process.receive()


def _take_turns(
    case: bench_work.Case, stages: Sequence[str], repeats: int, processes: dict[str, Child], machine: dict
) -> list[Row]:
    rows, plain_done = [], {}
    title = f"{case.config.variant}, {case.share:.0%} valid"
    rate = machine["gflops"]
    for stage in bar(stages, what=title):
        kind, beside = STAGES[stage]
        arithmetic = processes[kind].ask("count", stage)
        product, plain = [processes[kind].ask("run", stage)], []  # the first warms up and is not counted
        for _ in range(repeats):
            product.append(processes[kind].ask("run", stage))
            if beside not in plain_done:
                plain.append(processes["plain"].ask("run", beside))
        plain = plain_done.setdefault(beside, plain)
        rows.append(
            Row(
                case.config.variant,
                case.share,
                stage,
                min(one.seconds for one in plain),
                min(one.seconds for one in product[1:]),
                max(one.megabytes for one in plain),
                max(one.megabytes for one in product),
                arithmetic,
                arithmetic / rate,
                bench_work.difference(product[-1].result, plain[-1].result),
            )
        )
    return rows


def report(machine: dict, rows: Sequence[Row]) -> str:
    """The measurement as a table to print."""
    lines = [
        f"{machine['device']}, {machine['threads']} threads, product path in {machine['precision']}: "
        f"{machine['gflops']:,.0f} GFLOP/s measured there, {machine['gflops_float32']:,.0f} in float32",
        f"{machine['why']}; the processor has {', '.join(machine['instruction_sets']) or 'none of AVX2 and later'}",
        "random weights; seconds: best of the repetitions; memory: peak above the loaded libraries",
        "",
        f"{'variant':9} {'valid':>5}  {'stage':22} {'plain s':>8} {'product s':>9} {'ratio':>7} {'plain MB':>9} "
        f"{'product MB':>10} {'GFLOP':>7} {'floor s':>8} {'maps differ':>11}",
    ]
    for row in rows:
        differ = "" if row.difference != row.difference else f"{row.difference:.2%}"
        lines.append(
            f"{row.variant:9} {row.valid:5.0%}  {row.stage:22} {row.plain_s:8.2f} {row.product_s:9.3f} "
            f"{row.ratio:6.1f}x {row.plain_mb:9,.0f} {row.product_mb:10,.0f} {row.product_gflop:7,.0f} "
            f"{row.floor_s:8.3f} {differ:>11}"
        )
    return "\n".join(lines)


def as_json(config: Config, machine: dict, rows: Sequence[Row]) -> dict:
    """The same for a file, with the date; notebook 12 shows such files."""
    cells = [{**asdict(row), "ratio": row.ratio, "difference": _number(row.difference)} for row in rows]
    head = {"kind": "speed", "date": date.today().isoformat(), "profile": config.profile}
    return {**head, "machine": machine, "rows": cells}


def _number(value: float) -> float | None:
    return value if value == value else None  # JSON has no NaN
