"""What a specialist takes: lessons that go by without numbers against the same ones with them, and by hand."""

from dataclasses import replace

import pytest

from opcod import cli, plan_commands
from opcod.data.jsonl import write_questions
from opcod.data.lesson_data import LessonData
from opcod.data.questions import Question
from opcod.data.sources import GeneratedScience, JsonQuestions
from opcod.lesson_plan import plan_solve, plan_specialise
from opcod.models import BaseModel
from opcod.passes import imitating
from opcod.report.planned import plan_lines
from opcod.rollout import Sampling
from opcod.scoring import Scored
from opcod.solving import Solving
from opcod.specialist import Specialist
from test_plan import DEVICE, simulated
from tiny import LORA

SHORT = Sampling(max_new_tokens=4)


def student(folder, **settings):
    base = BaseModel(model=str(folder), quantization="none", dtype="float32")
    return Specialist(base, LORA, **({"evaluation": SHORT, "solving": Solving(sampling=SHORT)} | settings))


def lessons(source=None, **settings):
    given = {"home_lessons": 20, "other_lessons": 0, "batch_size": 4, "validation": 2} | settings
    return LessonData(source or GeneratedScience(["physics"], levels=[1], train=20), "physics", ["physics"], **given)


@pytest.fixture
def unsolved(tmp_path):
    """Questions that nobody has solved, ten of which are not held out."""
    made = [Question(f"q{i}", "physics", f"Which {i}?", ("left", "right"), "B") for i in range(13)]
    write_questions(tmp_path / "train.jsonl", made[:12])
    write_questions(tmp_path / "test.jsonl", made[12:])
    return JsonQuestions(["physics"], str(tmp_path / "train.jsonl"), str(tmp_path / "test.jsonl"))


# ---- opcod specialise


@pytest.mark.parametrize("micro_batch_tokens", [1, 1000])
def test_operations_of_a_step_by_hand(tiny_folder, micro_batch_tokens):
    """A frozen weight is multiplied once forwards and once for its input, one of the adapter's for itself as well.

    Nothing goes back through the first queries, keys, values and their adapters' A, whose input has no gradient.
    """
    base, prompt, response, count = simulated(tiny_folder), 20, 9, 3
    config = base.loaded.model.config
    read = count * (prompt + response - 1)
    frozen = sum(w.numel() for w in base.linear_weights)
    adapter = sum(p.numel() for p in base.parameters_of("a_student"))
    first = base.loaded.model.model.layers[0].self_attn
    entering = [first.q_proj, first.k_proj, first.v_proj]
    no_input = sum(m.get_base_layer().weight.numel() + m.lora_A["a_student"].weight.numel() for m in entering)
    layers = 2 * (2 * frozen + 3 * adapter - no_input) * read
    queries, keys = prompt + response - 1, 32  # on a CPU keys come in whole vectors
    scores = config.num_hidden_layers * config.hidden_size * queries * keys * count
    attention = 2 * 2 * scores * 3  # queries with keys and weights with values; backwards two products for each
    head = 2 * 2 * config.vocab_size * config.hidden_size * count * response
    rows = [Scored((1,) * prompt, (2,) * response) for _ in range(count)]
    found = imitating(base, "a_student", rows, micro_batch_tokens)
    assert found.flops == layers + attention + head


def test_what_specialising_holds_and_does_by_hand(tiny_folder):
    found = plan_specialise(student(tiny_folder, samples=2), lessons(), epochs=3, device=DEVICE)
    base = simulated(tiny_folder)
    trained = sum(p.numel() for p in base.parameters_of("a_student"))
    assert found.trained == trained
    assert found.standing == {
        "libraries": 0.0,
        "weights": 4.0 * base.parameter_count,
        "adapter": 4.0 * trained,  # no self-teacher and no tutor
        "gradient and optimizer": 12.0 * trained,  # two moments
    }
    assert [p.name for p in (*found.parts, *found.scored)] == ["imitate", "validation"]
    assert (found.steps, found.scorings) == (3 * 5, (3,))
    assert found.memory == sum(found.standing.values()) + max(found.parts[0].memory, found.scored[0].memory)
    work = 15 * found.parts[0].work.flops + 3 * found.scored[0].work.flops
    assert found.run().flops == found.run(least=True).flops == pytest.approx(work)


def test_lessons_that_are_there_are_planned_as_long_as_they_are(tiny_folder, chat):
    data = lessons()
    found = plan_specialise(student(tiny_folder), data, epochs=1, device=DEVICE)
    taught = [len(chat.response(lesson.response)) for lesson in data.lessons]
    assert found.lengths.response == max(taught)
    assert min(taught) <= found.expected.response <= max(taught)
    short = plan_specialise(student(tiny_folder), lessons(), epochs=1, device=DEVICE, response=2)
    assert short.expected.response == 2
    assert short.parts[0].work.flops < found.parts[0].work.flops
    assert short.parts[0].memory == found.parts[0].memory


@pytest.mark.parametrize("file", [None, "later.jsonl"])
def test_before_solving_each_question_has_a_solution_of_the_limit(tiny_folder, unsolved, file):
    model = student(tiny_folder, solving=Solving(sampling=Sampling(max_new_tokens=50)))
    found = plan_specialise(model, lessons(unsolved, solutions=file), epochs=1, device=DEVICE)
    assert (found.steps, found.lengths.response, found.expected.response) == (2, 50, 50)
    assert found.notes[-1].startswith(f"There are no worked solutions {f'in {file}' if file else 'to learn from'} yet")
    assert "each of the 10 questions" in found.notes[-1]
    less = plan_specialise(model, lessons(unsolved, solutions=file), epochs=1, device=DEVICE, response=20)
    assert (less.lengths.response, less.expected.response, less.memory) == (50, 20, found.memory)
    assert less.run().flops < found.run().flops


def test_lessons_that_fill_no_step_are_refused(tiny_folder):
    with pytest.raises(ValueError, match=r"20 lessons do not fill a step of 21: lower `data.batch_size`"):
        plan_specialise(student(tiny_folder), lessons(batch_size=21), epochs=1, device=DEVICE)


# ---- opcod solve


def solving(folder, source, key="unsolved", samples=2, **settings):
    model = student(folder, solving=Solving(samples=samples, sampling=Sampling(max_new_tokens=40), key=key))
    return plan_solve(model, lessons(source), device=DEVICE, **settings)


def test_what_solving_holds_and_does(tiny_folder, unsolved):
    """Ten questions in batches of four; those that are solved alone are not asked again."""
    found = solving(tiny_folder, unsolved)
    base = simulated(tiny_folder)
    adapter = 4.0 * sum(p.numel() for p in base.parameters_of("a_student"))
    assert found.standing == {"libraries": 0.0, "weights": 4.0 * base.parameter_count, "adapter": adapter}
    assert (found.steps, found.scorings, found.trained) == (3, (), 0)
    alone, keyed = found.parts
    assert (alone.name, keyed.name) == ("alone", "keyed")
    assert keyed.work.flops > alone.work.flops, "the key makes the prompt longer"
    assert found.run().flops == pytest.approx(3 * (alone.work.flops + keyed.work.flops))
    assert found.run(least=True).flops == pytest.approx(3 * alone.work.flops)
    twice = solving(tiny_folder, unsolved, samples=4).run().flops
    assert found.run().flops < twice < 2 * found.run().flops, "a prompt is read once for all its responses"


@pytest.mark.parametrize(("key", "asked"), [("never", ["alone"]), ("always", ["keyed"])])
def test_who_is_asked_one_way_alone_always_is(tiny_folder, unsolved, key, asked):
    found = solving(tiny_folder, unsolved, key=key)
    assert [p.name for p in found.parts] == asked
    assert found.run() == found.run(least=True)


def test_shorter_solutions_take_less_work_and_the_same_memory(tiny_folder, unsolved):
    long, short = solving(tiny_folder, unsolved), solving(tiny_folder, unsolved, response=10)
    assert short.memory == long.memory
    assert short.run().flops < long.run().flops


def test_what_is_solved_already_is_not_planned(tiny_folder, unsolved, tmp_path):
    file = tmp_path / "s.jsonl"
    data = lessons(unsolved, solutions=str(file))
    data.setup("predict")
    solved = [replace(q, solution="mine") for q in data.unsolved]
    write_questions(file, solved[:7])
    assert plan_solve(student(tiny_folder), data, device=DEVICE).steps == 1
    write_questions(file, solved)
    with pytest.raises(ValueError, match=f"no question is left to be solved: {file} has them all"):
        plan_solve(student(tiny_folder), data, device=DEVICE)


# ---- the command


def run(folder, *arguments):
    model = [f"--model.base.model={folder}", "--model.base.quantization=none", "--data.source.train=40"]
    few = ["--data.other_lessons=0", "--trainer.accelerator=cpu", "--model.evaluation.max_new_tokens=4"]
    cli.main(["plan", arguments[0], "-c=configs/specialist.yaml", *model, *few, *arguments[1:]])


@pytest.mark.parametrize(
    ("command", "part", "total", "said"),
    [
        ("specialise", "imitate, a step", "the run, 225 steps", "M trained in a student"),
        ("solve", "keyed, a step", "the run, 3 steps with none shown it", "none trained"),
    ],
)
def test_the_command_prints_memory_and_work(tiny_folder, tmp_path, capsys, recwarn, command, part, total, said):
    before = list(tmp_path.iterdir())
    run(tiny_folder, command, "--device=h100", f"--output={tmp_path / 'out'}")
    out = " ".join(capsys.readouterr().out.split())
    for expected in ("at its peak", part, total, said, "not yet measured"):
        assert expected in out
    assert list(tmp_path.iterdir()) == before, "nothing is written"
    assert not [w for w in recwarn if "trainer.callbacks" in str(w.message)], "nobody has left out any"


def test_fit_may_be_named_as_the_others_are(tiny_folder):
    pair = ["-c=configs/base.yaml", "-c=configs/pair-physics-chemistry.yaml", "--model.samples=3"]
    for named in ([], ["fit"]):
        assert plan_commands.planned([*named, *pair]).model.samples == 3


@pytest.mark.parametrize("command", ["solve", "specialise"])
def test_each_has_its_own_help(command, capsys):
    with pytest.raises(SystemExit):
        cli.main(["plan", command, "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert f"usage: opcod plan {command} [-c CONFIG ...] [--device NAME]" in out
    assert "Tokens that a response is expected to take" in out
    assert "--model.solving.samples" in out


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["evaluate"], 2, "'evaluate' cannot be planned: expected fit, solve, specialise, or options"),
        (["solve", "--device=tpu"], 2, "device: Expected a typing.Literal['cpu'"),
        (["specialise", "--response_tokens=0"], 2, "response_tokens"),
        (["specialise", "--data.home=alchemy"], 1, "unknown domain 'alchemy'"),
        (["specialise", "--data.batch_size=5000"], 1, "1200 lessons do not fill a step of 5000"),
        (["solve", "--model.base.model=./nowhere"], 1, "there is no folder nowhere"),
    ],
)
def test_bad_arguments_are_named(tiny_folder, capsys, arguments, status, said):
    with pytest.raises(SystemExit) as stopped:
        run(tiny_folder, *arguments)
    assert stopped.value.code == status
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", ["solve", "specialise"])
def test_a_plan_without_a_home_is_refused(tiny_folder, capsys, command):
    with pytest.raises(SystemExit):
        run(tiny_folder, command, "--data.home=null")
    assert "no question is asked for: name a domain as `data.home`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            "specialise",
            "lower `micro_batch_tokens`, `evaluation.batch_size`, set `checkpoint_activations` to true, or quantise",
        ),
        ("solve", "lower `solving.sampling.batch_size`, or quantise the base"),
    ],
)
def test_what_would_make_it_fit_is_said(tiny_folder, unsolved, command, said):
    device = replace(DEVICE, memory=1e5)
    if command == "solve":
        found = plan_solve(student(tiny_folder), lessons(unsolved), device=device)
    else:
        found = plan_specialise(student(tiny_folder), lessons(), epochs=1, device=device)
    assert said in list(plan_lines(found))[-1]
