"""A command's stages in turn: what is done, what is left and until when, and what can be opened already."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

# Seconds on two processors, for the estimate alone. Where stages of this call took longer or shorter, it follows them.
USUAL = {
    "demo": {"data": 360, "features": 120, "runs": 1400, "tables": 5, "figures": 45, "notebooks": 300},
    "smoke": {"data": 15, "features": 10, "runs": 60, "tables": 2, "figures": 10, "notebooks": 60},
}  # fmt: skip
_SHARE = 0.3  # of the usual time: a stage below it found its work done, and says nothing of this machine's speed


@dataclass(frozen=True)
class Guide:
    """What a reader is told between stages.

    usual: seconds of each stage, {} where no estimate is given. opens: stage -> what can be opened after it.
    """

    usual: Mapping[str, float] = field(default_factory=dict)
    opens: Mapping[str, str] = field(default_factory=dict)

    def left(self, stages: Sequence[str], seconds: Mapping[str, float], now: datetime) -> str:
        """The stages after those of `seconds`, with an estimate; "" after the last."""
        names = list(stages[len(seconds) :])
        if not names:
            return ""
        text = ", ".join(names)
        if not all(name in self.usual for name in names):
            return text
        known = [name for name in seconds if seconds[name] >= _SHARE * self.usual.get(name, float("inf"))]
        pace = sum(seconds[name] for name in known) / sum(self.usual[name] for name in known) if known else 1.0
        rest = timedelta(seconds=pace * sum(self.usual[name] for name in names))
        minutes = max(1, round(rest.total_seconds() / 60))
        return f"{text}: about {minutes} min, until {now + rest:%H:%M}; less where work is finished already"


def run_stages(work: Mapping[str, Callable[[], object]], guide: Guide | None = None) -> dict[str, float]:
    """Do the work of each stage in turn, saying on stderr what is done and left; returns each stage's seconds."""
    guide, stages, seconds = guide or Guide(), list(work), {}
    if guide.usual and (left := guide.left(stages, seconds, datetime.now())):
        _say(f"stages: {left}")
    for stage, do in work.items():
        _say(f"== {stage}")
        start = time.perf_counter()
        do()
        seconds[stage] = time.perf_counter() - start
        _say(f"   {stage}: {seconds[stage]:.0f} s")
        if stage in guide.opens:
            _say(f"   to open now: {guide.opens[stage]}")
        if guide.usual and (left := guide.left(stages, seconds, datetime.now())):
            _say(f"   left: {left}")
    return seconds


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
