"""Rounds in which everybody takes a turn: A B C, B C A, C A B, ...

A machine's speed changes while it is measured: clocks, neighbours, temperature.  Turns a fraction
of a second apart meet the same machine, so the ratios of one round hold even when its times do not.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Optional, Protocol

from peers.process import Gone

TURN = 0.1  # seconds that a turn should last at least
SHORT = 0.05  # runs shorter than this are preceded by one that is not timed
SLOW = 1.0  # whoever needs longer for a run plays only the first FEW rounds
FEW = 3
MOST = 64  # runs in a turn


class Player(Protocol):
    """Somebody who can be told to run."""

    def turn(self, warm: int, repeat: int) -> list[float]:
        """Seconds of `repeat` runs, after `warm` untimed ones.  Raises Gone."""


@dataclass(frozen=True)
class Turn:
    """What a turn consists of."""

    warm: int
    repeat: int
    rounds: int


def turn_for(seconds: float, rounds: int) -> Turn:
    """For a library whose run takes about `seconds`."""
    repeat = min(MOST, max(1, round(TURN / max(seconds, 1e-9))))
    return Turn(1 if seconds < SHORT else 0, repeat, min(rounds, FEW) if seconds > SLOW else rounds)


@dataclass
class Played:
    """The sample of each round, the median of its turn's runs; None where a player did not play.
    `gone` says who left on the way, and why."""

    samples: dict[str, list[Optional[float]]]
    gone: dict[str, str]


def play(
    players: Mapping[str, tuple[Player, float]], rounds: int, pause: float = 0.0
) -> Played:
    """All rounds.  `players` has each one's handle and the seconds of a run that was tried;
    `pause` is waited after every turn."""
    turns = {name: turn_for(seconds, rounds) for name, (_, seconds) in players.items()}
    played = Played({name: [] for name in players}, {})
    names = list(players)
    for number in range(rounds):
        first = number % len(names) if names else 0
        for name in names[first:] + names[:first]:
            plan = turns[name]
            sample = None
            if name not in played.gone and number < plan.rounds:
                try:
                    sample = median(players[name][0].turn(plan.warm, plan.repeat))
                except Gone as reason:
                    played.gone[name] = str(reason)
                time.sleep(pause)
            played.samples[name].append(sample)
    return played
