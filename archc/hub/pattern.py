"""A key of config.json that lists the kind of every layer, or says it in one letter each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from archc.hub.rules import Facts
from archc.hub.table import rows

Problem = tuple[str, str]  # key, why


@dataclass(frozen=True)
class Pattern:
    """`key` lists the layers in the words of their config; `letters` is an older key with a letter for each.

    `words` are theirs and ours; of several for the same the first is written. A word of ours in braces stands for the
    value of that fact. `again` is a key that repeats where the layers of the last word are, by index. `absent` is the
    list of a file without any.
    """

    key: str
    words: Mapping[str, str]
    letters: str
    alphabet: Mapping[str, str]
    again: str
    absent: Callable[[Facts], list[str]] | None

    @property
    def names(self) -> tuple[str, ...]:
        """All keys that it reads."""
        return tuple(filter(None, (self.key, self.letters, self.again)))

    def ours(self, word: str, facts: Facts) -> str:
        """What a word of theirs is for us."""
        ours = self.words[word]
        return str(facts.get(ours[1:-1])) if ours.startswith("{") else ours

    def written(self, facts: Facts) -> list[str]:
        """The layers of `facts` in their words."""
        theirs = {self.ours(word, facts): word for word in reversed(list(self.words))}
        layers = facts["layers"]
        assert isinstance(layers, tuple)
        return [theirs[word] for word in layers]

    def problems(self, said: Mapping[str, object]) -> Iterator[Problem]:
        """Why what a file says is no list of layers here."""
        listed, letters = said.get(self.key), said.get(self.letters)
        if listed is not None and not (isinstance(listed, list) and listed):
            yield self.key, f"{listed!r:.60} is not a list of layers"
            return
        if letters is not None and not (isinstance(letters, str) and letters):
            yield self.letters, f"{letters!r:.60} is not a text with a letter for each layer"
            return
        if listed is None and letters is None and self.absent is None:
            yield self.key, "it is missing, and what transformers puts for it has layers that are not supported"
            return
        strange = False
        for key, layers, known in ((self.key, listed, self.words), (self.letters, letters, self.alphabet)):
            words = dict.fromkeys(str(word) for word in layers or () if not isinstance(word, str) or word not in known)
            if words:
                strange = True
                yield key, f"{', '.join(words)} is not supported, only {', '.join(known)}"
        if strange or listed is None or letters is None:
            return
        if [self.words[self.alphabet[letter]] for letter in letters] != [self.words[word] for word in listed]:
            yield self.letters, f"{letters!r:.60}, but {self.key} lists other layers"

    def read(self, said: Mapping[str, object], facts: Facts) -> tuple[str, ...]:
        """The word of ours for each layer, of keys without problems."""
        listed, letters = said.get(self.key), said.get(self.letters)
        if isinstance(listed, list):
            layers = listed
        elif isinstance(letters, str):
            layers = [self.alphabet[letter] for letter in letters]
        else:
            assert self.absent is not None
            layers = self.absent(facts)
        return tuple(self.ours(word, facts) for word in layers)

    def misplaced(self, said: Mapping[str, object], layers: tuple[str, ...]) -> Problem | None:
        """The problem that `again` says something else than the list."""
        last = list(self.words.values())[-1]
        places = [i for i, word in enumerate(layers) if word == last]
        value = said.get(self.again)
        return (
            None if value is None or value == places else (self.again, f"{value!r:.60}, but {self.key} says {places}")
        )


def pattern(
    key: str, words: str, *, letters: str = "", again: str = "", absent: Callable[[Facts], list[str]] | None = None
) -> Pattern:
    """A pattern from its table: their word, ours, the letter."""
    table = list(rows(words, 3))
    alphabet = {letter: theirs for theirs, _, letter in table if letter}
    return Pattern(key, {theirs: ours for theirs, ours, _ in table}, letters, alphabet, again, absent)
