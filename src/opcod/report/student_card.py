"""The model card of an exported student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData, try_to_load_from_cache

from opcod import __version__
from opcod.evaluation import percent
from opcod.models import BUNDLED, BUNDLED_ID, BaseModel
from opcod.peers import Lora, Role
from opcod.report.runs import ReportError, Run, read_run

BUNDLED_LICENSE = "apache-2.0"
_PAPER = "[arXiv 2606.14368](https://arxiv.org/abs/2606.14368)"
_SDPO = "[arXiv 2601.20802](https://arxiv.org/abs/2601.20802)"
_OPCOD = f"On-Policy Co-Distillation ({_PAPER})"


def student_card(
    kept: Mapping[str, Any], student: str, role: Role, checkpoint: Path, *, merged: bool, license: str | None = None
) -> str:
    """A README with the metadata that the hub reads: what the student is, what it was taught on, how it scores.

    Args:
        kept: What `read_checkpoint` read.
        student: Whose.
        role: Which of its adapters.
        checkpoint: The file; where its run's folder is around it, questions, settings and scores are read from there.
        merged: Whether it is written as a whole model.
        license: Identifier of the licence; by default the base model's, where that is known.
    """
    base, lora = BaseModel(**kept["models"][student]), Lora(**kept["lora"])
    run = _run_of(checkpoint)
    name = BUNDLED_ID if base.model == BUNDLED else base.model
    license = license or license_of(base)
    method, company = _method(run, [other for other in kept["models"] if other != student])
    data = ModelCardData(
        base_model=name,
        library_name="transformers" if merged else "peft",
        pipeline_tag="text-generation",
        license=license,
        tags=["opcod", *(["on-policy-co-distillation"] if method == _OPCOD else [])],
    )
    of = {"student": "", "teacher": f" (its self-teacher, {_self_teacher(run)})"}.get(role, f" ({role})")
    weights = "Merged weights" if merged else f"A LoRA adapter (rank {lora.rank}, alpha {lora.alpha:g})"
    facts = [
        f"method: {method}, by opcod {__version__}",
        f"base model: {name}{f' at {base.revision}' if base.revision else ''}, quantization {base.quantization}",
        f"rounds done: {kept.get('scored_rounds') or 0}",
        *(_settings(run) if run else []),
        f"licence: {license or 'that of the base model, which opcod did not find here; look it up before you share'}",
    ]
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {student}",
        f"{weights} of the student {student}{of}, trained {company}.",
        "\n".join(f"- {fact}" for fact in facts),
        *_scores(kept, run, student),
        "## Use\n\n" + (_MERGED if merged else _ADAPTER.replace("BASE", name)),
    ]
    return "\n\n".join(parts) + "\n"


def license_of(base: BaseModel) -> str | None:
    """The base model's licence as its own card names it, where that card is on this machine."""
    if base.model == BUNDLED:
        return BUNDLED_LICENSE
    card = Path(base.model).expanduser() / "README.md"
    if not card.parent.is_dir():
        cached = try_to_load_from_cache(base.model, "README.md", revision=base.revision)
        card = Path(cached) if isinstance(cached, str) else card
    if not card.is_file():
        return None
    try:
        found = ModelCard.load(card).data.license
    except (ValueError, yaml.YAMLError):
        return None
    return found if isinstance(found, str) else None


def _run_of(checkpoint: Path) -> Run | None:
    """The run whose folder a checkpoint lies in."""
    try:
        return read_run(checkpoint.resolve().parent.parent)
    except ReportError:
        return None


def _method(run: Run | None, peers: Sequence[str]) -> tuple[str, str]:
    """What it learned by, and in whose company; of a checkpoint alone, by how many were trained."""
    model = run.config.get("model", {}) if run else {}
    settings = model.get("init_args", {})
    if (name := _name_of(model)) != "CoDistillation":
        return name, "by itself"
    shown = settings.get("context", {}).get("feedback", True)
    if not peers or not shown or settings.get("gate", {}).get("strategy") == "never":
        return f"SDPO ({_SDPO})", "by itself"
    others = " and ".join(peers)
    if settings.get("tutor") == "start":
        return "one-way distillation", f"on the feedback of {others}, as at the start of the run"
    return _OPCOD, f"beside {others}"


def _name_of(model: Mapping[str, Any]) -> str:
    """The method's, in a run's config."""
    return str(model.get("class_path", "CoDistillation")).rpartition(".")[2]


def _self_teacher(run: Run | None) -> str:
    """What it is; of a checkpoint alone, what it is by default."""
    model = run.config.get("model", {}) if run else {}
    kinds = {"ema": "the average over its past", "live": "the student itself", "frozen": "the student of the start"}
    if _name_of(model) != "CoDistillation":
        return kinds["frozen"]  # no other method teaches by it
    return kinds[model.get("init_args", {}).get("matching", {}).get("self_teacher", "ema")]


def _settings(run: Run) -> list[str]:
    """What the run's config says of questions and settings."""
    data = run.config.get("data", {})
    source = data.get("source", {})
    arguments = {k: v for k, v in source.get("init_args", {}).items() if v is not None}
    told = "; ".join(f"{k} {', '.join(map(str, v)) if isinstance(v, list) else v}" for k, v in arguments.items())
    facts = []
    if source:
        facts.append(f"questions: {source['class_path'].rpartition('.')[2]} ({told})")
    if "steps" in data:
        facts.append(f"{data['steps']} steps a phase, {data['batch_size']} questions a step")
    if (seed := run.config.get("seed_everything")) is not None:
        facts.append(f"seed: {seed}")
    return facts


def _scores(kept: Mapping[str, Any], run: Run | None, student: str) -> list[str]:
    """A table from before to after where the run has ended at this checkpoint, and else the last validation's."""
    rounds = run.config.get("trainer", {}).get("max_epochs") if run else None
    if run and run.outcome and student in run.outcome.final and rounds == kept.get("scored_rounds"):
        before, after = run.outcome.initial[student], run.outcome.final[student]
        rows = [
            f"| {domain} | {percent(before[domain]['avg'], before[domain]['stderr'])} "
            f"| {percent(after[domain]['avg'], after[domain]['stderr'])} |"
            for domain in after
        ]
        heading = f"avg@k on the {run.outcome.questions} questions, % ± standard error:"
        return ["\n".join(["## Scores", "", heading, "", "| domain | before | after |", "|---|---|---|", *rows])]
    table = (kept.get("score_table") or {}).get(student)
    if table is None:
        return []
    rows = [f"| {domain} | {percent(scores['avg'], scores['stderr'])} |" for domain, scores in table.items()]
    heading = "avg@k on the validation questions, which the gate has read, % ± standard error:"
    return ["\n".join(["## Scores", "", heading, "", "| domain | score |", "|---|---|", *rows])]


_ADAPTER = """```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("BASE")
tokenizer = AutoTokenizer.from_pretrained("BASE")
student = PeftModel.from_pretrained(base, "path/to/this/folder")
```

It was trained over the base in the quantization named above; over other numbers it answers a little differently."""
_MERGED = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

student = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```"""
