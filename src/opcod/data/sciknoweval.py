"""SciKnowEval (arXiv 2406.09098), level L3, four options: from a folder or from the hub.

The folder holds `<domain>/train.jsonl` and `<domain>/test.jsonl` in the benchmark's own fields: the splits
published with SDPO's code (github.com/lasgroup/SDPO). The hub has a single split, `test`; its questions are
divided here by a hash of their content, a tenth for test as in the published splits.

Published rows whose options are not all different cannot be answered by a letter; they are left out with a
warning that names them. So is any other unusable row of the hub, since nobody can correct it there; in a
folder it is a fault. Leaks between the published splits are left in: `drop_leaks` of `opcod.data.splits`
finds them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from opcod.data.jsonl import Fault, Fields, read_rows, refuse, repeated_id
from opcod.data.questions import LABELS, Question, QuestionError, repeated_options
from opcod.data.splits import split_of

PUBLISHED_NAMES = {
    "biology": "biology",
    "chemistry": "chemistry",
    "materials": "material",
    "physics": "physics",
}
"""Our names of the domains and, in lower case, the benchmark's."""

SPLITS = ("train", "test")
HUB_FRACTIONS = {"train": 0.9, "test": 0.1}
TYPE = "mcq-4-choices"
LEVEL = "L3"
RAW_NAMES = {"options": "choices.text", "answer": "answerKey"}

log = logging.getLogger(__name__)


def load_sciknoweval(
    domains: Sequence[str],
    *,
    folder: str | Path | None,
    hub_id: str = "hicai-zju/SciKnowEval",
    revision: str | None = None,
) -> dict[str, list[Question]]:
    """Load SciKnowEval's multiple-choice questions of level L3.

    Args:
        domains: Any of biology, chemistry, materials, physics.
        folder: Holds `<domain>/train.jsonl` and `<domain>/test.jsonl` (`material/` will do for materials);
            if None, the questions come from the hub or its cache.
        hub_id: The data set on the hub.
        revision: Its revision (a branch, tag or commit); the newest if None.

    Returns:
        The questions of `train` and of `test`, domain by domain.

    Raises:
        QuestionError: If a domain is unknown, the files or the hub cannot be read, or a file is faulty; the
            message lists every fault of all files.
    """
    unknown = [domain for domain in domains if domain not in PUBLISHED_NAMES]
    if unknown or not domains:
        given = ", ".join(map(repr, unknown)) or "none"
        raise QuestionError(f"SciKnowEval domains: {given} given, expected some of {', '.join(PUBLISHED_NAMES)}")
    if folder is None:
        return _from_hub(domains, hub_id, revision)
    return _from_folder(domains, Path(folder))


def _from_folder(domains: Iterable[str], folder: Path) -> dict[str, list[Question]]:
    splits: dict[str, list[Question]] = {split: [] for split in SPLITS}
    faults: list[Fault] = []
    for domain in domains:
        for split in SPLITS:
            path = _domain_folder(folder, domain) / f"{split}.jsonl"
            rows, broken = read_rows(path)
            faults += broken
            unanswerable: list[str] = []
            lines: dict[str, int] = {}
            for line, row in rows:
                faults += repeated_id(path, line, row, lines)
                try:
                    question = parse_row(row, domain)
                except QuestionError as error:
                    faults += [Fault(str(path), line, field, reason) for field, reason in error.faults]
                else:
                    if question is None:
                        unanswerable.append(row["id"])
                    else:
                        splits[split].append(question)
            _report(f"{path}: left out, as their options are not all different:", unanswerable)
    refuse(folder, faults)
    return splits


def _domain_folder(folder: Path, domain: str) -> Path:
    for name in (domain, PUBLISHED_NAMES[domain]):
        if (folder / name).is_dir():
            return folder / name
    raise QuestionError(
        f"{folder}: has no folder {domain!r}; expected {domain}/train.jsonl and {domain}/test.jsonl in it: "
        "check the path, or give no folder to load from the hub"
    )


def _from_hub(domains: Iterable[str], hub_id: str, revision: str | None) -> dict[str, list[Question]]:
    import datasets  # takes a second, and only this source needs it

    try:
        rows = datasets.load_dataset(hub_id, split="test", revision=revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        pinned = f", revision={revision!r}" if revision else ""
        command = f"import datasets; datasets.load_dataset({hub_id!r}, split='test'{pinned})"
        reason = str(error).partition("\n")[0]
        raise QuestionError(
            f"{hub_id} is not in the cache and cannot be loaded from the hub ({reason}). "
            f'Where there is a network, this fetches it: python -c "{command}"\n'
            "Or give a folder that holds <domain>/train.jsonl and <domain>/test.jsonl."
        ) from None
    wanted = {PUBLISHED_NAMES[domain]: domain for domain in domains}
    splits: dict[str, list[Question]] = {split: [] for split in SPLITS}
    left_out: list[str] = []
    for number, row in enumerate(rows, start=1):
        domain = wanted.get(str(row.get("domain")).lower())
        if domain is None or row.get("type") != TYPE or (row.get("details") or {}).get("level") != LEVEL:
            continue
        try:
            question = parse_row(row | {"id": f"{domain}-{number}"}, domain)
        except QuestionError as error:
            left_out.append(f"{number} ({error})")
        else:
            if question is None:
                left_out.append(f"{number} (options are not all different)")
            else:
                splits[split_of(question, HUB_FRACTIONS)].append(question)
    _report(f"{hub_id}: rows left out, as they cannot be used:", left_out)
    found = {question.domain for questions in splits.values() for question in questions}
    if missing := [domain for domain in wanted.values() if domain not in found]:
        raise QuestionError(
            f"{hub_id} holds no usable {LEVEL} question of type {TYPE} for {', '.join(missing)}; "
            "give the id or revision of a data set laid out like hicai-zju/SciKnowEval"
        )
    return splits


def parse_row(row: Mapping[str, Any], domain: str) -> Question | None:
    """One question from one row in SciKnowEval's own fields; None if its options are not all different.

    Raises:
        QuestionError: With all faults of the row in `faults`.
    """
    fields = Fields(row)
    published = fields.text("domain")
    if not fields.faulty("domain") and published.lower() not in (domain, PUBLISHED_NAMES[domain]):
        fields.fault("domain", f"{published!r} in the folder of {domain}")
    for field, expected in (("type", TYPE), ("details.level", LEVEL)):
        value = fields.text(field)
        if not fields.faulty(field) and value != expected:
            fields.fault(field, f"is {value!r}, expected {expected!r}")

    options = fields.texts("choices.text")
    labels = fields.texts("choices.label")
    if not fields.faulty("choices.text"):
        if len(options) != 4:
            fields.fault("choices.text", f"holds {len(options)}, expected 4")
        elif not fields.faulty("choices.label") and labels != LABELS[:4]:
            fields.fault("choices.label", f"is {', '.join(labels) or 'empty'}, expected A, B, C, D")
    unanswerable = bool(repeated_options(options))
    answer = fields.text("answerKey")
    if fields.faulty("answerKey") or fields.faulty("choices.text"):
        answer = "A" if options else "0"
    question = fields.question(
        RAW_NAMES,
        id=fields.text("id"),
        domain=domain,
        text=fields.text("question"),
        options=LABELS[: len(options)] if unanswerable else options,
        answer=answer,
    )
    return None if unanswerable else question


def _report(what: str, rows: Sequence[str]) -> None:
    if rows:
        log.warning("%s %s", what, ", ".join(rows))
