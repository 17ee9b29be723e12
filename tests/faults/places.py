"""The places at which runs are ended, and how; each is a run of its own in `test_faults.py`.

A place is a part of the run, and the calls that lead there, as `faulty.arm` takes them.
"""

KILL, TERM, INT = "SIGKILL", "SIGTERM", "SIGINT"
ALL = (KILL, TERM, INT)

TOKEN = "opcod.drafts:choose"
ROLLOUT = "opcod.students:Students.roll_out"
VALIDATION = "opcod.students:Students.validation_step"
UPDATE = "opcod.students:Students.update"
AVERAGE = "opcod.peers:Peer.update_teacher"
SAVE = "opcod.callbacks.checkpoints:RoundCheckpoint._save"
TEST = "opcod.callbacks.outcome:OutcomeTable._tested"


def place(part, *calls, by=ALL, after=False):
    """One a signal; calls are pairs of a function and a number, or a function whose first call is meant."""
    pairs = [[call, 1] if isinstance(call, str) else list(call) for call in calls]
    return [(part, {"calls": pairs, "act": signal, "after": after}) for signal in by]


PLACES = [
    # what comes before the first step
    *place("loading", "opcod.students:load_base"),
    *place("first test", TEST, (TOKEN, 2)),
    *place("first validation", "opcod.students:Students.on_train_epoch_start", (TOKEN, 3)),
    # a step, in every round and phase
    *place("rollout", (ROLLOUT, 1), (TOKEN, 2)),
    *place("rollout", (ROLLOUT, 2), "opcod.rollout:prefill"),
    *place("rollout", (ROLLOUT, 4), (TOKEN, 4)),
    *place("rollout", (ROLLOUT, 7), (TOKEN, 1)),
    *place("grading", (ROLLOUT, 3), ("opcod.attempts:grade", 2)),
    *place("feedback", ("opcod.codistillation:write_feedback", 2), (TOKEN, 3)),
    *place("feedback", ("opcod.codistillation:write_feedback", 5), (TOKEN, 1)),
    *place("contexts", ("opcod.codistillation:build_contexts", 6), by=(KILL, TERM)),
    *place("match", ("opcod.codistillation:match", 3), "opcod.matching:response_hidden"),
    *place("match", ("opcod.codistillation:match", 6), ("opcod.matching:response_hidden", 2)),
    *place(
        "match", ("opcod.codistillation:match", 8), "opcod.codistillation:CoDistillation.manual_backward", after=True
    ),
    *place("update", (UPDATE, 2), "opcod.optimization:UpdateGuard.admits", after=True),
    *place("update", (UPDATE, 3), "torch.optim:AdamW.step", after=True),
    *place("update", (UPDATE, 5), "torch.optim.lr_scheduler:LambdaLR.step", after=True),
    *place("average", (AVERAGE, 2)),
    *place("average", (AVERAGE, 3), ("torch:Tensor.lerp_", 5), after=True),
    *place("average", (AVERAGE, 7), after=True),
    *place("record", ("opcod.students:Students.keep", 5), by=(KILL, TERM)),
    *place("record", ("opcod.callbacks.samples:append_rows", 6), after=True, by=(KILL, TERM)),
    # a checkpoint: the second is the first round's, the third the second round's middle, the fourth the second round's
    *place("checkpoint", (SAVE, 1)),
    *place("checkpoint", (SAVE, 1), "pathlib:Path.write_bytes", by=("half",)),
    *place("checkpoint", (SAVE, 3), "pathlib:Path.write_bytes", by=("half",)),
    *place("checkpoint", (SAVE, 2), "opcod.callbacks.checkpoints:_sync"),
    *place("checkpoint", (SAVE, 1), "pathlib:Path.replace", after=True),
    *place("checkpoint", (SAVE, 3), "pathlib:Path.replace", by=(KILL,)),
    *place("checkpoint", (SAVE, 3), "opcod.callbacks.checkpoints:_link", after=True),
    *place("checkpoint", (SAVE, 4), ("pathlib:Path.replace", 2), after=True),
    *place("checkpoint", (SAVE, 3), ("pathlib:Path.unlink", 3), by=(KILL, TERM)),
    # the validation after a round
    *place("validation", (VALIDATION, 1), (TOKEN, 2)),
    *place("validation", (VALIDATION, 2), (TOKEN, 6)),
    *place("validation", (VALIDATION, 1), after=True),
    *place("validation", ("opcod.callbacks.checkpoints:RoundCheckpoint.on_validation_end", 2)),
    # what comes after the last step
    *place("last test", (TEST, 2), (TOKEN, 2)),
    *place("outcome", "opcod.callbacks.outcome:write_whole", "pathlib:Path.replace", by=(KILL,)),
    *place("outcome", "opcod.callbacks.outcome:write_whole", after=True, by=(KILL,)),
]

MEMORY = [
    ("rollout", {"calls": [[ROLLOUT, 4], [TOKEN, 1]], "act": "torch"}),
    ("match", {"calls": [["opcod.codistillation:match", 7], ["opcod.matching:response_hidden", 2]], "act": "torch"}),
    ("validation", {"calls": [[VALIDATION, 2], [TOKEN, 1]], "act": "torch"}),
    ("grading", {"calls": [[ROLLOUT, 6], ["opcod.attempts:grade", 3]], "act": "python"}),
]
"""Where memory runs out, and stays out."""

FULL = [
    ("checkpoint", [[SAVE, 1]]),
    ("checkpoint", [[SAVE, 2], ["pathlib:Path.write_bytes", 1]]),
    ("checkpoint", [[SAVE, 3], ["opcod.callbacks.checkpoints:_link", 1]]),
    ("record", [["opcod.callbacks.samples:append_rows", 4]]),
    ("record", [["opcod.students:Students.keep", 6]]),
    ("outcome", [["opcod.callbacks.outcome:write_whole", 1]]),
]
"""Where the disk is full."""

SECONDS = [0.3, 0.7, 1.1, 1.5, 1.9, 2.3, 2.7, 3.1, 3.6, 4.2, 4.9, 5.7]
"""After which a process is killed from outside, wherever it is."""
