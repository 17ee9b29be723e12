"""When feedback is given: cognizance (section 1, When feedback is given).

A student that is far behind its peers in some domain gives feedback that breaks what they have right; so
before every round the gate says who may tutor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

GateStrategy = Literal["cognizance", "always", "never", "domain-selective"]
Scores = Mapping[str, Mapping[str, float]]
"""{student: {domain: score}}, all shares or all percentages."""

_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Gate:
    """Who may tutor in a round.

    Args:
        strategy: `cognizance`, the method's: a student tutors iff its gap is at most `tau`. For ablation,
            `always` and `never` ignore the scores, and with `domain-selective` an incognizant student still
            tutors questions of a domain in which its score is above that of each of its peers.
        tau: The largest gap of a cognizant student. A gap is a sum over the domains, so with more than the paper's
            two the same `tau` asks for more.

    Raises:
        ValueError: If the strategy is unknown or `tau` is not a finite number of at least 0.
    """

    strategy: GateStrategy = "cognizance"
    tau: float = 0.2

    def __post_init__(self) -> None:
        if self.strategy not in get_args(GateStrategy):
            raise ValueError(f"gate strategy {self.strategy!r} is unknown: use {', '.join(get_args(GateStrategy))}")
        if not (math.isfinite(self.tau) and self.tau >= 0):
            raise ValueError(
                f"tau {self.tau} is not a finite number of at least 0: use the paper's 0.2, or the strategy "
                "`always` or `never` to ignore the gap"
            )

    def cognizant(self, gap: float) -> bool:
        """Whether a student with this gap is cognizant."""
        return gap <= self.tau + _TOLERANCE

    def decide(self, scores: Scores) -> dict[str, frozenset[str]]:
        """For every student the domains on whose questions it may tutor this round: all, some or none.

        Args:
            scores: The students' validation scores, see `cognizance_gaps`.

        Raises:
            ValueError: See `cognizance_gaps`.
        """
        gaps = cognizance_gaps(scores)
        return {student: self._domains(student, gaps[student], scores) for student in scores}

    def tutors(self, tutee: str, scores: Scores) -> dict[str, frozenset[str]]:
        """The tutee's peers, and the domains on whose questions each may tutor this round.

        Those that may tutor come first, and of these the ones with smaller gaps; of equal gaps those that stand first
        in `scores`.

        Args:
            tutee: Who learns.
            scores: The students' validation scores, see `cognizance_gaps`.

        Raises:
            ValueError: See `cognizance_gaps`.
        """
        gaps, decided = cognizance_gaps(scores), self.decide(scores)
        ranks = {student: (not decided[student], round(gap / _TOLERANCE)) for student, gap in gaps.items()}
        return {peer: decided[peer] for peer in sorted(scores, key=ranks.__getitem__) if peer != tutee}

    def _domains(self, student: str, gap: float, scores: Scores) -> frozenset[str]:
        everything: frozenset[str] = frozenset(scores[student])
        if self.strategy == "always" or (self.strategy != "never" and self.cognizant(gap)):
            return everything
        if self.strategy != "domain-selective":
            return frozenset()
        peers = [domains for peer, domains in scores.items() if peer != student]
        return frozenset(
            domain
            for domain in everything
            if all(scores[student][domain] > peer[domain] + _TOLERANCE for peer in peers)
        )


def cognizance_gaps(scores: Scores) -> dict[str, float]:
    """Delta_i = sum over domains of (best_d - score_i_d) / best_d, where best_d is the best student's score.

    A domain in which nobody scores adds 0.

    Args:
        scores: {student: {domain: score}}; scores are at least 0, all shares or all percentages.

    Raises:
        ValueError: If the students were not scored on the same domains, or a score is negative or not finite.
    """
    domains = _checked_domains(scores)
    best = {domain: max(of[domain] for of in scores.values()) for domain in domains}
    return {student: sum((best[d] - of[d]) / best[d] for d in domains if best[d] > 0) for student, of in scores.items()}


def _checked_domains(scores: Scores) -> list[str]:
    domains = sorted({domain for of in scores.values() for domain in of})
    faults = []
    for student, of in scores.items():
        if missing := [domain for domain in domains if domain not in of]:
            faults.append(f"{student!r} has no score on {', '.join(missing)}")
        if bad := [f"{domain} {of[domain]}" for domain in of if not 0 <= of[domain] < math.inf]:
            faults.append(f"{student!r} has a score that is negative or not finite: {', '.join(bad)}")
    if faults:
        raise ValueError("; ".join(faults) + ": score every student on the same validation questions")
    return domains
