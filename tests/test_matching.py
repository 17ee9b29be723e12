import math

import pytest
import torch

from opcod.attempts import Attempt
from opcod.contexts import Context
from opcod.drafts import Response
from opcod.grading import Grade
from opcod.losses import token_divergence
from opcod.matching import Matching, match
from opcod.peers import Peer, SharedBase
from opcod.scoring import response_hidden
from tiny import LORA, QUESTION, load_tiny, random_ids, stir

DENSE = Matching(alpha=0.5, top_k=None, importance_limit=None)


@pytest.fixture
def tutee(tiny_base):
    return peer(tiny_base)


def peer(loaded, **settings):
    made = Peer("ann", "physics", SharedBase(loaded, LORA, **settings))
    made.create(seed=0, source=None)
    for number, role in enumerate(("student", "teacher", "tutor")):
        stir(made.base, made.adapter(role), seed=number)
    return made


def context(number, length, *, old=None, prompt=None, shown=None):
    """A response of `length` random tokens, with `old` as each token's log-probability at rollout."""
    tokens = torch.tensor(random_ids(length, seed=50 + number))
    log_probs = torch.full((length,), -6.0) if old is None else old
    prompt = random_ids(4 + 3 * number, seed=number) if prompt is None else prompt
    response = Response(tokens, log_probs, True)
    attempt = Attempt(QUESTION, number, prompt, response, "", Grade(False, False, None))
    shown = random_ids(20 - 4 * number, seed=100 + number) if shown is None else shown
    return Context(attempt, shown, "s", None)


CONTEXTS = [context(0, 3), context(1, 11), context(2, 7)]


def matched(tutee, contexts, settings):
    """The match, the student's gradients and the names of all parameters that took one."""
    tutee.base.peft.zero_grad()
    result = match(tutee, contexts, settings, lambda loss: loss.backward())
    graded = {n for n, p in tutee.base.peft.named_parameters() if p.grad is not None}
    return result, [p.grad.clone() for p in tutee.parameters()], graded


def reference(tutee, contexts, settings):
    """The loss and its gradients, one response at a time, from all logits of transformers' own forward pass."""
    tutee.base.peft.zero_grad()
    means, sums, count = [], [], 0
    for c in contexts:
        response = c.attempt.response.tokens
        with torch.no_grad(), tutee.using(settings.teacher_role):
            ids = torch.tensor([[*c.prompt, *response.tolist()]])
            teacher = tutee.base.loaded.model(ids).logits[0, len(c.prompt) - 1 : -1]
        with tutee.using("student", train=True):
            ids = torch.tensor([[*c.attempt.prompt, *response.tolist()]])
            student = tutee.base.loaded.model(ids).logits[0, len(c.attempt.prompt) - 1 : -1]
        per_token = token_divergence(
            student, teacher, alpha=settings.alpha, top_k=settings.top_k, add_tail=settings.add_tail
        )
        if settings.importance_limit is not None:
            now = student.detach().log_softmax(-1).gather(1, response[:, None])[:, 0]
            ratio = (now - c.attempt.response.log_probs).exp().clamp(max=settings.importance_limit)
            per_token = per_token * ratio
        means.append(per_token.mean())
        sums.append(per_token.sum())
        count += len(response)
    loss = torch.stack(means).mean() if settings.average == "responses" else torch.stack(sums).sum() / count
    with tutee.using("student", train=True):
        gradients = torch.autograd.grad(loss, tutee.parameters())
    return loss.item(), gradients


def assert_equal(gradients, expected):
    assert max(g.abs().max() for g in expected) > 1e-4
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        Matching(),
        DENSE,
        Matching(alpha=1.0, top_k=20),
        Matching(alpha=0.0, top_k=20, add_tail=False, importance_limit=1.1),
        Matching(average="tokens"),
        Matching(self_teacher="frozen", top_k=None),
        Matching(chunk_tokens=2),
    ],
    ids=["default", "dense", "reverse", "forward", "tokens", "frozen", "chunked"],
)
def test_loss_and_gradient_are_those_of_a_plain_computation(tutee, settings):
    result, gradients, graded = matched(tutee, CONTEXTS, settings)
    loss, expected = reference(tutee, CONTEXTS, settings)
    assert result.loss == pytest.approx(loss, rel=1e-4)
    assert result.tokens == 21
    assert_equal(gradients, expected)
    assert graded == {n for n, _ in tutee.base.peft.named_parameters() if ".ann_student." in n}


@pytest.mark.parametrize("average", ["responses", "tokens"])
def test_micro_batches_of_one_equal_one_batch_of_all(tutee, average):
    whole, gradients, _ = matched(tutee, CONTEXTS, Matching(average=average, micro_batch_tokens=10_000))
    calls = []

    def backward(loss):
        calls.append(float(loss.detach()))
        loss.backward()

    tutee.base.peft.zero_grad()
    split = match(tutee, CONTEXTS, Matching(average=average, micro_batch_tokens=1), backward)
    assert len(calls) == 3
    assert sum(calls) == pytest.approx(split.loss, rel=1e-6)
    assert split.loss == pytest.approx(whole.loss, rel=1e-5)
    assert split.divergence == pytest.approx(whole.divergence, rel=1e-5)
    assert_equal([p.grad for p in tutee.parameters()], gradients)


def test_the_self_teacher_reads_two_micro_batches_at_once(tutee, monkeypatch):
    read = []

    def hidden(base, sequences):
        read.append((len(sequences), torch.is_grad_enabled()))
        return response_hidden(base, sequences)

    monkeypatch.setattr("opcod.matching.response_hidden", hidden)
    lengths = sorted(len(c.prompt) + len(c.attempt.response.tokens) - 1 for c in CONTEXTS)
    assert lengths[0] + lengths[1] > lengths[2]
    matched(tutee, CONTEXTS, Matching(micro_batch_tokens=lengths[2], share_prefixes=False))
    taught, learned = (2, False), (1, True)
    assert read == [taught, learned, learned, (1, False), learned]
    read.clear()
    matched(tutee, CONTEXTS, Matching(micro_batch_tokens=1))
    assert read == [(1, False), learned] * 3, "none is read beside one that is too long by itself"


def test_checkpointed_activations_are_recomputed_under_the_student(tiny_folder):
    plain, recomputed = (
        matched(peer(load_tiny(tiny_folder), checkpoint_activations=c), CONTEXTS, Matching(micro_batch_tokens=1))
        for c in (False, True)
    )
    assert recomputed[0].loss == pytest.approx(plain[0].loss, rel=1e-5)
    assert_equal(recomputed[1], plain[1])


def test_averages_over_responses_and_over_tokens_by_hand(tutee):
    """Two responses of 3 and 11 tokens: (a/3 + b/11) / 2 against (a + b) / 14."""
    pair = CONTEXTS[:2]
    first, second = (matched(tutee, [c], DENSE)[0].loss for c in pair)  # a/3 and b/11
    by_response = matched(tutee, pair, DENSE)[0]
    by_token = matched(tutee, pair, Matching(top_k=None, importance_limit=None, average="tokens"))[0]
    assert abs(first - second) > 1e-3
    assert by_response.loss == pytest.approx((first + second) / 2, rel=1e-5)
    assert by_token.loss == pytest.approx((3 * first + 11 * second) / 14, rel=1e-5)
    for result in (by_response, by_token):
        assert result.divergence == pytest.approx((3 * first + 11 * second) / 14, rel=1e-5)


def test_the_overlap_is_a_mean_over_tokens(tutee):
    """Of two responses of 3 and 11 tokens."""
    first, second, both = (
        matched(tutee, c, Matching(top_k=20))[0].overlap for c in (CONTEXTS[:1], CONTEXTS[1:2], CONTEXTS[:2])
    )
    assert 0 < first != second < 1
    assert both == pytest.approx((3 * first + 11 * second) / 14, abs=1e-6)


def test_tokens_are_weighted_by_how_much_likelier_they_became_up_to_the_limit(tutee):
    """A ratio of exactly 1.5 scales the loss by 1.5, one of 4 by the limit of 2; the divergence shows neither."""
    student = tutee.adapter("student")
    c = CONTEXTS[1]
    ids = torch.tensor([[*c.attempt.prompt, *c.attempt.response.tokens.tolist()]])
    with tutee.base.using(student):
        logits = tutee.base.loaded.model(ids).logits[0, len(c.attempt.prompt) - 1 : -1]
    now = logits.log_softmax(-1).gather(1, c.attempt.response.tokens[:, None])[:, 0]
    unweighted = matched(tutee, [c], DENSE)[0]
    weighted = Matching(top_k=None, importance_limit=2.0)
    for ratio, factor in ((1.0, 1.0), (1.5, 1.5), (4.0, 2.0), (0.25, 0.25)):
        result = matched(tutee, [context(1, 11, old=now - math.log(ratio))], weighted)[0]
        assert result.loss == pytest.approx(factor * unweighted.loss, rel=1e-4)
        assert result.divergence == pytest.approx(unweighted.divergence, rel=1e-4)


def test_a_teacher_that_is_the_student_and_sees_the_same_prompt_has_nothing_to_teach(tutee):
    tutee.copy("student", "teacher")
    same = [context(n, 5, prompt=random_ids(6, seed=n), shown=random_ids(6, seed=n)) for n in range(2)]
    result, gradients, _ = matched(tutee, same, Matching())
    assert result.loss == pytest.approx(0, abs=1e-6)
    assert max(g.abs().max() for g in gradients) < 1e-6
    other = [context(n, 5, prompt=random_ids(6, seed=n)) for n in range(2)]
    assert matched(tutee, other, Matching())[0].loss > 1e-3


def test_the_live_teacher_is_the_student_itself_without_gradient(tutee):
    live, gradients, graded = matched(tutee, CONTEXTS, Matching(self_teacher="live"))
    ema, _, _ = matched(tutee, CONTEXTS, Matching())
    tutee.copy("student", "teacher")
    copied, expected, _ = matched(tutee, CONTEXTS, Matching())
    assert live.loss == pytest.approx(copied.loss, rel=1e-6)
    assert abs(live.loss - ema.loss) > 1e-4
    assert_equal(gradients, expected)
    assert all(".ann_student." in name for name in graded)


def test_the_ema_teacher_moves_and_that_of_a_live_student_is_the_student():
    assert Matching(ema_rate=0.3).teacher_rate == 0.3
    assert Matching(ema_rate=0.3, self_teacher="frozen").teacher_rate == 0
    assert Matching(ema_rate=0.3, self_teacher="live").teacher_rate == 1


def test_impossible_settings_are_refused_all_at_once():
    with pytest.raises(ValueError, match="matching") as error:
        Matching(alpha=1.5, ema_rate=-0.1, top_k=0, micro_batch_tokens=0, chunk_tokens=-1, importance_limit=0.0)
    assert str(error.value) == (
        "matching: alpha is 1.5, expected 0 to 1; ema_rate is -0.1, expected 0 to 1; top_k is 0, expected at least 1; "
        "micro_batch_tokens is 0, expected at least 1; chunk_tokens is -1, expected at least 1; "
        "importance_limit is 0.0, expected above 0"
    )
    Matching(alpha=0, ema_rate=1, top_k=None, importance_limit=None)
