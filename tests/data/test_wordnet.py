"""WordNet's glosses, by a database of our own in its format."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_lottery import data
from keras_lottery.data import wordnet

pytestmark = pytest.mark.once

NOUNS, OTHERS = 200, 40
LICENCE = "  1 A licence, which lines like this one have.  \n"


def line(offset, file, kind, parents, gloss):
    """A synset of two words, its pointers, and for verbs a frame."""
    pointers = "".join(f" @ {parent:08d} n 0000" for parent in parents)
    pointers += f" ~ {offset + 1:08d} n 0000"
    frames = " 01 + 08 00" if kind == "v" else ""
    head = f"{offset:08d} {file:02d} {kind} 02 word 0 other_word 1"
    return f"{head} {len(parents) + 1:03d}{pointers}{frames} | {gloss}  \n"


def write(folder):
    """A tree of nouns, in which each is a kind of the one of half its number."""
    rng = np.random.default_rng(0)
    words = [f"w{chr(97 + i)}{chr(97 + j)}" for i in range(5) for j in range(5)]

    def gloss():
        return ", ".join(rng.choice(words, 12)) + '; "an EXAMPLE"'

    nouns = [
        line(i, 3 + i % 26, "n", [i // 2] if i > 1 else [], gloss())
        for i in range(1, NOUNS)
    ]
    (folder / "data.noun").write_text(LICENCE + "".join(nouns))
    for name, kind, file in (("verb", "v", 29), ("adj", "s", 0), ("adv", "r", 2)):
        lines = [line(i, file, kind, [], gloss()) for i in range(OTHERS)]
        (folder / f"data.{name}").write_text(LICENCE + "".join(lines))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("wordnet"))


@pytest.fixture(autouse=True)
def installed(folder, monkeypatch):
    monkeypatch.setenv(wordnet.VARIABLE, str(folder))


def load(task):
    return data.load(f"wordnet_{task}")


def test_synsets_are_split_once_and_none_is_lost(folder):
    parts = wordnet.read_parts(folder)
    total = NOUNS - 1 + 3 * OTHERS
    assert [len(parts[p]) for p in ("validation", "test")] == [total // 10] * 2
    every = [(s.kind, s.offset) for part in parts.values() for s in part]
    assert len(every) == len(set(every)) == total
    assert {kind for kind, _ in every} == set("nvar")
    assert all(len(s.words) == 14 for part in parts.values() for s in part)


@pytest.mark.parametrize(
    ("task", "classes", "labels"),
    [
        ("mlm", 8192, (5,)),
        ("noun_class", 26, ()),
        ("part_of_speech", 4, ()),
        ("is_a", 2, ()),
    ],
)
def test_tasks_have_texts_of_one_length(task, classes, labels):
    splits = load(task)
    assert splits.input_shape == (32,) and splits.classes == classes
    for part in ("train", "validation", "test"):
        x, y = getattr(splits, part)
        assert x.shape[1:] == (32,) and y.shape[1:] == labels and len(x) == len(y) > 0
        assert x.dtype == y.dtype == "int32"
        assert (x[:, 0] == wordnet.START).all()
        assert x.min() >= 0 and x.max() < 8192
        assert y.min() >= 0 and y.max() < classes
    np.testing.assert_array_equal(splits.x_train, load(task).x_train)


def test_masked_words_are_the_labels():
    splits = load("mlm")
    assert ((splits.x_train == wordnet.MASK).sum(axis=1) == wordnet.MASKED).all()
    # Of a text, there are several masks: put back, it is the same one.
    texts = splits.x_train.copy()
    texts[texts == wordnet.MASK] = splits.y_train.ravel()
    np.testing.assert_array_equal(texts[::4], texts[1::4])
    assert (splits.x_train[::4] != splits.x_train[1::4]).any()


def test_pairs_are_balanced_and_the_second_alone_tells_nothing(folder):
    splits = load("is_a")
    assert splits.y_train.mean() == 0.5
    parts = wordnet.read_parts(folder)
    numbers = wordnet.vocabulary(parts["train"])
    by_words = {}
    for noun in (s for part in parts.values() for s in part if s.kind == "n"):
        by_words[tuple(wordnet.encode([noun.words, []], numbers)[1:16])] = noun.offset
    counts = {}
    for row, label in zip(splits.x_train, splits.y_train, strict=True):
        second = next(i for i, word in enumerate(row) if word == wordnet.SEPARATOR)
        text = [*row[second + 1 :], *[0] * 15][:15]
        one = by_words[tuple([*row[1:second], wordnet.SEPARATOR, *[0] * 15][:15])]
        two = by_words[tuple([*text[:14], wordnet.SEPARATOR])]
        ancestors = set()
        while one > 1:
            one //= 2
            ancestors.add(one)
        assert (two in ancestors) == bool(label)
        counts.setdefault(two, [0, 0])[label] += 1
    assert sum(no for no, _ in counts.values()) == sum(
        yes for _, yes in counts.values()
    )


@given(count=st.integers(1, 4), seed=st.integers(0, 99))
def test_words_alone_are_masked(count, seed):
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 9, (20, 8))
    hidden, words = wordnet.mask_words(rows, count, rng)
    kept = rows[(rows >= wordnet.SPECIAL).sum(axis=1) >= count]
    assert hidden.shape == kept.shape and words.shape == (len(kept), count)
    assert (words >= wordnet.SPECIAL).all()
    places = (hidden == wordnet.MASK) & (kept != wordnet.MASK)
    assert (places.sum(axis=1) == count).all()
    np.testing.assert_array_equal(kept[places].reshape(-1, count), words)
    np.testing.assert_array_equal(hidden[~places], kept[~places])


def test_frequent_words_come_first_and_the_alphabet_decides():
    synsets = [
        wordnet.Synset(i, 3, "n", (), tuple(words))
        for i, words in enumerate([["b", "a"], ["c", "b"]])
    ]
    assert wordnet.vocabulary(synsets) == {"b": 5, "a": 6, "c": 7}


def test_what_is_missing_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv(wordnet.VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match="apt-get install wordnet-base"):
        load("mlm")


def test_a_line_of_another_format_is_named(tmp_path, monkeypatch):
    write(tmp_path)
    (tmp_path / "data.verb").write_text("00000001 29 v zz word\n")
    monkeypatch.setenv(wordnet.VARIABLE, str(tmp_path))
    with pytest.raises(ValueError, match=r"data.verb', line 1\. Received: '00000001"):
        load("mlm")


def test_the_validation_part_is_its_own():
    with pytest.raises(ValueError, match="validation=10"):
        data.load("wordnet_is_a", validation=10)
