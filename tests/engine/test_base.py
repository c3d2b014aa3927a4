"""Loading a base from a folder, what it calls itself, and the ends of its texts."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from app.core.errors import InvalidInput, SetupError
from app.engine.base import (
    BaseOptions,
    context_tokens,
    load_base,
    load_tokenizer,
    pick_device,
    pick_quantization,
)
from app.engine.fingerprint import fingerprint
from tests.engine.tiny import (
    BOS,
    CONTEXT,
    EOS,
    FAMILIES,
    VOCABULARY,
    as_base,
    make_base,
    make_model,
    make_tokenizer,
    tokenizer_of,
    write_base,
)

OPTIONS = BaseOptions(name="tiny", hub_id="tiny/random", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A folder of a base that a test may change."""
    return Path(shutil.copytree(original, tmp_path / "base"))


def test_a_folder_becomes_a_base(folder: Path) -> None:
    base = load_base(OPTIONS, folder)
    assert (base.info.name, base.hub_id, base.info.quantization) == ("tiny", "tiny/random", "none")
    assert (base.info.dtype, base.info.device, base.info.context_tokens) == ("float32", "cpu", CONTEXT)
    assert base.info.num_parameters == make_model("llama").num_parameters()
    assert base.eos_ids == {EOS}
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


def test_bases_that_are_loaded_at_once_leave_transformers_as_it_was(folder: Path) -> None:
    """A bug: two overlapping loads switched off weight tying for the process, and a later pull had no head to save."""
    before = PreTrainedModel.tie_weights
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: load_base(OPTIONS, folder), range(12)))
    assert PreTrainedModel.tie_weights is before


def test_the_number_format_is_as_asked(folder: Path) -> None:
    base = load_base(replace(OPTIONS, dtype="bfloat16"), folder)
    assert base.info.dtype == "bfloat16"
    assert {parameter.dtype for parameter in base.model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_says_how_much_it_reads(family: str) -> None:
    assert context_tokens(make_model(family).config) == CONTEXT


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_the_fingerprint_changes_with_one_byte(folder: Path, file: str) -> None:
    before = fingerprint(folder, quantization="none")
    content = bytearray((folder / file).read_bytes())
    content[-2] ^= 1
    (folder / file).write_bytes(content)
    assert fingerprint(folder, quantization="none") != before
    content[-2] ^= 1
    (folder / file).write_bytes(content)
    assert fingerprint(folder, quantization="none") == before


@pytest.mark.parametrize("file", ["tokenizer.model", "merges.txt", "vocab.json"])
def test_every_file_of_a_tokenizer_counts(folder: Path, file: str) -> None:
    """A bug: only .json files did, so that a base with other merges had the same fingerprint."""
    before = fingerprint(folder, quantization="none")
    (folder / file).write_text("a b\n")
    with_file = fingerprint(folder, quantization="none")
    (folder / file).write_text("a c\n")
    assert len({before, with_file, fingerprint(folder, quantization="none")}) == 3


def test_the_fingerprint_covers_the_quantization_and_not_the_place(folder: Path, original: Path) -> None:
    assert fingerprint(folder, quantization="nf4") != fingerprint(folder, quantization="none")
    assert fingerprint(folder, quantization="none") == fingerprint(original, quantization="none")
    (folder / "notes.md").write_text("not part of a model")
    (folder / "manifest.json").write_text("{}")
    assert fingerprint(folder, quantization="none") == fingerprint(original, quantization="none")


def test_digests_are_kept_by_size_and_time(folder: Path) -> None:
    """A file of the same size and time is not read again: 30 GB would take minutes at each start."""
    weights = folder / "model.safetensors"
    before = fingerprint(folder, quantization="none")
    stat, content = weights.stat(), bytearray(weights.read_bytes())
    content[-2] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert fingerprint(folder, quantization="none") == before
    (folder / ".digests.json").write_text("damaged")
    assert fingerprint(folder, quantization="none") != before


def test_a_folder_that_cannot_be_written_to_has_a_fingerprint(folder: Path) -> None:
    before = fingerprint(folder, quantization="none")
    (folder / ".digests.json").unlink()
    (folder / ".digests.json").mkdir()  # writing fails for root too
    assert fingerprint(folder, quantization="none") == before


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", None),
        ("config.json", b"{}"),
        ("config.json", b'{"model_type": "never heard of"}'),
        ("config.json", b'{"model_type": "t5"}'),
        ("model.safetensors", None),
        ("model.safetensors", b"short"),
        ("tokenizer.json", None),
        ("tokenizer.json", b"{"),
    ],
)
def test_a_folder_that_is_no_base_is_told_in_one_line(folder: Path, file: str, content: bytes | None) -> None:
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(SetupError, match="cannot load the base 'tiny' from ") as refusal:
        load_base(OPTIONS, folder)
    assert "\n" not in refusal.value.message


def test_pickled_weights_are_refused(folder: Path) -> None:
    """They run code when they are read, and the fingerprint does not cover them."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(SetupError, match=r"cannot load the base 'tiny' from .*safetensors"):
        load_base(OPTIONS, folder)


def test_weights_that_were_cut_off_are_told(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(SetupError, match="cannot load the base 'tiny' from "):
        load_base(OPTIONS, folder)


def test_a_tokenizer_without_an_end_borrows_the_models(folder: Path) -> None:
    tokenizer = tokenizer_of(tokenizer_file=str(folder / "tokenizer.json"))
    assert tokenizer.eos_token_id is None
    base = as_base(make_model("llama"), tokenizer)
    assert (set(base.eos_ids), base.eos_id) == ({EOS}, EOS)


def test_a_base_that_knows_no_end_is_refused(folder: Path) -> None:
    """A bug: training it failed on a token None; an expert that never learned to end would never stop."""
    model = make_model("llama")
    model.generation_config.eos_token_id = None
    tokenizer = tokenizer_of(tokenizer_file=str(folder / "tokenizer.json"))
    with pytest.raises(SetupError, match="end-of-sequence"):
        as_base(model, tokenizer)


def test_several_ends_all_end(folder: Path) -> None:
    model = make_model("llama")
    model.generation_config.eos_token_id = [EOS, 7]
    base = as_base(model, make_tokenizer())
    assert (set(base.eos_ids), base.eos_id) == ({EOS, 7}, EOS)


def test_prompts_begin_as_the_tokenizer_begins_and_never_end() -> None:
    """A bug: a tokenizer that appends end-of-sequence would have put it between prompt and answer."""
    plain = make_tokenizer()("the firm")["input_ids"]
    model = make_model("llama")
    assert as_base(model, make_tokenizer()).encode("the firm") == plain
    assert as_base(model, make_tokenizer(template="<s> $A")).encode("the firm") == [BOS, *plain]
    assert as_base(model, make_tokenizer(template="<s> $A </s>")).encode("the firm") == [BOS, *plain]
    assert as_base(model, make_tokenizer(template="$A </s>")).encode("the firm</s>") == [*plain, EOS]


def test_an_empty_prompt_is_a_start(folder: Path) -> None:
    """A bug: without a start token an empty prompt was no tokens at all, which no model computes."""
    assert make_base("llama", template=None).encode("") == [BOS]
    assert make_base("llama", template="<s> $A").encode("") == [BOS]
    tokenizer = tokenizer_of(tokenizer_file=str(folder / "tokenizer.json"), eos_token="</s>")
    tokenizer.backend_tokenizer.post_processor = None
    assert as_base(make_model("llama"), tokenizer).encode("") == [EOS]


def test_a_token_without_an_embedding_is_refused() -> None:
    """A bug: some tokenizers know more tokens than the model; on CUDA such a prompt would end the process."""
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["<image>"])
    base = as_base(make_model("llama"), tokenizer)
    assert len(tokenizer) == VOCABULARY + 1
    with pytest.raises(InvalidInput, match="'<image>'"):
        base.encode("see <image> here")
    assert base.encode("see this")


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_a_text_that_is_no_unicode_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="not Unicode"):
        make_base("llama").encode(text)


def test_the_device_must_be_there() -> None:
    assert pick_device("cpu") == "cpu"
    if torch.cuda.is_available():
        assert pick_device("auto") == pick_device("cuda") == "cuda"
    else:
        assert pick_device("auto") == "cpu"
        with pytest.raises(SetupError, match="SELFSPEC_DEVICE"):
            pick_device("cuda")


def test_quantization_follows_the_device_unless_told() -> None:
    assert [pick_quantization("auto", device) for device in ("cuda", "cpu")] == ["nf4", "none"]
    assert pick_quantization("nf4", "cpu") == "nf4"
    assert pick_quantization("none", "cuda") == "none"


def test_the_tokenizer_alone_is_the_same(folder: Path) -> None:
    assert load_tokenizer(folder, name="tiny")("the firm")["input_ids"] == make_base("llama").encode("the firm")


def test_a_manifest_beside_the_weights_is_no_part_of_the_model(folder: Path) -> None:
    (folder / "manifest.json").write_text(json.dumps({"name": "tiny"}))
    assert load_base(OPTIONS, folder).info.fingerprint == fingerprint(folder, quantization="none")
