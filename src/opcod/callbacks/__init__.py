"""What watches a run: checkpoints, samples of what is written, progress, the outcome, diagnoses and predictions."""

from opcod.callbacks.break_rates import BreakRateTable
from opcod.callbacks.checkpoints import CheckpointError, RoundCheckpoint
from opcod.callbacks.clean_stop import CleanStop
from opcod.callbacks.collapse_watch import CollapseError, CollapseWatch
from opcod.callbacks.outcome import OutcomeTable
from opcod.callbacks.progress import RoundProgress
from opcod.callbacks.question_check import QuestionCheck
from opcod.callbacks.samples import SampleTable
from opcod.callbacks.size_check import SizeCheck
from opcod.callbacks.teacher_gaps import TeacherGapTable
from opcod.callbacks.tutor_watch import TutorWatch

__all__ = [
    "BreakRateTable",
    "CheckpointError",
    "CleanStop",
    "CollapseError",
    "CollapseWatch",
    "OutcomeTable",
    "QuestionCheck",
    "RoundCheckpoint",
    "RoundProgress",
    "SampleTable",
    "SizeCheck",
    "TeacherGapTable",
    "TutorWatch",
]
