"""WordNet's glosses: text for training a language model, and three tasks on it.

The synsets are split once for all tasks, so that no task trains on a gloss that another
task is tested on.
"""

import functools
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_lottery.data.splits import Arrays, Size, Splits

FOLDER = Path("/usr/share/wordnet")
"""Where Debian's `wordnet-base` has it."""
VARIABLE = "WNSEARCHDIR"
"""WordNet's own environment variable for another folder."""

LENGTH = 32
"""Words of an example."""
VOCABULARY = 8192
MASKED = 5
"""Words of an example that the language model has to find: 16 %."""
PAD, START, SEPARATOR, MASK, UNKNOWN = range(5)
SPECIAL = 5
MOST = 3000
"""Examples to validate and to test on; more would take longer than the training."""

PARTS = ("train", "validation", "test")
NOUN_CLASSES = range(3, 29)
"""The lexicographers' files of nouns, as WordNet numbers them."""
PARTS_OF_SPEECH = "nvar"
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|[0-9]+")


@dataclass(frozen=True)
class Synset:
    """A meaning, its definition, and the meanings that it is a kind of.

    Args:
        offset: its number in the file, by which others refer to it.
        file: the number of its lexicographers' file.
        kind: `"n"`, `"v"`, `"a"` (adjective) or `"r"` (adverb).
        parents: numbers of the synsets that it is a kind or an instance of.
        words: the words of the gloss.
    """

    offset: int
    file: int
    kind: str
    parents: tuple[int, ...]
    words: tuple[str, ...]


def folder() -> Path:
    """The folder of WordNet.

    Raises:
        FileNotFoundError: if there is none; the message says how to get it.
    """
    found = Path(os.environ.get(VARIABLE) or FOLDER)
    if not (found / "data.noun").is_file():
        raise FileNotFoundError(
            f"Expected WordNet's database, with a file data.noun, in '{found}'. On "
            "Debian and Ubuntu, `apt-get install wordnet-base` brings it; elsewhere "
            "unpack the database files from https://wordnet.princeton.edu and name "
            f"their folder in the environment variable {VARIABLE}."
        )
    return found


def read_synset(line: str) -> Synset:
    """Reads a synset from a line of a data file, in the format of wndb(5WN).

    >>> read_synset("00001930 03 n 01 physical_entity 0 002 @ 00001740 n 0000 "
    ...             "~ 00002452 n 0000 | an entity that has physical existence")
    Synset(offset=1930, file=3, kind='n', parents=(1740,), words=('an', 'entity', 'that', 'has', 'physical', 'existence'))
    """  # noqa: E501
    fields, _, gloss = line.partition("|")
    offset, file, kind, count, *rest = fields.split()
    # Words of the synset, with a number each; their count is hexadecimal.
    rest = rest[2 * int(count, 16) :]
    pointers = [rest[1 + 4 * i : 5 + 4 * i] for i in range(int(rest[0]))]
    return Synset(
        int(offset),
        int(file),
        kind.replace("s", "a"),  # A satellite is an adjective.
        tuple(int(to) for symbol, to, _, _ in pointers if symbol in ("@", "@i")),
        tuple(_WORD.findall(gloss.lower())),
    )


@functools.lru_cache(1)
def read_parts(place: Path) -> dict[str, list[Synset]]:
    """The synsets in a folder, split into training, validation and test.

    Raises:
        ValueError: if a file is not in WordNet's format.
    """
    synsets = []
    for name in ("noun", "verb", "adj", "adv"):
        path = place / f"data.{name}"
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.startswith("  "):
                    continue  # the licence
                try:
                    synsets.append(read_synset(line))
                except (ValueError, IndexError) as error:
                    raise ValueError(
                        f"Expected a synset in the format of WordNet's wndb(5WN) in "
                        f"'{path}', line {number}. Received: {line[:80]!r}"
                    ) from error
    order = np.random.default_rng(0).permutation(len(synsets))
    tenth = len(order) // 10
    bounds = {"test": (0, tenth), "validation": (tenth, 2 * tenth)}
    bounds["train"] = (2 * tenth, len(order))
    return {p: [synsets[i] for i in order[slice(*bounds[p])]] for p in PARTS}


def vocabulary(synsets: Sequence[Synset]) -> dict[str, int]:
    """The numbers of the most frequent words, which follow those of special words."""
    counts = Counter(word for synset in synsets for word in synset.words)
    # Equally frequent words are in alphabetical order, whatever the input's.
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return {word: SPECIAL + i for i, word in enumerate(ranked[: VOCABULARY - SPECIAL])}


def encode(texts: Sequence[Sequence[str]], numbers: dict[str, int]) -> np.ndarray:
    """The row of an example: its texts, cut to equal lengths, with separators.

    >>> encode([["a", "cat"], ["b"]], {"a": 5, "cat": 6})[:7]
    array([1, 5, 6, 2, 4, 0, 0], dtype=int32)
    """
    row = [START]
    room = LENGTH // len(texts) - 1
    for text in texts:
        row += [numbers.get(word, UNKNOWN) for word in text[:room]] + [SEPARATOR]
    row.pop()  # the last separator
    return np.array(row + [PAD] * (LENGTH - len(row)), "int32")


def mask_words(
    rows: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Masks words of each row; returns the rows, and the words in order of position.

    Rows with fewer words are left out. All chosen words are replaced by the mask:
    Wettig et al. 2023 ("Should you mask 15 % in masked language modeling?") find no
    advantage in BERT's 80-10-10 rule.

    Args:
        rows: word indices, of shape (examples, length).
        count: how many words to mask in each row.
        rng: chooses the words.
    """
    is_word = rows >= SPECIAL
    rows, is_word = (array[is_word.sum(axis=1) >= count] for array in (rows, is_word))
    drawn = np.where(is_word, rng.random(rows.shape), 2)
    chosen = np.sort(np.argsort(drawn, axis=1)[:, :count], axis=1)
    words = np.take_along_axis(rows, chosen, axis=1)
    hidden = rows.copy()
    np.put_along_axis(hidden, chosen, MASK, axis=1)
    return hidden, words


def _language(part: list[Synset], numbers: dict[str, int], is_train: bool) -> Arrays:
    """Texts of whole glosses, one after another, with masked words."""
    stream: list[int] = []
    for synset in part:
        stream += [numbers.get(word, UNKNOWN) for word in synset.words] + [SEPARATOR]
    room = LENGTH - 1
    whole = len(stream) // room * room
    rows = np.array(stream[:whole], "int32").reshape(-1, room)
    rows = np.pad(rows, ((0, 0), (1, 0)), constant_values=START)
    # Each training text has several masked copies, as in BERT.
    rng = np.random.default_rng(0)
    return mask_words(np.repeat(rows, 4 if is_train else 1, axis=0), MASKED, rng)


def _noun_class(part: list[Synset], numbers: dict[str, int], _: bool) -> Arrays:
    """Which of WordNet's 26 files of nouns a gloss is from."""
    nouns = [synset for synset in part if synset.kind == "n"]
    rows = [encode([noun.words], numbers) for noun in nouns]
    return np.array(rows), np.array([noun.file - NOUN_CLASSES[0] for noun in nouns])


def _part_of_speech(part: list[Synset], numbers: dict[str, int], _: bool) -> Arrays:
    """Whether a gloss describes a noun, a verb, an adjective or an adverb."""
    rows = [encode([synset.words], numbers) for synset in part]
    return np.array(rows), np.array([PARTS_OF_SPEECH.index(s.kind) for s in part])


def _is_a(part: list[Synset], numbers: dict[str, int], _: bool) -> Arrays:
    """Whether the first gloss describes a kind of the second, in half of the examples.

    The second is the nearest ancestor in the same part, or an ancestor of another
    gloss, so that the second gloss alone tells nothing.
    """
    nouns = {synset.offset: synset for synset in part if synset.kind == "n"}
    every = _nouns(folder())
    pairs = []
    for noun in nouns.values():
        if found := next((a for a in _ancestors(noun, every) if a in nouns), None):
            pairs.append((noun, nouns[found]))
    rng = np.random.default_rng(0)
    rows, labels = [], []
    others = rng.permutation(len(pairs))
    for (noun, parent), place in zip(pairs, others, strict=True):
        other = pairs[place][1]
        if other is noun or other.offset in set(_ancestors(noun, every)):
            continue
        for second, label in ((parent, 1), (other, 0)):
            rows.append(encode([noun.words, second.words], numbers))
            labels.append(label)
    order = rng.permutation(len(rows))
    return np.array(rows)[order], np.array(labels)[order]


@functools.lru_cache(1)
def _nouns(place: Path) -> dict[int, Synset]:
    parts = read_parts(place).values()
    return {s.offset: s for part in parts for s in part if s.kind == "n"}


def _ancestors(noun: Synset, every: dict[int, Synset]) -> Iterator[int]:
    """The numbers of a noun's ancestors, the nearest first."""
    seen: set[int] = set()
    level = list(noun.parents)
    while level:
        new = [number for number in dict.fromkeys(level) if number not in seen]
        yield from new
        seen.update(new)
        known = [every[number] for number in new if number in every]
        level = [number for noun in known for number in noun.parents]


TASKS = {
    "wordnet_mlm": (_language, VOCABULARY),
    "wordnet_noun_class": (_noun_class, len(NOUN_CLASSES)),
    "wordnet_part_of_speech": (_part_of_speech, len(PARTS_OF_SPEECH)),
    "wordnet_is_a": (_is_a, 2),
}
"""What makes the examples of a part, and the number of classes, by name."""


def load_wordnet(name: str, validation: Size | None) -> Splits:
    """Loads a task on WordNet's glosses, see `data.load`."""
    if validation is not None:
        raise ValueError(
            f"Expected validation=None, as the data set {name!r} has a validation part "
            f"of its own. Received: validation={validation}. Leave it out."
        )
    make, classes = TASKS[name]
    parts = read_parts(folder())
    numbers = vocabulary(parts["train"])
    arrays: dict[str, np.ndarray] = {}
    for part in PARTS:
        x, y = make(parts[part], numbers, part == "train")
        some = slice(None if part == "train" else MOST)
        arrays |= {f"x_{part}": x[some], f"y_{part}": y[some].astype("int32")}
    return Splits(name=name, input_shape=(LENGTH,), classes=classes, **arrays)
