"""Where questions come from: generated science, SciKnowEval, or a user's own JSONL files."""

from __future__ import annotations

import random
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from opcod.data.jsonl import read_questions
from opcod.data.questions import Question, QuestionError, check_unique_ids, content_key
from opcod.data.science import DOMAINS, Attempted, WorkedQuestion, generate
from opcod.data.sciknoweval import load_sciknoweval
from opcod.data.splits import assert_disjoint, drop_leaks, hold_out

_HELD_OUT = 0
"""Seed of what is held out of files, whatever a run's own: its specialists may have been made with another one."""


@dataclass(frozen=True)
class Splits:
    """Questions that never share content across splits, each with an id of its own, by which all is drawn.

    Args:
        train: What students are trained on.
        validation: What the gate's scores are measured on.
        test: What is reported.
        development: What settings are chosen by; none where nobody asked for any.
    """

    train: list[Question]
    validation: list[Question]
    test: list[Question]
    development: list[Question] = field(default_factory=list)

    def __post_init__(self) -> None:
        for questions in (self.train, self.validation, self.test, self.development):
            check_unique_ids(questions)
        assert_disjoint(train=self.train, validation=self.validation, test=self.test, development=self.development)


class QuestionSource(ABC):
    """A source of questions of some domains."""

    domains: list[str]

    @abstractmethod
    def splits(self, *, validation: int, test: int | None, seed: int, development: int = 0) -> Splits:
        """The questions.

        Args:
            validation: Validation questions a domain.
            test: Test questions a domain; None takes all there are.
            seed: Of what is drawn. What is held out of files is the same whatever the seed.
            development: Development questions a domain.

        Raises:
            QuestionError: If a file is faulty, or a domain has too few questions.
        """

    def worked(
        self,
        domain: str,
        count: int,
        *,
        seed: int,
        families: Collection[str] | None = None,
        without: Collection[str] = (),
        held_out: int = 0,
        solutions: str | None = None,
    ) -> list[WorkedQuestion]:
        """Training questions of `domain` with worked solutions.

        Args:
            domain: One of the source's.
            count: At most so many.
            seed: Of what is drawn.
            families: Only questions of these families.
            without: And none of these.
            held_out: Validation questions a domain, which are none of them.
            solutions: File that `opcod solve` wrote; by default the solutions are the questions' own.

        Raises:
            QuestionError: If none has a solution, or the file is faulty.
        """
        train = self.to_solve(domain, seed=seed, held_out=held_out)
        if solutions is not None:
            train = with_solutions(train, Path(solutions))
        known = [q for q in train if families is None or q.family in families]
        solved = [q for q in known if q.solution is not None and q.family not in without]
        if not solved:
            raise QuestionError(
                f"no {domain} question has a worked solution to learn from; give training questions a `solution` "
                "in the response format, or let `opcod solve` find some"
            )
        return [WorkedQuestion(q, Attempted(q.solution or "", "")) for q in solved[:count]]

    def to_solve(self, domain: str, *, seed: int, held_out: int) -> list[Question]:
        """All training questions of `domain`."""
        train = self.splits(validation=held_out, test=1, seed=seed).train
        return [q for q in train if q.domain == domain]


def with_solutions(questions: Sequence[Question], path: Path) -> list[Question]:
    """The questions, with the worked solutions that stand in a file under their ids in place of their own.

    What the file holds of other questions is passed over: those may be held out.

    Raises:
        QuestionError: If the file is faulty, or an id is another question's there.
    """
    written = {q.id: q for q in read_questions(path)}
    taken = []
    for question in questions:
        other = written.get(question.id)
        if other is not None and content_key(other) != content_key(question):
            raise QuestionError(
                f"{path}: {question.id!r} is another question than the source's: it was written for other questions "
                "or another seed; solve these anew"
            )
        taken.append(replace(question, solution=None if other is None else other.solution))
    return taken


class GeneratedScience(QuestionSource):
    """Generated science questions from real constants; nothing to download.

    Args:
        domains: Some of `physics`, `chemistry`, `materials`, `biology`.
        levels: Difficulties: 1 one step with small numbers, 2 larger numbers or two steps, 3 decimals,
            conversions or three steps.
        train: Training questions a domain.
        families: Domain -> only these families of its questions; all by default.

    Raises:
        QuestionError: If families are named of a domain that there is none of.
    """

    def __init__(
        self,
        domains: list[str],
        levels: list[int] | None = None,
        train: int = 1000,
        families: dict[str, list[str]] | None = None,
    ) -> None:
        self.domains = domains
        self.levels = levels or [1, 2]
        self.train = train
        self.families = families or {}
        if unknown := [domain for domain in self.families if domain not in DOMAINS]:
            raise QuestionError(f"families names {', '.join(unknown)}: generated science has {', '.join(DOMAINS)}")

    def _draw(
        self,
        domain: str,
        count: int,
        seed: int,
        split: str,
        families: Collection[str] | None = None,
        without: Collection[str] = (),
    ) -> list[WorkedQuestion]:
        chosen = self.families.get(domain) if families is None else families
        return generate(domain, count, seed=seed, split=split, levels=self.levels, families=chosen, without=without)

    def splits(self, *, validation: int, test: int | None, seed: int, development: int = 0) -> Splits:
        """See `QuestionSource`; 200 test questions a domain where none are asked for.

        Development questions are those that are drawn next after the validation questions.
        """
        counts = {"train": self.train, "validation": validation + development, "test": 200 if test is None else test}
        drawn = {
            split: {domain: [w.question for w in self._draw(domain, count, seed, split)] for domain in self.domains}
            for split, count in counts.items()
        }
        train, held, tests = (drawn[split].values() for split in counts)
        return Splits(
            list(chain(*train)),
            validation=[q for questions in held for q in questions[:validation]],
            test=list(chain(*tests)),
            development=[q for questions in held for q in questions[validation:]],
        )

    def worked(
        self,
        domain: str,
        count: int,
        *,
        seed: int,
        families: Collection[str] | None = None,
        without: Collection[str] = (),
        held_out: int = 0,
        solutions: str | None = None,
    ) -> list[WorkedQuestion]:
        """See `QuestionSource`; also with typical mistakes and the feedback on them, where no file is given."""
        if solutions is None:
            return self._draw(domain, count, seed, "train", families, without)
        return super().worked(
            domain, count, seed=seed, families=families, without=without, held_out=held_out, solutions=solutions
        )


class SciKnowEval(QuestionSource):
    """SciKnowEval's multiple-choice questions of level L3, from a folder or the hub.

    Args:
        domains: Some of `biology`, `chemistry`, `materials`, `physics`.
        folder: Folder with `<domain>/train.jsonl` and `test.jsonl`; by default they come from the hub.
        hub_id: The dataset's id there.
        revision: Its branch, tag or commit.
    """

    def __init__(
        self,
        domains: list[str],
        folder: str | None = None,
        hub_id: str = "hicai-zju/SciKnowEval",
        revision: str | None = None,
    ) -> None:
        self.domains = domains
        self.folder = folder
        self.hub_id = hub_id
        self.revision = revision

    def splits(self, *, validation: int, test: int | None, seed: int, development: int = 0) -> Splits:
        """See `QuestionSource`; validation and development are held out of the published train split."""
        published = load_sciknoweval(self.domains, folder=self.folder, hub_id=self.hub_id, revision=self.revision)
        return _held_out(
            published["train"],
            published["test"],
            validation=validation,
            test=test,
            seed=seed,
            development=development,
        )


class JsonQuestions(QuestionSource):
    """A user's own questions, one JSON object a line.

    Args:
        domains: The domains; a question of another one is refused.
        train: File with the training questions.
        test: File with the test questions.
        validation: File with the gate's questions, all of them, whatever `data.validation` says; by default so many
            are held out of `train`, the same for every seed.
    """

    def __init__(self, domains: list[str], train: str, test: str, validation: str | None = None) -> None:
        self.domains = domains
        self.train = train
        self.test = test
        self.validation = validation

    def splits(self, *, validation: int, test: int | None, seed: int, development: int = 0) -> Splits:
        """See `QuestionSource`; development questions are held out of `train`."""
        train, tests = (read_questions(Path(p), domains=self.domains) for p in (self.train, self.test))
        given = None if self.validation is None else read_questions(self.validation, domains=self.domains)
        return _held_out(
            train, tests, validation=validation, test=test, seed=seed, development=development, given=given
        )


class QuestionFile(QuestionSource):
    """The questions of one JSONL file, to be asked and nothing else; for a prediction they need no key.

    Args:
        file: The file; its questions may be of any domains.
    """

    def __init__(self, file: str) -> None:
        self.questions = read_questions(file, keyed=False)
        self.domains = sorted({q.domain for q in self.questions})

    def splits(self, *, validation: int, test: int | None, seed: int, development: int = 0) -> Splits:
        """All are test questions, however many are asked for."""
        return Splits([], [], self.questions)


def _held_out(
    train: Sequence[Question],
    tests: Sequence[Question],
    *,
    validation: int,
    test: int | None,
    seed: int,
    development: int,
    given: Sequence[Question] | None = None,
) -> Splits:
    """Disjoint splits out of published ones: leaks are dropped, and that is said."""
    train = _without_leaks(train, tests)
    if given is not None:
        rest = _without_leaks(train, given, split="validation")
        held = _without_leaks(given, tests, of="validation")
    elif validation:
        rest, held = hold_out(train, validation, _HELD_OUT)
    else:
        rest, held = train, []
    rest, chosen_by = hold_out(rest, development, _HELD_OUT) if development else (rest, [])
    if test is not None:
        tests = _at_most(tests, test, seed)
    return Splits(rest, held, list(tests), chosen_by)


def _without_leaks(questions: Sequence[Question], held_out: Sequence[Question], **names: str) -> list[Question]:
    """The questions that `held_out` does not hold too, each once; of the others it is said how many there were.

    Args:
        questions: Of one split.
        held_out: Of another.
        **names: What the two are called, see `drop_leaks`.
    """
    kept, leaks = drop_leaks(questions, held_out, **names)
    if leaks:
        warnings.warn(f"not all questions are taken: {leaks}", stacklevel=2)
    return kept


def _at_most(questions: Sequence[Question], count: int, seed: int) -> list[Question]:
    """`count` questions a domain, drawn by `seed`; all of a domain that has no more."""
    chosen: list[Question] = []
    for domain in sorted({q.domain for q in questions}):
        here = sorted((q for q in questions if q.domain == domain), key=lambda q: q.id)
        chosen += random.Random(f"{seed} test {domain}").sample(here, min(count, len(here)))
    return chosen
