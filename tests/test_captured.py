"""Steps that a GPU would repeat as a captured graph, recorded and repeated here operation by operation."""

import warnings

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

import opcod.captured
import opcod.rollout
from opcod.captured import Waits
from opcod.decoding import SPARE
from opcod.optimization import DivergedError
from opcod.rollout import Rows, Sampling
from test_decoding import FAMILIES, GROUPS, QUEUES, base_of, question
from test_rollout import MANY_ENDS, assert_same

LIMIT = SPARE + 30  # beyond what is allocated at once


class Recorder(TorchDispatchMode):
    """As `captured.Captured`: what was recorded is repeated on the same tensors, and no Python with it.

    On a GPU the recorded operations are not done. Here they are, and are taken back.
    """

    made = 0

    def __init__(self, work, device, before=None):
        super().__init__()
        self.done, self.kept = [], {}
        self.before = [(t, t.clone()) for t in self.state(work)]
        with self:
            work()
        for tensor, value in self.before:
            tensor.copy_(value)
        Recorder.made += 1

    @staticmethod
    def state(work):
        """What a step changes: the rows' tensors, and the keys and values."""
        rows = work.__self__
        layers = rows.cache.layers
        tensors = [t for part in (rows, rows._drafts, rows.cache) for t in vars(part).values() if isinstance(t, Tensor)]
        return [*tensors, *(layer.keys for layer in layers), *(layer.values for layer in layers)]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "a number is waited for"
        assert func is not torch.ops.aten.nonzero.default, "a shape is waited for"
        out = func(*args, **(kwargs or {}))
        self.done.append((func, args, kwargs or {}, out))
        return out

    def __call__(self):
        now = {}

        def current(tensor):
            return now.get(id(tensor), tensor)

        for func, args, kwargs, out in self.done:
            again = func(*tree_map_only(Tensor, current, args), **tree_map_only(Tensor, current, kwargs))
            flat = [(out, again)] if isinstance(out, Tensor) else zip(out, again, strict=True)
            now.update({id(old): new for old, new in flat})


def repeated(base, requests, sampling, ends, after=lambda rows: None):
    """Sample as `sample` does, with steps that are recorded and repeated."""
    with base.using("ann"), torch.no_grad():
        rows = Rows(base, requests, sampling, ends, on_gpu=True)
        while rows.fill():
            with base.decoding(rows.cache):
                while tokens := rows.look():
                    rows.reserve(tokens)
                    for _ in range(tokens):
                        rows.advance()
                        after(rows)
    return [rows.responses[i] for i in range(len(requests))]


@pytest.fixture
def recorder(monkeypatch):
    monkeypatch.setattr(Recorder, "made", 0)
    monkeypatch.setattr(opcod.rollout, "Captured", Recorder)
    return Recorder


CASES = [(family, asked, {}) for family in ("llama", "qwen3") for asked in GROUPS]
CASES += [("qwen3", "feedback", given) for given in ({"temperature": 0.0}, {"temperature": 0.6, "top_p": 0.95})]


@pytest.mark.parametrize(("family", "asked", "settings"), CASES)
def test_repeated_steps_sample_what_plain_ones_do(family, asked, settings, recorder):
    base, asked = base_of(FAMILIES[family](), "sdpa"), GROUPS[asked]
    sampling = Sampling(max_new_tokens=LIMIT, **settings)
    with base.using("ann"):
        plain = opcod.rollout.sample(base, asked, sampling, MANY_ENDS[::12])
    assert not recorder.made
    assert_same(repeated(base, asked, sampling, MANY_ENDS[::12]), plain)
    assert recorder.made >= 1


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.6, "top_p": 0.95}])
@pytest.mark.parametrize("asked", ["groups", "feedback"])
def test_a_step_is_recorded_anew_where_rows_take_the_places_of_others(asked, settings, recorder):
    base, asked = base_of(FAMILIES["qwen3"](), "sdpa"), QUEUES[asked]
    with base.using("ann"):
        plain = opcod.rollout.sample(base, asked, Sampling(max_new_tokens=LIMIT, **settings), MANY_ENDS[::12])
    sampling = Sampling(max_new_tokens=LIMIT, batch_size=9, fill_places=True, **settings)
    assert_same(repeated(base, asked, sampling, MANY_ENDS[::12]), plain)
    assert recorder.made > 3


def test_a_step_is_recorded_anew_where_rows_leave_or_room_is_made(recorder):
    base, asked = base_of(FAMILIES["llama"](), "sdpa"), GROUPS["groups of one size"]
    responses = repeated(base, asked, Sampling(max_new_tokens=LIMIT), ())
    assert all(len(r.tokens) == LIMIT and not r.finished for r in responses)
    assert recorder.made == 2, "at first, and for the second room"
    lengths = [len(r.tokens) for r in repeated(base, asked, Sampling(max_new_tokens=LIMIT), MANY_ENDS[::6])]
    assert len(set(lengths)) > 3
    assert recorder.made > 3


def test_windows_are_not_captured(recorder):
    base = base_of(FAMILIES["gemma3"](), "sdpa")
    repeated(base, GROUPS["groups of one size"], Sampling(max_new_tokens=40), ())
    assert not recorder.made


def test_few_tokens_are_not_worth_a_capture(recorder):
    base = base_of(FAMILIES["llama"](), "sdpa")
    repeated(base, GROUPS["groups of one size"], Sampling(max_new_tokens=16), ())
    assert not recorder.made


def test_what_cannot_be_captured_is_launched_by_itself_and_said_so(monkeypatch):
    class Refused:
        def __init__(self, *_):
            raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(opcod.rollout, "Captured", Refused)
    base, asked = base_of(FAMILIES["llama"](), "sdpa"), GROUPS["groups of one size"]
    sampling = Sampling(max_new_tokens=40)
    with base.using("ann"):
        plain = opcod.rollout.sample(base, asked, sampling, ())
    with pytest.warns(UserWarning, match="not permitted when stream is capturing") as said:
        found = repeated(base, asked, sampling, ())
    assert len([w for w in said if "captured" in str(w.message)]) == 1
    assert_same(found, plain)


def test_want_of_memory_while_capturing_is_no_reason_to_go_on_without(monkeypatch):
    class Full:
        def __init__(self, *_):
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(opcod.rollout, "Captured", Full)
    with pytest.raises(torch.OutOfMemoryError):
        repeated(base_of(FAMILIES["llama"](), "sdpa"), GROUPS["feedback"], Sampling(max_new_tokens=40), ())


def test_numbers_that_are_none_are_noticed_by_the_next_look(recorder):
    base, asked = base_of(FAMILIES["llama"](), "sdpa"), GROUPS["groups of one size"]

    def spoil(rows):
        if rows._drawn == 21:
            rows.cache.layers[0].values.fill_(torch.nan)

    with pytest.raises(DivergedError, match="at token 22 "):
        repeated(base, asked, Sampling(max_new_tokens=40), (), after=spoil)
    assert recorder.made == 1


def test_what_comes_after_a_response_has_ended_may_be_no_number(recorder):
    base, asked = base_of(FAMILIES["llama"](), "sdpa"), GROUPS["groups of one size"]
    sampling = Sampling(max_new_tokens=40)
    whole = repeated(base, asked, sampling, ())
    end = int(whole[0].tokens[20])

    def spoil(rows):
        if rows._drawn == 21:
            rows.cache.layers[0].values[0].fill_(torch.nan)

    first = whole[0].tokens.tolist().index(end) + 1
    found = repeated(base, asked, sampling, (end,), after=spoil)
    assert found[0].tokens.tolist() == whole[0].tokens[:first].tolist()


def test_rows_stay_until_others_fit_into_their_places(recorder):
    base = base_of(FAMILIES["llama"](), "sdpa")
    asked = [r for number in range(1, 6) for r in question(number, 8)]
    with base.using("ann"), torch.no_grad():
        rows = Rows(base, asked, Sampling(max_new_tokens=LIMIT, batch_size=32, fill_places=True), (), on_gpu=True)
        rows.fill()
        rows._drafts.finished[:7] = True
        assert rows.look() > 0
        assert len(rows._live) == 32, "eight begin together"
        rows._drafts.finished[7] = True
        assert rows.look() == 0
        rows.fill()
    assert rows._live == list(range(8, 40))


def test_a_model_that_waits_for_numbers_is_found_out_before_it_is_captured_and_once(recorder):
    config = FAMILIES["llama"]()
    config.rope_parameters = {**config.rope_parameters, "rope_type": "dynamic", "factor": 2.0}
    base, asked = base_of(config, "sdpa"), GROUPS["groups of one size"]
    sampling = Sampling(max_new_tokens=40)
    with base.using("ann"):
        plain = opcod.rollout.sample(base, asked, sampling, ())
    assert base.captures is None, "nothing is captured on a CPU"
    with pytest.warns(UserWarning, match=r"waits for a number .*_local_scalar_dense"):
        assert_same(repeated(base, asked, sampling, ()), plain)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert_same(repeated(base, asked, sampling, ()), plain)
    assert not recorder.made


@pytest.mark.parametrize(
    ("work", "waits"),
    [
        (lambda x: x.sum().item(), True),
        (lambda x: x[x > 0], True),
        (lambda x: x.masked_select(x > 0), True),
        (lambda x: x[torch.tensor([0, 2])], False),
        (lambda x: (2 * x).softmax(0), False),
        (lambda x: x + torch.tensor(2.0), False),
    ],
)
def test_what_waits_for_the_device_is_noticed(work, waits):
    with Waits(torch.device("cpu")) as seen:
        work(torch.ones(3))
    assert bool(seen.found) == waits


def test_a_copy_to_or_from_the_device_is_noticed():
    with Waits(torch.device("meta")) as seen:
        torch.ones(3, device="meta").add(1).copy_(torch.ones(3))
    assert seen.found == "aten.copy_.default"


def test_memory_that_torch_keeps_is_given_back_where_a_capture_finds_none(monkeypatch):
    given_back, made = [], []

    def recorded(work, device, pool):
        if not given_back:
            raise torch.OutOfMemoryError("CUDA out of memory")
        made.append(pool)
        return "graph"

    monkeypatch.setattr(opcod.captured, "_recorded", recorded)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given_back.append(True))
    opcod.captured.Captured(lambda: None, torch.device("cpu"))
    assert made == [None]
    assert given_back == [True]
