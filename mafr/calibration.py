"""What a threshold from good validation scores promises: the share of new good parts that it will call not OK."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95  # of the interval
CERTAIN = 10  # scores expected above the threshold from which on the interval ends below twice the wanted rate
SHOWN = 24  # validation scores that are printed one by one
_SOURCE = "distribution-free: Clopper and Pearson 1934, order statistics as in Wilks 1941"


@dataclass(frozen=True)
class FalseAlarms:
    """The expected rate of false alarms: good parts, like the validation parts, with a score above the threshold.

    The threshold is the quantile q of n scores, linear between order statistics: at place h = (n - 1) q it lies between
    the k-th and the next, k = floor(h) + 1. For scores of a continuous distribution, whatever it is, the share F of it
    below the k-th smallest of n has the distribution Beta(k, n + 1 - k) (Wilks, "Determination of sample sizes for
    setting tolerance limits", 1941). So the rate is at most Beta(n + 1 - k, k) and at least Beta(n - k, k + 1), and the
    `LEVEL` interval from the lower quantile of the one to the upper quantile of the other is that of Clopper and
    Pearson ("The use of confidence or fiducial limits", 1934) for n - k of n above the threshold.

    It holds where new parts are like the validation parts (exchangeable): same product, same camera, not trained on.
    """

    count: int  # n, validation scores
    wanted: float  # 1 - q, what the rate tends to with many scores
    expected: float  # (n - h) / (n + 1), by the same interpolation between the two order statistics' means
    low: float
    high: float

    @classmethod
    def of(cls, count: int, quantile: float) -> FalseAlarms:
        """Of a threshold at a quantile in (0, 1] of `count` scores. Raises ValueError without scores."""
        if count < 1:
            raise ValueError("a threshold needs at least one score")
        from scipy.special import betaincinv  # the quantile of Beta(a, b)

        place = (count - 1) * quantile
        below = min(math.floor(place + 1e-9) + 1, count)  # k; rounding must not make 19 of 18.999…
        above, tail = count - below, (1 - LEVEL) / 2
        low = float(betaincinv(above, below + 1, tail)) if above else 0.0
        high = float(betaincinv(above + 1, below, 1 - tail))
        return cls(count, 1 - quantile, (count - place) / (count + 1), low, high)

    @property
    def needed(self) -> int:
        """The least number of scores whose highest is exceeded by at most the wanted share of new good parts.

        The highest of n is exceeded by 1 in n + 1, so this is 1 / wanted - 1; 0 where none are to be exceeded.
        """
        return math.ceil(1 / self.wanted - 1 - 1e-9) if self.wanted else 0

    @property
    def warning(self) -> str:
        """One line where the scores are too few to set the threshold, else ""."""
        if self.count >= self.needed:
            return ""
        many = math.ceil(CERTAIN / self.wanted - 1e-9)
        parts = "1 good validation part is" if self.count == 1 else f"{self.count} good validation parts are"
        return (
            f"{parts} too few to set a threshold for {_percent(self.wanted)} false alarms: even the highest score is "
            f"exceeded by 1 in {self.count + 1} new good parts. At least {self.needed} would do, and with {many} the "
            f"interval ends below {_percent(2 * self.wanted)}; add good parts to the validation folder"
        )

    def as_dict(self) -> dict[str, object]:
        """For saved detectors."""
        return {"expected": self.expected, "interval": [self.low, self.high], "level": LEVEL, "source": _SOURCE}

    def __str__(self) -> str:
        """The expected rate with its interval, one line."""
        interval = f"{_percent(self.low)} to {_percent(self.high)}"
        return f"{_percent(self.expected)}, {LEVEL:.0%} interval {interval} ({_SOURCE})"


def score_lines(scores: Sequence[float], threshold: float, width: int = 100) -> str:
    """Scores from the highest down in lines of at most `width`, a star behind those above the threshold.

    Of more than `SHOWN` the middle is left out, and the text says how many.
    """
    words = [f"{score:.4g}{'*' if score > threshold else ''}" for score in sorted(scores, reverse=True)]
    if len(words) > SHOWN:
        words[SHOWN - 4 : -4] = [f"({len(words) - SHOWN} more)"]
    return textwrap.fill(" ".join(words), width, initial_indent="  ", subsequent_indent="  ")


def _percent(share: float) -> str:
    """Two digits below ten per cent, else none behind the point."""
    return f"{100 * share:.2g}%" if share < 0.1 else f"{100 * share:.0f}%"
