"""Mining: which pairs and triplets inside a batch count.

Masks and groups of a batch's labels, and the miners that `tfdml.losses.TripletLoss(mining=...)` takes by name or as objects.
"""

from __future__ import annotations

from typing import Any

from tfdml._checks import check_choice
from tfdml.mining.all_triplets import All
from tfdml.mining.base import PerAnchorMiner, TripletChoice, TripletMiner, TripletSums
from tfdml.mining.distance_weighted import DistanceWeighted
from tfdml.mining.hard import Hard
from tfdml.mining.masks import ClassGroups, negative_mask, positive_mask, same_class_mask
from tfdml.mining.pairs import Pairs
from tfdml.mining.random_negative import RandomNegative
from tfdml.mining.semi_hard import SemiHard

__all__ = [
    "TRIPLET_MINERS",
    "All",
    "ClassGroups",
    "DistanceWeighted",
    "Hard",
    "Pairs",
    "PerAnchorMiner",
    "RandomNegative",
    "SemiHard",
    "TripletChoice",
    "TripletMiner",
    "TripletSums",
    "miner_name",
    "negative_mask",
    "positive_mask",
    "same_class_mask",
    "triplet_miner",
]

TRIPLET_MINERS: dict[str, type[TripletMiner]] = {
    "semi_hard": SemiHard,
    "hard": Hard,
    "all": All,
    "random": RandomNegative,
    "distance_weighted": DistanceWeighted,
}


def triplet_miner(mining: Any) -> TripletMiner:
    """The miner that a name stands for; a miner is returned as it is.

    Raises:
        ValueError: an unknown name.
        TypeError: neither a name nor a miner.

    >>> triplet_miner("semi_hard")
    SemiHard(fallback='farthest')
    """
    if isinstance(mining, TripletMiner):
        return mining
    if isinstance(mining, str):
        return TRIPLET_MINERS[check_choice("mining", mining, TRIPLET_MINERS)]()
    raise TypeError(
        f"mining={mining!r}: expected one of {', '.join(map(repr, TRIPLET_MINERS))} or a TripletMiner, "
        "for example tfdml.mining.SemiHard(fallback='none')."
    )


def miner_name(miner: TripletMiner) -> str | None:
    """The name that stands for a miner; None for one that has options of its own.

    >>> miner_name(SemiHard()), miner_name(SemiHard(fallback="none"))
    ('semi_hard', None)
    """
    for name, known in TRIPLET_MINERS.items():
        if type(miner) is known and miner.get_config() == known().get_config():
            return name
    return None
