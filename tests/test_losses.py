import json
import math
from pathlib import Path

import pytest
import torch

from opcod.losses import clip_importance, hidden_divergence, token_divergence, token_log_probs

ORACLE = json.loads((Path(__file__).parent / "oracles" / "self_distillation_loss.json").read_text())
ALPHAS = (0.0, 0.3, 0.5, 1.0)


def oracle_tensor(name, dtype=torch.float64):
    return torch.tensor(ORACLE[name], dtype=dtype)


def logits(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3


def divergence_and_gradient(student, teacher, **settings):
    student = student.clone().requires_grad_()
    value = token_divergence(student, teacher, **settings)
    (gradient,) = torch.autograd.grad(value.sum(), student)
    return value.detach(), gradient


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 2e-9), (torch.float32, 5e-6)])
@pytest.mark.parametrize(
    "case", ORACLE["cases"], ids=lambda c: f"alpha{c['alpha']}-k{c['top_k']}-{c['add_tail']}-{c['is_clip']}"
)
def test_divergence_and_gradient_agree_with_the_oracle(case, dtype, tolerance):
    student = oracle_tensor("student_logits", dtype).requires_grad_()
    teacher = oracle_tensor("teacher_logits", dtype).requires_grad_()
    per_token = token_divergence(
        student, teacher, alpha=case["alpha"], top_k=case["top_k"], add_tail=bool(case["add_tail"])
    )
    if case["is_clip"] is not None:
        log_probs = token_log_probs(student, torch.tensor(ORACLE["token_ids"]))
        old = oracle_tensor("old_log_probs", dtype)
        per_token = clip_importance(per_token, log_probs, old, limit=case["is_clip"])
    (per_token * oracle_tensor("mask", dtype)).sum().backward()
    expected = torch.tensor(case["per_token"], dtype=dtype)
    torch.testing.assert_close(per_token, expected, rtol=0, atol=tolerance)
    assert student.grad[0, 0].tolist() == pytest.approx(case["grad_first_token"], abs=tolerance)
    assert student.grad.abs().sum().item() == pytest.approx(case["grad_abs_sum"], rel=1e-6)
    assert teacher.grad is None


def test_values_by_hand():
    student = torch.tensor([0.5, 0.5]).log()
    teacher = torch.tensor([0.25, 0.75]).log()
    forward = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    reverse = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    to_mixture = 0.5 * math.log(0.5 / 0.375) + 0.5 * math.log(0.5 / 0.625)
    from_teacher = 0.25 * math.log(0.25 / 0.375) + 0.75 * math.log(0.75 / 0.625)
    assert token_divergence(student, teacher, alpha=0).item() == pytest.approx(forward, rel=1e-6)
    assert token_divergence(student, teacher, alpha=1).item() == pytest.approx(reverse, rel=1e-6)
    assert token_divergence(student, teacher, alpha=0.5).item() == pytest.approx(
        (to_mixture + from_teacher) / 2, rel=1e-5
    )


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("top_k", [None, 4])
@pytest.mark.parametrize("add_tail", [True, False])
def test_identical_distributions_have_no_divergence_and_no_gradient(alpha, top_k, add_tail):
    same = logits(2, 3, 11)
    value, gradient = divergence_and_gradient(same, same + 7, alpha=alpha, top_k=top_k, add_tail=add_tail)
    assert value.abs().max() < 1e-6
    assert gradient.abs().max() < 1e-6


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("add_tail", [True, False])
@pytest.mark.parametrize("top_k", [11, 12])
def test_top_k_of_the_whole_vocabulary_is_the_dense_divergence(alpha, add_tail, top_k):
    student, teacher = logits(2, 3, 11), logits(2, 3, 11, seed=1)
    dense = divergence_and_gradient(student, teacher, alpha=alpha)
    topped = divergence_and_gradient(student, teacher, alpha=alpha, top_k=top_k, add_tail=add_tail)
    torch.testing.assert_close(topped, dense)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("top_k", [None, 2, 3, 4])
@pytest.mark.parametrize("add_tail", [True, False])
def test_tokens_impossible_for_both_are_as_if_absent(alpha, top_k, add_tail):
    student, teacher = logits(1, 2, 3), logits(1, 2, 3, seed=1)
    banned = torch.full((1, 2, 3), -torch.inf)
    settings = {"alpha": alpha, "top_k": top_k, "add_tail": add_tail}
    value, gradient = divergence_and_gradient(
        torch.cat([student, banned], -1), torch.cat([teacher, banned], -1), **settings
    )
    expected, expected_gradient = divergence_and_gradient(student, teacher, **settings)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, torch.cat([expected_gradient, torch.zeros(1, 2, 3)], -1))


def test_token_impossible_for_one_is_infinite_only_where_the_divergence_is():
    possible, impossible = torch.tensor([0.0, 0.0]), torch.tensor([0.0, -torch.inf])
    half = 0.5 * (0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)) + 0.5 * math.log(1 / 0.75)
    for student, teacher in ((possible, impossible), (impossible, possible)):
        value, gradient = divergence_and_gradient(student, teacher, alpha=0.5)
        assert value.item() == pytest.approx(half, rel=1e-6)
        assert gradient.isfinite().all()
    assert token_divergence(possible, impossible, alpha=0).item() == pytest.approx(math.log(2))
    assert token_divergence(possible, impossible, alpha=1).item() == math.inf


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("top_k", [None, 2])
def test_underflowing_probabilities_give_finite_gradients(alpha, top_k):
    student = torch.tensor([[200.0, 0.0, -200.0, -1e4]])
    teacher = torch.tensor([[0.0, 200.0, -1e4, -200.0]])
    for s, t in ((student, teacher), (student, student), (student, -student)):
        value, gradient = divergence_and_gradient(s, t, alpha=alpha, top_k=top_k)
        assert value.isfinite().all()
        assert gradient.isfinite().all()


def test_tail_is_exact_where_its_mass_is_tiny():
    student = torch.tensor([0.0, -30.0, -40.0])
    teacher = torch.tensor([0.0, -40.0, -20.0])
    tail_s, tail_t = math.exp(-30) + math.exp(-40), math.exp(-40) + math.exp(-20)
    top_s, top_t = 1 / (1 + tail_s), 1 / (1 + tail_t)
    expected = tail_t * top_t * (math.log(tail_t * top_t) - math.log(tail_s * top_s)) + top_t * (
        math.log(top_t) - math.log(top_s)
    )
    value = token_divergence(student.double(), teacher.double(), alpha=0, top_k=1)
    assert value.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    student, teacher = logits(2, 3, 11).to(dtype), logits(2, 3, 11, seed=1).to(dtype)
    value, gradient = divergence_and_gradient(student, teacher, alpha=0.5, top_k=4)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    torch.testing.assert_close(value, token_divergence(student.float(), teacher.float(), alpha=0.5, top_k=4))


@pytest.mark.parametrize("top_k", [None, 5])
def test_hidden_states_behind_a_head_of_half_precision_are_compared_in_float32(top_k):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 6, 8, generator=generator).bfloat16()
    weight, tokens = torch.randn(30, 8, generator=generator).bfloat16(), torch.arange(6)
    half = hidden_divergence(student, teacher, tokens, lambda h: h @ weight.T, alpha=0.5, top_k=top_k)
    single = hidden_divergence(student, teacher, tokens, lambda h: (h @ weight.T).float(), alpha=0.5, top_k=top_k)
    assert half.per_token.dtype == half.log_probs.dtype == torch.float32
    assert torch.equal(half.per_token, single.per_token)
    assert torch.equal(half.log_probs, single.log_probs)


def test_importance_is_clipped_per_token_and_detached():
    per_token = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    now = torch.tensor([-1.0, -1.0, -1.0], requires_grad=True)
    old = torch.tensor([-1.0, -1.0 - math.log(3), -1.0 + math.log(2)])
    weighted = clip_importance(per_token, now, old, limit=2.0)
    assert weighted.tolist() == pytest.approx([1.0, 4.0, 1.5])
    weighted.sum().backward()
    assert per_token.grad.tolist() == pytest.approx([1.0, 2.0, 0.5])
    assert now.grad is None


def test_importance_does_not_overflow():
    weighted = clip_importance(torch.ones(1), torch.zeros(1), torch.full((1,), -1e4), limit=2.0)
    assert weighted.item() == pytest.approx(2.0)


@pytest.mark.parametrize("cached", [1, 2 * 13, 1 << 20])
@pytest.mark.parametrize("chunk_tokens", [1, 3, 7, 100])
@pytest.mark.parametrize(("top_k", "add_tail"), [(None, True), (5, True), (5, False)])
def test_chunked_equals_dense_in_value_and_gradient(monkeypatch, cached, chunk_tokens, top_k, add_tail):
    monkeypatch.setattr("opcod.logits._CACHED", cached)
    hidden = torch.randn(7, 6, generator=torch.Generator().manual_seed(2)).requires_grad_()
    teacher_hidden = torch.randn(7, 6, generator=torch.Generator().manual_seed(3)).requires_grad_()
    weight = torch.randn(13, 6, generator=torch.Generator().manual_seed(4))
    tokens = torch.arange(7)

    def head(states):
        return 5 * torch.tanh(states @ weight.T / 5)  # soft-capped

    token_weights = torch.linspace(0.5, 2, 7)
    settings = {"alpha": 0.5, "top_k": top_k, "add_tail": add_tail}
    dense = token_divergence(head(hidden), head(teacher_hidden).detach(), **settings)
    (expected,) = torch.autograd.grad((dense * token_weights).sum(), hidden)
    chunked = hidden_divergence(hidden, teacher_hidden, tokens, head, chunk_tokens=chunk_tokens, **settings)
    (chunked.per_token * token_weights).sum().backward()
    torch.testing.assert_close(chunked.per_token, dense)
    torch.testing.assert_close(hidden.grad, expected)
    assert teacher_hidden.grad is None
    assert not chunked.log_probs.requires_grad
    torch.testing.assert_close(chunked.log_probs, head(hidden).log_softmax(-1)[range(7), tokens].detach())


def test_overlap_is_the_share_of_the_students_likeliest_tokens_among_the_teachers():
    student = torch.tensor([[5.0, 4.0, 3.0, 0.0, 0.0, -1.0], [5.0, 4.0, 3.0, 0.0, 0.0, -1.0]])
    teacher = torch.tensor([[0.0, 5.0, 9.0, 1.0, 2.0, -1.0], [9.0, 8.0, 7.0, 0.0, 0.0, 0.0]])
    tokens = torch.zeros(2, dtype=torch.long)

    def overlap(**settings):
        return hidden_divergence(student, teacher, tokens, torch.nn.Identity(), alpha=0.5, **settings).overlap.tolist()

    assert overlap(top_k=3, chunk_tokens=1) == pytest.approx([2 / 3, 1])  # {0, 1, 2} and {2, 1, 4}; the same three
    assert overlap(top_k=3, add_tail=False) == pytest.approx([2 / 3, 1])
    assert overlap(top_k=1) == [0, 1]
    assert overlap() == [1, 1]


def test_logits_that_the_head_gives_are_left_as_they_are():
    student, teacher = logits(4, 11), logits(4, 11, seed=1)
    before = student.clone(), teacher.clone()
    hidden_divergence(student, teacher, torch.arange(4), torch.nn.Identity(), alpha=0.5, top_k=3)
    assert torch.equal(student, before[0])
    assert torch.equal(teacher, before[1])


def test_head_sees_every_position_once_and_never_more_than_a_chunk():
    seen = []

    def head(states):
        seen.append(len(states))
        return states

    hidden = logits(10, 5).requires_grad_()
    divergence = hidden_divergence(
        hidden, logits(10, 5, seed=1), torch.zeros(10, dtype=torch.long), head, alpha=0.5, chunk_tokens=4
    )
    divergence.per_token.sum().backward()
    assert seen == [4, 4, 4, 4, 2, 2], "student and self-teacher, chunk by chunk"


def test_no_response_position_gives_empty_tensors():
    nothing = torch.zeros(0, 5, requires_grad=True)
    divergence = hidden_divergence(
        nothing, nothing, torch.zeros(0, dtype=torch.long), torch.nn.Identity(), alpha=0.5, top_k=2
    )
    assert divergence.per_token.shape == divergence.log_probs.shape == (0,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"alpha": 1.5}, "alpha 1.5"), ({"alpha": -0.1}, "alpha -0.1"), ({"alpha": 0.5, "top_k": 0}, "top_k 0")],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        token_divergence(logits(1, 2, 3), logits(1, 2, 3), **settings)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(1, 2, 3\) and teacher logits \(1, 2, 4\) differ"):
        token_divergence(logits(1, 2, 3), logits(1, 2, 4), alpha=0.5)


def test_limit_and_chunk_must_be_positive():
    with pytest.raises(ValueError, match="limit 0"):
        clip_importance(torch.ones(1), torch.ones(1), torch.ones(1), limit=0)
    with pytest.raises(ValueError, match="chunk_tokens 0"):
        hidden_divergence(
            logits(1, 2),
            logits(1, 2),
            torch.zeros(1, dtype=torch.long),
            torch.nn.Identity(),
            alpha=0,
            chunk_tokens=0,
        )
