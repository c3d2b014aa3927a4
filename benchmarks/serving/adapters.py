"""Random LoRA adapters as PEFT folders: rank 8, alpha 16, on every linear layer of the base's blocks.

PEFT starts B at zero, which would change nothing; here B is small and random, so that each expert answers differently
from the base and from the others. They know nothing: only their cost is real.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

RANK, ALPHA = 8, 16
B_DEVIATION = 0.02  # with A uniform as PEFT has it, a few percent of what the layer itself says


def write_adapters(names: tuple[str, ...], folder: Path, *, model: Path, base: str) -> dict[str, Path]:
    """Folders by adapter name, made where they are missing; ``base`` goes into ``base_model_name_or_path``."""
    shapes = layer_shapes(model)
    for number, name in enumerate(names):
        if not (folder / name / "adapter_config.json").exists():
            _write(folder / name, shapes, base=base, seed=number)
    return {name: folder / name for name in names}


def layer_shapes(model: Path) -> dict[str, tuple[int, int]]:
    """(out, in) of each linear layer in the base's blocks, by module name."""
    with safe_open(model / "model.safetensors", framework="np") as weights:
        names = [name for name in weights.keys() if name.endswith("_proj.weight")]  # noqa: SIM118 - no mapping
        return {name.removesuffix(".weight"): tuple(weights.get_slice(name).get_shape()) for name in names}


def _write(folder: Path, shapes: dict[str, tuple[int, int]], *, base: str, seed: int) -> None:
    """The configuration last: its presence says that the folder is whole."""
    chance = np.random.default_rng(seed)
    tensors = {}
    for name, (num_out, num_in) in sorted(shapes.items()):
        bound = num_in**-0.5
        matrices = {
            "A": chance.uniform(-bound, bound, (RANK, num_in)),
            "B": chance.normal(0, B_DEVIATION, (num_out, RANK)),
        }
        for side, matrix in matrices.items():
            tensors[f"base_model.model.{name}.lora_{side}.weight"] = matrix.astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "target_modules": sorted({name.rpartition(".")[2] for name in shapes}),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1))
