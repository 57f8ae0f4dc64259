"""Checkpoint folders: the released format and back, and an explanation for everything that is wrong with one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from model import load
from model.checkpoint import INDEX
from model.prompt import Tokenizer
from model.quantization import dequantize_fp4, dequantize_fp8
from model.weights import save
from tests.tiny import TINY, tiny_model

TOKENIZER = Path(__file__).parents[2] / "model" / "checkpoints" / "default" / "tokenizer.json"
SMALL_SHARD = 60_000
EXPERT = "layers.1.ffn.experts.2.w1"
Change = Callable[[dict[str, Tensor]], object]


@pytest.fixture
def released(tmp_path: Path) -> Path:
    folder = tmp_path / "released"
    save(tiny_model(TINY), folder, released=True, max_shard_bytes=SMALL_SHARD)
    shutil.copy(TOKENIZER, folder)
    return folder


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def rewritten(folder: Path, change: Change) -> Path:
    """The checkpoint as one file without an index, after `change` of its tensors."""
    tensors = tensors_of(folder)
    change(tensors)
    for path in [*folder.glob("*.safetensors"), folder / INDEX]:
        path.unlink(missing_ok=True)
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_the_released_format_holds_the_released_types(released: Path) -> None:
    tensors = tensors_of(released)
    assert tensors["layers.1.attn.wq_a.weight"].dtype == torch.float8_e4m3fn
    assert tensors["layers.1.attn.indexer.wq_b.scale"].dtype == torch.float8_e8m0fnu
    assert tensors[f"{EXPERT}.weight"].dtype == torch.int8
    assert tensors[f"{EXPERT}.weight"].shape == (TINY.moe_intermediate_size, TINY.hidden_size // 2)
    assert tensors["layers.1.attn.compressor.wkv.weight"].dtype == torch.bfloat16
    assert tensors["layers.1.hc_attn_fn"].dtype == tensors["layers.1.ffn.gate.bias_vl"].dtype == torch.float32
    assert tensors["layers.0.ffn.gate.tid2eid"].dtype == torch.int64
    assert not any(name.startswith("vision") and name.endswith("scale") for name in tensors)
    shards = sorted(released.glob("*.safetensors"))
    assert len(shards) > 3 and shards[0].name == f"model-00001-of-{len(shards):05}.safetensors"
    assert set(json.loads((released / INDEX).read_text())["weight_map"]) == set(tensors)


def test_every_tensor_arrives_as_its_formula_says(tmp_path: Path) -> None:
    save(tiny_model(TINY), tmp_path, released=True, max_shard_bytes=1)
    tensors = tensors_of(tmp_path)
    # One tensor a shard, so that scales are apart from their weights.
    index = json.loads((tmp_path / INDEX).read_text())["weight_map"]
    assert any(index[name] != index[name[:-5] + "weight"] for name in index if name.endswith(".scale"))
    for dtype in (torch.float32, torch.bfloat16):
        for name, tensor in load(tmp_path, dtype=dtype).state_dict().items():
            stored = tensors[name]
            scale = tensors.get(name.removesuffix("weight") + "scale")
            if scale is not None:
                widen = dequantize_fp8 if stored.dtype == torch.float8_e4m3fn else dequantize_fp4
                stored = widen(stored, scale, dtype)
            assert torch.equal(tensor.double(), stored.to(tensor.dtype).double()), name
            assert tensor.dtype in (dtype, torch.float32, torch.int64)


def test_a_default_save_comes_back_as_it_was(tmp_path: Path) -> None:
    model = tiny_model(TINY)
    save(model, tmp_path, torch.float32)
    assert not (tmp_path / INDEX).exists()
    back = load(tmp_path).state_dict()
    assert all(torch.equal(tensor, back[name]) for name, tensor in model.state_dict().items())
    save(model, tmp_path, torch.float32)  # over itself, as training does
    with pytest.raises(ValueError, match=r"holds other weights \(model\.safetensors\)"):
        save(model, tmp_path, released=True)


def test_packed_experts_answer_as_dequantised_ones(released: Path) -> None:
    ids = [0, 5, 9, Tokenizer(TOKENIZER).image_id, 7, 8]
    image = Image.radial_gradient("L").convert("RGB")
    plain, packed = load(released), load(released, packed_experts=True)
    assert packed.get_buffer(f"{EXPERT}.weight").dtype == torch.uint8
    assert torch.equal(plain.logits(ids, [image]), packed.logits(ids, [image]))
    with pytest.raises(ValueError, match="packed"):
        save(packed, released.parent / "again")


def test_logits_are_those_of_the_expanded_prompt_in_the_given_type(released: Path) -> None:
    placeholder = Tokenizer(TOKENIZER).image_id
    image = Image.radial_gradient("L").convert("RGB")
    for dtype in (torch.float32, torch.bfloat16):
        model = load(released, dtype=dtype)
        one, two = (model.logits([0, *[placeholder, 4] * count], [image] * count) for count in (1, 2))
        assert one.dtype == dtype and one.shape[1] == TINY.vocab_size and bool(one.isfinite().all())
        assert len(one) > 10 and len(two) > 2 * len(one) - 8
    with pytest.raises(ValueError, match="1 image placeholders for 0 images"):
        model.logits([0, placeholder], [])
    with pytest.raises(ValueError, match="0 image placeholders for 1 images"):
        model.logits([0, 1], [image])
    with pytest.raises(ValueError, match="3456 is outside the vocabulary of 3456"):
        model.logits([0, 3456], [])
    with pytest.raises(ValueError, match="no tokens"):
        model.logits([], [])
    (released / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        load(released).logits([0, placeholder], [image])


def test_the_two_biases_of_a_gate_are_not_confused(released: Path) -> None:
    def set_apart(tensors: dict[str, Tensor]) -> None:
        tensors["layers.1.ffn.gate.bias"] = torch.full((4,), 1.0)
        tensors["layers.1.ffn.gate.bias_vl"] = torch.full((4,), 2.0)

    model = load(rewritten(released, set_apart))
    assert model.get_parameter("layers.1.ffn.gate.bias").tolist() == [1.0] * 4
    assert model.get_parameter("layers.1.ffn.gate.bias_vl").tolist() == [2.0] * 4
    rewritten(released, lambda tensors: tensors.pop("layers.1.ffn.gate.bias_vl"))
    with pytest.raises(ValueError, match=r"gate\.bias_vl is missing"):
        load(released)


def test_draft_tensors_are_passed_by_and_counted(released: Path) -> None:
    assert load(released).skipped_draft_tensors == 0
    draft = {"mtp.0.norm.weight": torch.ones(3), "mtp.2.x.scale": torch.ones(1), "mtp.0.ffn.gate.bias": torch.ones(4)}
    assert load(rewritten(released, lambda tensors: tensors.update(draft))).skipped_draft_tensors == 3


def put(name: str, tensor: Tensor) -> Change:
    return lambda tensors: tensors.update({name: tensor})


WRONG: dict[str, tuple[Change, str]] = {
    "missing": (lambda t: t.pop("norm.weight"), r"norm\.weight is missing \(1 .* shape \[32\]"),
    "missing scale": (lambda t: t.pop(f"{EXPERT}.scale"), r"experts\.2\.w1\.scale is missing .* shape \[24, 1\]"),
    "unknown": (put("layers.1.attn.wq_c.weight", torch.ones(2)), r"unknown tensor layers\.1\.attn\.wq_c\.weight of "),
    "idle scale": (put("embed.scale", torch.ones(1)), r"unknown tensor embed\.scale"),
    "misshapen": (put("norm.weight", torch.ones(31)), r"norm\.weight has shape \[31\] as F32, wanted \[32\]"),
    "half packed": (
        put(f"{EXPERT}.weight", torch.zeros(24, 32, dtype=torch.int8)),
        r"w1\.weight has shape \[24, 32\] as I8, wanted \[24, 16\]",
    ),
    "misshapen scale": (
        put("layers.1.attn.wkv.scale", torch.zeros(2, 1, dtype=torch.uint8).view(torch.float8_e8m0fnu)),
        r"wkv\.scale has shape \[2, 1\] as F8_E8M0, wanted \[1, 1\]",
    ),
    "cast scale": (put("layers.1.attn.wkv.scale", torch.ones(1, 1)), r"wkv\.scale is stored as F32, wanted F8_E8M0"),
    "wrong type": (put("norm.weight", torch.ones(32).long()), r"norm\.weight is stored as I64 .* can't become"),
    "float table": (put("layers.0.ffn.gate.tid2eid", torch.ones(3456, 2)), r"tid2eid is stored as F32"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_tensor_stops_the_load_with_its_name_and_both_shapes(released: Path, case: str) -> None:
    change, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        load(rewritten(released, change))


def test_packing_needs_experts_stored_in_fp4(tmp_path: Path) -> None:
    save(tiny_model(TINY), tmp_path)
    with pytest.raises(ValueError, match=r"stored as BF16 .* packed FP4 \(without packed_experts"):
        load(tmp_path, packed_experts=True)


def test_a_wrong_index_or_shard_is_explained(released: Path) -> None:
    index_file = released / INDEX
    good = json.loads(index_file.read_text())
    first, second = sorted(set(good["weight_map"].values()))[:2]
    names = [name for name, shard in good["weight_map"].items() if shard == first]

    def with_map(changes: dict[str, str], without: str = "") -> None:
        weight_map = {name: shard for name, shard in good["weight_map"].items() if name != without}
        index_file.write_text(json.dumps({"weight_map": weight_map | changes}))

    with_map({names[0]: "model-99999-of-99999.safetensors"})
    with pytest.raises(ValueError, match=r"names the shard model-99999-of-99999\.safetensors, which is missing"):
        load(released)
    with_map({"layers.9.nowhere": second})
    with pytest.raises(ValueError, match=rf"says that layers\.9\.nowhere is in {second}, which does not hold it"):
        load(released)
    with_map({names[0]: second})
    with pytest.raises(ValueError, match=rf"{first} holds {names[0]}, but .* says {second}"):
        load(released)
    with_map({}, without=names[0])
    with pytest.raises(ValueError, match=rf"{first} holds {names[0]}, but .* does not name it"):
        load(released)
    with_map({names[0]: "../model.safetensors"})
    with pytest.raises(ValueError, match="only safetensors of the folder"):
        load(released)
    index_file.write_text("[]")
    with pytest.raises(ValueError, match="not a JSON object"):
        load(released)
    index_file.unlink()
    assert load(released).image_id == Tokenizer(TOKENIZER).image_id  # without an index, the shards' own headers
    shutil.copy(released / first, released / "copy.safetensors")
    with pytest.raises(ValueError, match="is in two shards"):
        load(released)
    (released / "copy.safetensors").unlink()
    (released / second).write_bytes((released / second).read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"{second}: cut short"):
        load(released)
    (released / second).write_bytes(b"\xff" * 20)
    with pytest.raises(ValueError, match="not a safetensors file"):
        load(released)


def test_pickle_files_are_never_opened(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(TINY.to_dict()))
    with pytest.raises(ValueError, match="give a checkpoint folder"):
        load(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ValueError, match=r"only pytorch_model\.bin: pickle files can run code"):
        load(tmp_path)
