"""Continued fine-tuning: its loss against transformers' own, and whom a step changes."""

import contextlib
from dataclasses import replace

import pytest
import torch

from opcod.data.sources import GeneratedScience, Splits
from opcod.finetuning import FineTuning
from opcod.peers import SharedBase
from opcod.scoring import Scored
from opcod.specialist import imitate
from test_codistillation import ANN, BEN, Watch, fit, shared_settings
from test_matching import peer
from tiny import random_ids

SEQUENCES = [Scored(random_ids(7, seed=1), random_ids(4, seed=2)), Scored(random_ids(3, seed=3), random_ids(9, seed=4))]


@pytest.mark.parametrize("micro_batch_tokens", [1, 1000])
def test_loss_and_gradient_are_those_of_transformers(tiny_base, micro_batch_tokens):
    student = peer(tiny_base)
    name = student.adapter("student")
    loss = imitate(student.base, name, SEQUENCES, micro_batch_tokens, lambda share: share.backward())
    ours = [p.grad.clone() for p in student.parameters()]
    summed = []
    with student.using("student", train=True):
        for sequence in SEQUENCES:
            ids = torch.tensor([sequence.prompt + sequence.response])
            labels = ids.clone()
            labels[0, : len(sequence.prompt)] = -100
            mean = student.base.loaded.model(ids, labels=labels).loss
            summed.append(mean * len(sequence.response))
        expected = sum(summed) / sum(len(s.response) for s in SEQUENCES)
        gradients = torch.autograd.grad(expected, student.parameters())
    assert loss == pytest.approx(float(expected), rel=1e-5)
    for one, other in zip(ours, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_layers_are_computed_again_by_the_kernels_they_were_computed_by(tiny_base, monkeypatch):
    student = peer(tiny_base)
    chosen, found = [False], []

    @contextlib.contextmanager
    def kernels(self):
        chosen[0] = True
        yield
        chosen[0] = False

    monkeypatch.setattr(SharedBase, "_kernels", kernels)
    student.base.checkpoint_activations = True
    layer = student.base.loaded.model.base_model.layers[0].self_attn
    with layer.register_forward_hook(lambda *_: found.append(chosen[0])):
        imitate(student.base, student.adapter("student"), SEQUENCES, 1000, torch.Tensor.backward)
    assert found == [True, True], "forwards, and again backwards"


def test_a_step_changes_the_tutees_student_alone_and_lowers_its_loss(tiny_folder, tmp_path):
    watch = Watch()
    fit(FineTuning([ANN, BEN], **shared_settings(tiny_folder)), tmp_path, watch, steps=6)
    assert watch.changes == [{"ann_student"}] * 6 + [{"ben_student"}] * 6
    losses = [r.figures[f"train/{r.tutee}/loss"] for r in watch.records]
    assert losses[5] < losses[0]
    assert losses[11] < losses[6]


def test_micro_batches_of_nothing_are_refused():
    with pytest.raises(ValueError, match="micro_batch_tokens is 0, expected at least 1"):
        FineTuning([ANN, BEN], micro_batch_tokens=0)


def test_a_question_without_solution_is_refused(tiny_folder, tmp_path, monkeypatch):
    drawn = GeneratedScience.splits

    def bare(self, **settings):
        splits = drawn(self, **settings)
        return Splits([replace(q, solution=None) for q in splits.train], splits.validation, splits.test)

    monkeypatch.setattr(GeneratedScience, "splits", bare)
    with pytest.raises(ValueError, match="has no worked solution to learn from"):
        fit(FineTuning([ANN, BEN], **shared_settings(tiny_folder)), tmp_path)
