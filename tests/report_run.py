"""A run's folder as `opcod fit` leaves it, with made-up figures, for tests of reports."""

import csv
import json

STUDENTS, DOMAINS = ("physicist", "chemist"), ("physics", "chemistry")


def exchange(place, **other):
    """A row of samples."""
    given, step = divmod(place, 4)
    row = {
        "round": given % 2,
        "phase": place % 2,
        "step": step,
        "tutee": STUDENTS[place % 2],
        "tutor": STUDENTS[1 - place % 2],
        "question": f"q{place}",
        "domain": DOMAINS[place % 2],
        "options": ["this", "that"],
        "key": "A",
        "sample": 0,
        "answer": "A" if place % 3 else "B",
        "correct": bool(place % 3),
        "outcome": "match" if place % 2 else "fb_none",
        "distilled": True,
        "text": f"What is thing {place}?",
        "response": "It is this.",
        "feedback_raw": "<concept>thing</concept> Look again." if place % 2 else None,
        "feedback_shown": "Look again." if place % 2 else None,
        "solution_shown": "It is this, indeed.",
        "cut": 0,
        "pieces": ["It", " is", " this", "."],
        "divergence": [0.0, 0.5, 2.0, 0.1],
    }
    return row | other


def write_run(folder, rows=(), *, ended=True):
    """Write a run of two rounds of 2 x 4 steps; `rows` are its exchanges."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        "model:\n  init_args:\n    samples: 4\n    gate: {strategy: cognizance, tau: 0.2}\n"
    )
    logged = []
    for rounds in range(3):
        validation = {"rounds": rounds}
        for i, student in enumerate(STUDENTS):
            validation[f"gate/{student}/gap"] = 0.3 - 0.1 * rounds + 0.05 * i
            validation |= {f"validation/{student}/{d}/avg": 0.5 + 0.1 * rounds - 0.05 * i for d in DOMAINS}
        if rounds:
            validation |= {"feedback/physicist/count/match": 5 * rounds, "feedback/physicist/count/empty": 1}
        logged.append(validation)
        for place in range(8) if rounds < 2 else ():
            who = f"train/{STUDENTS[place // 4]}"
            step = {"round": rounds, "phase": place // 4, "phase_step": place % 4, "step": 8 * rounds + place}
            figures = {"seconds/rollout": 2.0, "seconds/match": 4.0, "tokens_per_second/rollout": 100.0}
            logged.append(
                step
                | figures
                | {f"{who}/success_groups": float(place != 2), f"{who}/gradient_norm": 1.0, f"{who}/entropy": 0.3}
            )
    names = list(dict.fromkeys(name for row in logged for name in row))
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(logged)
    if ended:
        figures = {"avg": 0.5, "stderr": 0.05, "format": 1.0, "count": 40.0}
        table = {s: {d: dict(figures) for d in DOMAINS} for s in STUDENTS}
        final = {s: {d: figures | {"avg": 0.625} for d in DOMAINS} for s in STUDENTS}
        kept = {"questions": "test", "initial": table, "final": final, "pareto": {}, "mutual": True}
        (folder / "outcome.json").write_text(json.dumps(kept))
        answers = [
            {"end": end, "student": s, "domain": d, "question": f"t{n}", "right": right}
            for end, right in (("initial", 0.5), ("final", 0.625))
            for s in STUDENTS
            for d in DOMAINS
            for n in range(40)
        ]
        with (folder / "answers.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(answers[0]))
            writer.writeheader()
            writer.writerows(answers)
    if rows:
        (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
