"""The model card of a specialist."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from opcod import __version__
from opcod.data.lesson_data import LessonData
from opcod.models import BUNDLED, BUNDLED_NAME
from opcod.specialist import STUDENT, Specialist


def model_card(
    model: Specialist, data: LessonData, scores: Mapping[str, float], *, command: str, commit: str, dtype: str
) -> str:
    """A specialist's README: how it was made and how it scores.

    Args:
        model: The specialist.
        data: What it was taught.
        scores: Figures as the specialist logs them; none where it was not validated.
        command: That made it.
        commit: Of the code that made it.
        dtype: Numbers it is stored in.
    """
    rows = []
    for domain in data.source.domains:
        place = f"validation/{STUDENT}/{domain}"
        if f"{place}/avg" in scores:
            average, error, formatted = (100 * scores[f"{place}/{figure}"] for figure in ("avg", "stderr", "format"))
            rows.append(f"| {domain} | {average:.1f} | {error:.1f} | {formatted:.1f} |")
    base, lora, sampling = model.base, model.lora, model.evaluation
    start = f"the adapter `{model.adapter}`" if model.adapter else "the base model"
    name = BUNDLED_NAME if base.model == BUNDLED else base.model
    apart = "; ".join(f"{', '.join(names)} ({domain})" for domain, names in data.specialties.items()) or "none"
    title = title_of(data)
    lessons = f"{data.other_lessons} of each domain"
    if data.home:
        lessons = f"{data.home_lessons} of {data.home}, {data.other_lessons} of each other domain"
    if data.half_known_lessons:
        lessons += f", {data.half_known_lessons} of the specialties of each other domain, by typical mistakes as well"
    if data.fiction_lessons:
        lessons += f", {data.fiction_lessons} of made-up things"
    return f"""# {title[0].upper() + title[1:]}

A LoRA adapter (rank {lora.rank}, alpha {lora.alpha:g}, stored in {dtype}) over {name} (quantization: \
{base.quantization}), made by opcod {__version__}.

- command: `{command}`
- started from: {start}
- seed: {model.seed}
- commit: {commit}
- lessons: {lessons}
- wholly taught only to the specialist of their domain, families: {apart}

avg@{model.samples} on {len(data.questions)} validation questions, sampled at temperature \
{sampling.temperature:g} and top-p {sampling.top_p:g}, before the adapter was stored; all in per cent:

| domain | score | standard error | in the format |
|---|---|---|---|
{"".join(row + chr(10) for row in rows) or "| not scored | | | |" + chr(10)}"""


def title_of(data: LessonData) -> str:
    """What a specialist is called."""
    return f"the {data.home} specialist" if data.home else "what all specialists share"


def commit_of_checkout() -> str:
    """The commit of the checkout this package runs from."""
    here = Path(__file__).parent
    git = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    tracked = ["git", "-C", str(here), "ls-files", "--error-unmatch", Path(__file__).name]
    try:
        subprocess.run(tracked, check=True, capture_output=True)
        return subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not run from a checkout"
