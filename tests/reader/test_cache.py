"""Answers that are kept: what is the same question, and which ones go first."""

from __future__ import annotations

import threading

import pytest

from reader.cache import Answers, asked
from reader.schema import Answer, Turn


def answer(text: str) -> Answer:
    return Answer(text, False, None, (), (), "", (), "")


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ((" Who\n pays\t", {"kind": ["pdf", "md"]}, [Turn("a", "b")]), True),
        (("Who pays", {"kind": ["md", "pdf", "md"]}, (Turn("a", "b"),)), True),
        (("Who pays?", {"kind": ["pdf", "md"]}, [Turn("a", "b")]), False),
        (("who pays", {"kind": ["pdf", "md"]}, [Turn("a", "b")]), False),
        (("Who pays", {"kind": ["pdf"]}, [Turn("a", "b")]), False),
        (("Who pays", {"kind": ["pdf"], "folder": ["md"]}, [Turn("a", "b")]), False),
        (("Who pays", None, [Turn("a", "b")]), False),
        (("Who pays", {"kind": ["pdf", "md"]}, []), False),
        (("Who pays", {"kind": ["pdf", "md"]}, [Turn("a", "c")]), False),
        (("Who pays", {"kind": ["pdf", "md"]}, [Turn("a", "b"), Turn("a", "b")]), False),
    ],
)
def test_what_is_the_same_question(other: tuple[str, dict[str, list[str]] | None, list[Turn]], same: bool) -> None:
    assert (asked("Who pays", {"kind": ["pdf", "md"]}, [Turn("a", "b")]) == asked(*other)) == same


def test_a_key_and_its_value_are_not_mixed_up() -> None:
    assert asked("q", {"a": ["b", "c"]}, ()) != asked("q", {"a": ["b"], "c": []}, ())


def test_the_one_that_nobody_asked_for_the_longest_goes() -> None:
    answers = Answers(2)
    answers.keep("a", answer("1"))
    answers.keep("b", answer("2"))
    assert answers.get("a") == answer("1")
    answers.keep("c", answer("3"))
    assert [answers.get(key) for key in "abc"] == [answer("1"), None, answer("3")]
    answers.keep("a", answer("new"))
    assert answers.get("a") == answer("new")


def test_none_is_kept_if_so_set() -> None:
    answers = Answers(0)
    answers.keep("a", answer("1"))
    assert answers.get("a") is None


def test_many_threads_at_once() -> None:
    answers = Answers(5)
    failed = []

    def work(seed: int) -> None:
        for number in range(2000):
            key = str((seed + number) % 9)
            kept = answers.get(key)
            if kept and kept.answer != key:
                failed.append(key)
            answers.keep(key, answer(key))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert sum(answers.get(str(key)) is not None for key in range(9)) == 5
