"""What sequences begin with is read once: nothing of what is computed changes, only how much is read."""

import dataclasses
from dataclasses import replace

import pytest
import torch

from opcod.contexts import Context
from opcod.matching import Matching
from opcod.peers import Peer, SharedBase
from opcod.prefixes import equal_runs, kindred_runs, left_padded, positions, shared_length
from opcod.rollout import Request, Sampling, sample
from opcod.scoring import Scored, token_batches
from test_decoding import FAMILIES, base_of
from test_matching import assert_equal, context, matched, peer, reference
from test_rollout import assert_same
from tiny import LORA, QUESTION, load_tiny, random_ids, stir


def of_question(name, number, start, length):
    """A context whose prompts begin as those of all contexts with the same `start`."""
    shown = (*random_ids(40, seed=200 + start), *random_ids(1 + 2 * number, seed=300 + number))
    made = context(number, length, prompt=random_ids(20 + start, seed=400 + start), shown=shown)
    attempt = dataclasses.replace(made.attempt, question=replace(QUESTION, id=name))
    return Context(attempt, shown, "s", None)


CONTEXTS = [
    of_question("first", 0, 0, 5),
    of_question("first", 1, 0, 9),
    of_question("first", 2, 0, 3),
    of_question("second", 3, 5, 4),
    of_question("second", 4, 5, 8),
    of_question("third", 5, 2, 6),
]


@pytest.fixture
def reads(monkeypatch):
    """The number of tokens that each forward pass reads."""
    seen = []
    hidden = SharedBase.hidden
    monkeypatch.setattr(
        SharedBase, "hidden", lambda self, ids, **settings: seen.append(ids.numel()) or hidden(self, ids, **settings)
    )
    return seen


@pytest.mark.parametrize("micro_batch_tokens", [10_000, 150, 1])
def test_shared_prefixes_change_neither_loss_nor_gradient(tiny_base, reads, micro_batch_tokens):
    tutee = peer(tiny_base)
    settings = Matching(micro_batch_tokens=micro_batch_tokens)
    plain, expected, _ = matched(tutee, CONTEXTS, replace(settings, share_prefixes=False))
    read_plainly = sum(reads)
    reads.clear()
    shared, gradients, graded = matched(tutee, CONTEXTS, settings)
    assert shared.loss == pytest.approx(plain.loss, rel=1e-5)
    assert shared.divergence == pytest.approx(plain.divergence, rel=1e-5)
    assert_equal(gradients, expected)
    assert graded == {n for n, _ in tutee.base.peft.named_parameters() if ".ann_student." in n}
    if micro_batch_tokens > 1:
        assert sum(reads) < 0.75 * read_plainly
    loss, gradients_of_reference = reference(tutee, CONTEXTS, settings)
    assert shared.loss == pytest.approx(loss, rel=1e-4)
    assert_equal(gradients, gradients_of_reference)


def test_a_right_response_that_is_shown_to_several_is_read_once(tiny_base, reads):
    tutee = peer(tiny_base)
    question, solution, ends = (
        random_ids(30, seed=1),
        random_ids(50, seed=2),
        [random_ids(3, seed=s) for s in (3, 4, 5)],
    )
    stranger = replace(of_question("first", 1, 0, 4), prompt=(*question, *ends[0]), solution="another")
    others = [
        replace(of_question("first", 2 + i, 0, 4), prompt=(*question, *solution, *end), solution="s")
        for i, end in enumerate(ends)
    ]
    plain, expected, _ = matched(tutee, [stranger, *others], Matching(share_prefixes=False))
    reads.clear()
    shared, gradients, _ = matched(tutee, [stranger, *others], Matching())
    assert shared.loss == pytest.approx(plain.loss, rel=1e-5)
    assert_equal(gradients, expected)
    assert reads[:2] == [30, 2 * 50], "the question, which both begin with; then s beside what the stranger is shown"


def of_two_solutions(name, number, *, swap):
    """Six contexts of a question of which one is shown another s than the rest, wherever it stands."""
    asked, solutions = random_ids(25 + number, seed=number), [random_ids(12 + i, seed=60 + i) for i in (number, 9)]
    contexts = []
    for j in range(6):
        which = int(j == swap)
        made = of_question(name, j, number, 3 + (5 * j + number) % 7)
        end = random_ids(2 + j % 3, seed=70 + j)
        contexts.append(replace(made, prompt=(*asked, *solutions[which], *end), solution=f"s{which}"))
    return contexts


@pytest.mark.parametrize("attention", ["opcod_grouped", "opcod_causal"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("micro_batch_tokens", [10_000, 300, 1])
def test_a_question_behind_which_two_solutions_stand_is_read_once(reads, family, micro_batch_tokens, attention):
    tutee = Peer("ann", "physics", base_of(FAMILIES[family](), attention))
    tutee.create(seed=0, source=None)
    for number, role in enumerate(("student", "teacher")):
        stir(tutee.base, tutee.adapter(role), seed=number)
    contexts = [c for i in range(3) for c in of_two_solutions(f"q{i}", i, swap=2 * i)] + CONTEXTS[:1]
    settings = Matching(micro_batch_tokens=micro_batch_tokens)
    plain, expected, _ = matched(tutee, contexts, replace(settings, share_prefixes=False))
    reads.clear()
    shared, gradients, _ = matched(tutee, contexts, settings)
    assert shared.loss == pytest.approx(plain.loss, rel=1e-5)
    assert_equal(gradients, expected)
    assert [len(d) for d in shared.per_token] == [len(c.attempt.response.tokens) for c in contexts]
    for found, alike in zip(shared.per_token, plain.per_token, strict=True):
        torch.testing.assert_close(found, alike, rtol=1e-4, atol=1e-6)
    if micro_batch_tokens == 10_000 and family != "gemma3":  # one with windows reads no prefix behind another
        assert reads[0] == 4 * 27, "three questions, and as much of the stranger, padded"


def test_kindred_runs():
    a, b, c = (1, 2, 3, 4), (1, 2, 9, 9, 9), (1, 2, 9, 8, 7, 6, 5)
    assert [list(run) for run in kindred_runs([a, b, c, (), (1, 5, 5, 5), (1, 5, 6, 6)])] == [[0, 1, 2], [3], [4, 5]]
    assert list(kindred_runs([])) == []


@pytest.mark.parametrize("micro_batch_tokens", [10_000, 150])
@pytest.mark.parametrize("settings", [{}, {"quantization": "nf4", "packed": "yes"}], ids=["float32", "nf4"])
def test_what_is_recomputed_shares_its_prefixes(tiny_folder, reads, settings, micro_batch_tokens):
    loaded, matching = load_tiny(tiny_folder, **settings), Matching(micro_batch_tokens=micro_batch_tokens)
    plain, expected, _ = matched(peer(loaded), CONTEXTS, replace(matching, share_prefixes=False))
    loaded = load_tiny(tiny_folder, **settings)
    tutee = peer(loaded, checkpoint_activations=True)
    reads.clear()
    found, gradients, _ = matched(tutee, CONTEXTS, matching)
    assert found.loss == pytest.approx(plain.loss, rel=1e-5)
    assert_equal(gradients, expected)
    recomputed = sum(reads)
    tutee.base.checkpoint_activations = False
    reads.clear()
    matched(tutee, CONTEXTS, matching)
    assert recomputed == sum(reads), "as much as where activations are kept"


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {}])
def test_responses_to_prompts_that_begin_alike_are_those_to_prompts_read_apart(tiny_base, reads, settings, share):
    base = SharedBase(tiny_base, LORA)
    base.add_adapter("ann", seed=1)
    stir(base, "ann", seed=2)
    reads.clear()
    prompts = [(*random_ids(20, seed=s), *random_ids(n, seed=n)) for s in (1, 2) for n in (3, 6, 1)]
    prompts += [prompts[-1], random_ids(7, seed=9)]  # one of them twice, and a stranger
    starts = [20] * 7 + [0]

    def respond(shared, share):
        requests = [Request(p, (0, i), s) for i, (p, s) in enumerate(zip(prompts, shared, strict=True))]
        sampling = Sampling(max_new_tokens=12, share_prefixes=share, **settings)
        with base.using("ann"):
            return sample(base, requests, sampling, tuple(range(0, 600, 8)))

    apart, together = respond([0] * len(prompts), False), respond(starts, share)
    assert len({len(r.tokens) for r in apart}) > 1
    assert_same(apart, together)
    assert reads.count(3 * 20) == 1, "three prefixes, two of them real, are read together, once"


def test_shared_length():
    assert shared_length([(1, 2, 3)]) == 2
    assert shared_length([(1, 2, 3), (1, 2, 4), (1, 2, 3, 9)]) == 2
    assert shared_length([(1, 2, 3), (1, 2, 3)]) == 2, "one token is left to read"
    assert shared_length([(1,), (1, 2)]) == 0
    assert shared_length([(5, 1), (6, 1)]) == 0


def test_left_padding():
    ids, mask = left_padded([(7, 8, 9), (), (4,)], torch.device("cpu"))
    assert ids.tolist() == [[7, 8, 9], [0, 0, 0], [0, 0, 4]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 1]]
    assert positions(mask).tolist() == [[0, 1, 2], [0, 0, 0], [0, 0, 0]]


def test_equal_runs():
    assert [list(run) for run in equal_runs(["a", "a", "b", "a"])] == [[0, 1], [2], [3]]
    assert list(equal_runs([])) == []


def scored(prompt, response, shared=0, start=0):
    return Scored((*random_ids(shared, seed=start), *random_ids(prompt - shared, seed=7)), (5,) * response, shared)


def test_micro_batches_hold_every_sequence_once_within_their_tokens():
    alone = [scored(prompt, 10) for prompt in (30, 5, 70, 12, 33, 8)]
    batches = token_batches(alone, 100)
    assert sorted(i for batch in batches for i in batch) == list(range(6))
    assert all(len(batch) * max(alone[i].own for i in batch) <= 100 for batch in batches)
    assert batches[0] == [2]
    assert token_batches(alone, 1) == [[2], [4], [0], [3], [5], [1]], "longest first"


@pytest.mark.parametrize(("shared", "together"), [((20, 20), True), ((20, 24), False)])
def test_a_large_family_is_not_padded_for_another(shared, together):
    rows = [*[scored(30, 10, shared[0], 1)] * 3, scored(30, 10, shared[1], 2)]
    assert len(token_batches(rows, 130)) == (1 if together else 2)
    assert len(token_batches(rows, 160)) == 1, "less than half"


def test_micro_batches_keep_those_together_that_share_a_prefix():
    families = [scored(50, 10, 40, start) for start in (1, 1, 1, 2, 2, 2)]
    assert token_batches(families, 100) == [[0, 1, 2], [3, 4, 5]]
    assert token_batches(families, 200) == [[0, 1, 2, 3, 4, 5]]
    assert token_batches(families, 80) == [[0, 1], [2], [3, 4], [5]], "in parts, where they do not fit"
    assert token_batches(families, 1) == [[0], [1], [2], [3], [4], [5]]
