"""The chain of stages: each begins with what the one before left, is not done twice, and moves the right way."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model import weights
from model.tasks.suite import Case
from model.training.distillation import Expert, divergences
from model.training.grpo import Reinforcement
from model.training.heads import inherit_heads, save_heads
from model.training.lessons import Lesson
from model.training.policy import Policy
from model.training.rejection import collected
from model.training.report import CURVES, REPORT, TABLE
from model.training.rollouts import Sampler, draw_prompts, summary
from model.training.sizes import BOX_SUITES, DEBUG, FULL, POINT_SUITES
from model.training.stages import CHECKPOINT, HISTORY, SCORES, STAGES, School, run
from model.training.supervised import Student
from model.training.whole import How
from tests.conftest import DEFAULT_CHECKPOINT
from tests.model.training.debug import CONFIG, CPU, TOKENIZER

BRIEF = replace(DEBUG, validation_cases=1, distillation=replace(DEBUG.distillation, max_output_tokens=8))


def config_folder(folder: Path) -> Path:
    """A folder as a new training begins with: configuration and tokenizer."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    (folder / "tokenizer.json").write_bytes((DEFAULT_CHECKPOINT / "tokenizer.json").read_bytes())
    return folder


def test_a_stage_needs_those_before_it(tmp_path: Path) -> None:
    school = School(config_folder(tmp_path / "config"), tmp_path / "state", BRIEF, How(), CPU)
    with pytest.raises(ValueError, match="box_rl begins with what box_sft ends with: run box_sft first"):
        school.run("box_rl")
    with pytest.raises(ValueError, match="there is no stage 'grpo'; choose from base, box_sft"):
        school.run("grpo")


def test_a_finished_stage_is_scored_and_reported_but_not_done_again(tmp_path: Path) -> None:
    lines: list[str] = []
    school = School(config_folder(tmp_path / "config"), tmp_path / "state", BRIEF, How(), CPU, log=lines.append)
    school.finish("base", Student(CONFIG, TOKENIZER, 0).model, [{"loss": 2.0}, {"loss": 1.0}])
    school.run("base")
    scores = json.loads((tmp_path / "state" / "base" / SCORES).read_text())
    assert set(scores) == {"counting", "maze"} and len(lines) == 1 and lines[0].startswith("stage base: counting ")
    document = json.loads((tmp_path / "state" / REPORT).read_text())
    assert document == {"scores": {"base": scores}, "histories": {"base": [{"loss": 2.0}, {"loss": 1.0}]}}
    school.run("base")
    assert len(lines) == 1


def test_a_stage_that_was_cut_off_while_it_wrote_is_not_finished(tmp_path: Path) -> None:
    school = School(config_folder(tmp_path / "config"), tmp_path / "state", BRIEF, How(), CPU)
    rest = tmp_path / "state" / "base" / "checkpoint.partial"
    rest.mkdir(parents=True)
    (rest / "other.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="run base first"):
        school.run("box_sft")
    school.finish("base", Student(CONFIG, TOKENIZER, 0).model, [])
    assert school.checkpoint("base").is_dir() and not rest.exists()


def test_a_supervised_stage_begins_with_the_dense_heads_of_its_base_and_leaves_its_own(tmp_path: Path) -> None:
    lesson = Lesson("still", 1, {"shapes": 1.0}, batch_tokens=600, peak_lr=0.0, final_lr=0.0)
    sizes = replace(BRIEF, box_sft=(lesson,))
    school = School(config_folder(tmp_path / "config"), tmp_path / "state", sizes, How(), CPU)
    parent = Student(CONFIG, TOKENIZER, 5)
    school.finish("base", parent.model, [])
    save_heads(parent, school.checkpoint("base"))
    school.run("box_sft")
    child = Student(CONFIG, TOKENIZER, 6)
    assert inherit_heads(child, school.checkpoint("box_sft"))
    assert torch.equal(child.cell_head.kinds.weight, parent.cell_head.kinds.weight.bfloat16().float())


@pytest.mark.parametrize("sizes", [DEBUG, FULL])
def test_every_source_of_a_specialist_is_of_its_own_suites(sizes: object) -> None:
    assert sizes in (DEBUG, FULL)
    for name, suites in (("box", BOX_SUITES), ("point", POINT_SUITES)):
        parts = [getattr(sizes, f"{name}_{part}") for part in ("rl", "rollouts")]
        sources = [source for part in parts for source in part.sources]
        sources += [source for lesson in getattr(sizes, f"{name}_sft") for source in lesson.sources]
        assert sources and all(source.partition("/")[0] in suites for source in sources)


def test_a_share_of_the_sizes_is_that_share_of_steps_rounds_and_prompts_and_never_nothing() -> None:
    tenth, least = FULL.shortened(0.1), FULL.shortened(1e-9)
    assert [lesson.steps for lesson in tenth.base] == [round(lesson.steps / 10) for lesson in FULL.base]
    assert (tenth.point_rl.rounds, tenth.box_rollouts.prompts, tenth.distillation.rounds) == (20, 600, 20)
    assert (tenth.box_sft[0].steps, tenth.rejection.steps) == (300, 400)
    assert tenth.box_rl.prompts == FULL.box_rl.prompts
    assert {least.box_sft[0].steps, least.box_rl.rounds, least.point_rollouts.prompts, least.rejection.steps} == {1}


def mean_reward(config: Path, checkpoint: Path, sizes: Reinforcement) -> float:
    """Over responses to prompts that no stage has drawn."""
    prompts = draw_prompts(sizes.sources, 60, np.random.default_rng(1234))
    sampler = Sampler(config, CPU, sizes.max_output_tokens)
    return summary(sampler.groups_of(checkpoint, prompts, 4, 1))["reward"]


def likelihood(checkpoint: Path, rows: Sequence[tuple[Case, Sequence[int]]]) -> float:
    """The mean log-probability of a token of these responses."""
    policy, model = Policy(CONFIG, TOKENIZER, 400, How()), weights.load(checkpoint)
    parcels = policy.parcels([policy.sample(case, ids) for case, ids in rows], 3000, CPU)
    with torch.no_grad():
        return float(torch.cat([policy.log_probabilities(model, parcel) for parcel in parcels]).mean())


def divergence(config: Path, made: Mapping[str, Path], student: Path) -> float:
    """What distillation lowers, on the student's own responses to prompts that no stage has drawn."""
    experts = Expert(made["box_rl"], BOX_SUITES), Expert(made["point_rl"], POINT_SUITES)
    prompts = draw_prompts(DEBUG.distillation.sources, 60, np.random.default_rng(4321))
    groups = Sampler(config, CPU, 128).groups_of(student, prompts, 2, 1)
    models = {expert: weights.load(expert.checkpoint) for expert in experts}
    policy = Policy(CONFIG, TOKENIZER, 128, How())
    means = divergences(weights.load(student), models, policy, groups, 3000, CPU)
    return sum(expert.weight * mean for expert, mean in means.items())


def references(sizes: Reinforcement) -> list[tuple[Case, list[int]]]:
    cases = [prompt.case() for prompt in draw_prompts(sizes.sources, 30, np.random.default_rng(1234))]
    return [(case, [*TOKENIZER.encode(case.response), TOKENIZER.eos_id]) for case in cases]


@pytest.mark.slow
def test_the_whole_chain_at_debug_size_goes_the_right_way(tmp_path: Path) -> None:
    """Minutes on a CPU: what is taught becomes likelier, rewards rise, the student comes nearer to both experts."""
    config, state = config_folder(tmp_path / "config"), tmp_path / "state"
    lines: list[str] = []
    assert run(config, state, DEBUG, log=lines.append) == state / "distillation" / CHECKPOINT
    made = {stage: state / stage / CHECKPOINT for stage in STAGES}

    for name, sizes in (("box", DEBUG.box_rl), ("point", DEBUG.point_rl)):
        taught = references(sizes)
        assert likelihood(made[f"{name}_sft"], taught) > likelihood(made["base"], taught), name
        before, after = (mean_reward(config, made[f"{name}_{stage}"], sizes) for stage in ("sft", "rl"))
        assert after > before, (name, before, after)
    for name in ("box", "point"):
        good = [(prompt.case(), ids) for prompt, ids in collected(state / "rejection" / f"{name}_rollouts")]
        assert good and likelihood(made["rejection"], good) > likelihood(made["base"], good), name

    before, after = (divergence(config, made, made[stage]) for stage in ("rejection", "distillation"))
    assert after < before, (before, after)
    history = json.loads((state / "distillation" / HISTORY).read_text())
    assert len(history) == DEBUG.distillation.rounds and all("kl_box_rl" in row and "reward" in row for row in history)
    assert (state / CURVES).is_file() and all(f"| {stage} |" in (state / TABLE).read_text() for stage in STAGES)
    done = len(lines)
    run(config, state, DEBUG, log=lines.append)
    assert len(lines) == done
