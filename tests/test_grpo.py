"""GRPO's advantage, by hand; its loss, against all logits and one response at a time; and a step of the module."""

import pytest
import torch

from opcod.attempts import Attempt
from opcod.drafts import Response
from opcod.grading import Grade
from opcod.grpo import Grpo, PolicyGradient, group_advantages, reinforce
from test_codistillation import ANN, BEN, SHORT, Watch, fit, shared_settings
from test_matching import peer
from tiny import QUESTION, random_ids


def test_advantages_are_relative_to_the_group_and_not_divided():
    rewards = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    expected = torch.tensor([[0.75, -0.25, -0.25, -0.25], [0, 0, 0, 0], [0.5, 0.5, -0.5, -0.5], [0, 0, 0, 0]])
    torch.testing.assert_close(group_advantages(rewards), expected)


@pytest.fixture
def tutee(tiny_base):
    return peer(tiny_base)


def response(number, length, old=-6.0):
    tokens = torch.tensor(random_ids(length, seed=50 + number))
    return Attempt(
        QUESTION,
        number,
        random_ids(9, seed=1),
        Response(tokens, torch.full((length,), old), True),
        "",
        Grade(False, False, None),
    )


ATTEMPTS = [response(0, 3), response(1, 11), response(2, 7), response(3, 5)]
ADVANTAGES = [0.75, -0.25, 0.0, -0.25]


def reinforced(tutee, settings):
    tutee.base.peft.zero_grad()
    loss = reinforce(tutee, ATTEMPTS, ADVANTAGES, settings, lambda share: share.backward())
    graded = {n for n, p in tutee.base.peft.named_parameters() if p.grad is not None}
    return loss, [p.grad.clone() for p in tutee.parameters()], graded


def reference(tutee, settings):
    """From all logits of transformers' own forward pass, one response at a time, those without advantage too."""
    tutee.base.peft.zero_grad()
    losses, tokens = [], sum(len(a.response.tokens) for a in ATTEMPTS)
    for attempt, advantage in zip(ATTEMPTS, ADVANTAGES, strict=True):
        sampled = attempt.response.tokens
        with tutee.using("student", train=True):
            ids = torch.tensor([[*attempt.prompt, *sampled.tolist()]])
            logits = tutee.base.loaded.model(ids).logits[0, len(attempt.prompt) - 1 : -1]
        log_probs = logits.log_softmax(-1).gather(1, sampled[:, None])[:, 0]
        weights = torch.ones_like(log_probs)
        if settings.importance_limit is not None:
            weights = (log_probs.detach() - attempt.response.log_probs).exp().clamp(max=settings.importance_limit)
        per_token = -advantage * weights * log_probs
        losses.append(per_token.mean() / len(ATTEMPTS) if settings.average == "responses" else per_token.sum() / tokens)
    loss = torch.stack(losses).sum()
    with tutee.using("student", train=True):
        return loss.item(), torch.autograd.grad(loss, tutee.parameters())


@pytest.mark.parametrize(
    "settings",
    [
        PolicyGradient(),
        PolicyGradient(average="tokens"),
        PolicyGradient(importance_limit=None),
        PolicyGradient(micro_batch_tokens=1),
        PolicyGradient(chunk_tokens=2),
        PolicyGradient(share_prefixes=False),
    ],
    ids=["default", "tokens", "unweighted", "micro-batches", "chunks", "whole prompts"],
)
def test_loss_and_gradient_are_those_of_a_plain_computation(tutee, settings):
    loss, gradients, graded = reinforced(tutee, settings)
    expected_loss, expected = reference(tutee, settings)
    assert loss == pytest.approx(expected_loss, rel=1e-4)
    assert max(g.abs().max() for g in expected) > 1e-4
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)
    assert graded == {n for n, _ in tutee.base.peft.named_parameters() if ".ann_student." in n}


def test_a_descent_makes_what_was_better_likelier(tutee):
    def log_prob(attempt):
        with torch.no_grad(), tutee.using("student"):
            ids = torch.tensor([[*attempt.prompt, *attempt.response.tokens.tolist()]])
            logits = tutee.base.loaded.model(ids).logits[0, len(attempt.prompt) - 1 : -1]
        return float(logits.log_softmax(-1).gather(1, attempt.response.tokens[:, None]).sum())

    better, worse = ATTEMPTS[0], ATTEMPTS[1]
    before = log_prob(better) - log_prob(worse)
    reinforced(tutee, PolicyGradient(importance_limit=None))
    with torch.no_grad():
        for parameter in tutee.parameters():
            parameter -= 0.1 * parameter.grad
    assert log_prob(better) - log_prob(worse) > before


def test_without_any_advantage_there_is_no_loss_and_no_gradient(tutee):
    tutee.base.peft.zero_grad()
    assert reinforce(tutee, ATTEMPTS, [0.0] * 4, PolicyGradient(), lambda share: share.backward()) is None
    assert all(p.grad is None for p in tutee.parameters())


# ---- the module


def grpo(folder, **settings):
    return Grpo([ANN, BEN], **(shared_settings(folder) | {"samples": 2, "rollout": SHORT} | settings))


def test_a_step_changes_the_tutees_student_alone(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("opcod.grpo.group_advantages", lambda rewards: torch.tensor([[0.5, -0.5]] * len(rewards)))
    watch = Watch()
    fit(grpo(tiny_folder), tmp_path, watch)
    assert watch.changes == [{"ann_student"}, {"ann_student"}, {"ben_student"}, {"ben_student"}]
    assert all(r.figures[f"train/{r.tutee}/contrasted"] == 1 and not r.tutor for r in watch.records)


def test_a_step_without_contrast_changes_nothing_and_says_so(tiny_folder, tmp_path):
    watch = Watch()
    with pytest.warns(UserWarning, match="none has an advantage"):
        fit(grpo(tiny_folder), tmp_path, watch)  # a random model is never right
    assert watch.changes == [set()] * 4


def test_too_few_samples_are_refused(tiny_folder):
    with pytest.raises(ValueError, match="samples is 1, expected at least 2"):
        grpo(tiny_folder, samples=1)


def test_impossible_settings_are_refused_all_at_once():
    with pytest.raises(
        ValueError, match=r"policy_gradient: micro_batch_tokens is 0, .* at least 1; chunk_tokens is -1, "
    ):
        PolicyGradient(micro_batch_tokens=0, chunk_tokens=-1)
    with pytest.raises(ValueError, match=r"importance_limit is nan, expected above 0"):
        PolicyGradient(importance_limit=float("nan"))
