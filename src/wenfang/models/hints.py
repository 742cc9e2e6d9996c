"""Channels that are learned from the training set: its lexicon, its topics, clusters of its forms; and word lists that are given.

Which of them exist follows from the templates that read them. Needs numpy only. Knows nothing of weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .clusters import Clusters
from .features import U64
from .lexicon import Lexicon, Terms, listed
from .places import Places, Unit
from .topics import Topics

__all__ = ["FORMAT", "Hints"]

FORMAT: dict[str, tuple[Any, int]] = {
    "lexicon_keys": (np.uint64, 1),
    "lexicon_kinds": (np.int64, 1),
    "lexicon_heads": (np.uint64, 1),
    "words_keys": (np.uint64, 1),
    "words_kinds": (np.int64, 1),
    "words_heads": (np.uint64, 1),
    "cluster_forms": (np.uint64, 1),
    "cluster_groups": (np.int64, 2),
    "topic_keys": (np.uint64, 1),
    "topic_table": (np.float32, 2),
}
"""Arrays a bundle holds, each with its type and number of dimensions."""

_NONE = np.zeros(0, np.uint64)


class Hints:
    """What learned channels say of places.

    Args:
        wanted: names of the channels that templates read.
        lexicon: terms of the training set.
        words: terms of the given lists.
        clusters: of forms.
        topics: of texts.
    """

    def __init__(self, wanted: Iterable[str], lexicon: Lexicon, words: Lexicon, clusters: Clusters, topics: Topics) -> None:
        self.wanted = frozenset(wanted)
        self.lexicon, self.words, self.clusters, self.topics = lexicon, words, clusters, topics

    @classmethod
    def learn(cls, wanted: Iterable[str], places: Places, terms: Terms, *, labels: int, lists: Sequence[Sequence[str]], seed: int) -> tuple[Hints, dict[str, U64]]:
        """Learn what ``wanted`` needs.

        Args:
            wanted: names of channels.
            places: of the training texts.
            terms: the spans of the training texts, by number of their label.
            labels: how many labels there are.
            lists: words of each given list.
            seed: of the clusters.

        Returns:
            The hints, and their channels for the training texts, in which no text reads what it taught itself.
        """
        wanted = frozenset(wanted)
        hints = cls(
            wanted,
            Lexicon(_NONE, _NONE.astype(np.int64), _NONE),
            _given(lists, places.unit),
            Clusters(_NONE, np.zeros((0, 2), np.int64)),
            Topics(_NONE, np.zeros((1, 1), np.float32)),
        )
        read: dict[str, U64] = {}
        if "lexicon" in wanted:
            hints.lexicon, read["lexicon"] = Lexicon.harvest(places, terms)
        if wanted & {"topic", "topics"}:
            present = np.zeros((len(places.starts) - 1, labels), np.bool_)
            present[np.searchsorted(places.starts, terms.at, "right") - 1, terms.kind] = True
            hints.topics, topics = Topics.learn(places, present)
            read |= topics
        if wanted & {"cluster", "fine"}:
            hints.clusters = Clusters.learn(places, seed)
        return hints, hints._free(places) | read

    def channels(self, places: Places) -> dict[str, U64]:
        """Every learned channel that is read, for new texts."""
        read = self._free(places)
        if "lexicon" in self.wanted:
            read["lexicon"] = self.lexicon.channel(places)
        if self.wanted & {"topic", "topics"}:
            read |= self.topics.channels(places)
        return read

    def _free(self, places: Places) -> dict[str, U64]:
        """Channels that owe nothing to labels."""
        read: dict[str, U64] = self.clusters.channels(places) if self.wanted & {"cluster", "fine"} else {}
        if "words" in self.wanted:
            read["words"] = self.words.channel(places)
        return read

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What ``restore`` needs."""
        return {
            "lexicon_keys": self.lexicon.keys,
            "lexicon_kinds": self.lexicon.kinds,
            "lexicon_heads": self.lexicon.heads,
            "words_keys": self.words.keys,
            "words_kinds": self.words.kinds,
            "words_heads": self.words.heads,
            "cluster_forms": self.clusters.forms,
            "cluster_groups": self.clusters.groups,
            "topic_keys": self.topics.keys,
            "topic_table": self.topics.table,
        }

    @classmethod
    def restore(cls, wanted: Iterable[str], a: Mapping[str, npt.NDArray[Any]]) -> Hints | None:
        """The hints that ``arrays`` came from; None where their shapes do not fit."""
        fits = (
            len(a["lexicon_keys"]) == len(a["lexicon_kinds"])
            and len(a["words_keys"]) == len(a["words_kinds"])
            and a["cluster_groups"].shape == (len(a["cluster_forms"]), 2)
            and len(a["topic_table"]) == len(a["topic_keys"]) + 1
            and a["topic_table"].shape[1] > 0
        )
        if not fits:
            return None
        lexicon, words = (Lexicon(a[f"{n}_keys"], a[f"{n}_kinds"], a[f"{n}_heads"]) for n in ("lexicon", "words"))
        return cls(wanted, lexicon, words, Clusters(a["cluster_forms"], a["cluster_groups"]), Topics(a["topic_keys"], a["topic_table"]))


def _given(lists: Sequence[Sequence[str]], unit: Unit) -> Lexicon:
    places, terms = listed(lists, unit)
    return Lexicon.harvest(places, terms)[0]
