"""A made-up language model: a Llama of any size, its vocabulary the 256 bytes. Servers fill its
weights with random numbers (vLLM: --load-format dummy), so that nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

SPECIAL = ("<s>", "</s>")


class Size(NamedTuple):
    """The shape of a model, and its parameters in millions."""

    hidden: int
    layers: int
    heads: int
    vocabulary: int
    millions: float


SIZES = {
    "tiny": Size(128, 2, 2, 258, 0.5),
    "middle": Size(768, 10, 12, 8192, 83),
}


def make_model(folder: Path, size: str) -> Path:
    """Write the model's configuration and tokenizer into a folder, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    hidden, layers, heads, vocabulary, _ = SIZES[size]
    write(folder / "config.json", {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": 8 * hidden // 3 // 64 * 64,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": hidden // heads,
        "vocab_size": vocabulary,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "bos_token_id": 256,
        "eos_token_id": 257,
    })  # fmt: skip
    write(folder / "tokenizer.json", make_tokenizer())
    write(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[0],
        "eos_token": SPECIAL[1],
        "model_max_length": 512,
    })  # fmt: skip
    return folder


def make_tokenizer() -> dict[str, object]:
    """Return a tokenizer of single bytes, in the format of Hugging Face's tokenizers."""
    vocabulary = {char: n for n, char in enumerate(byte_characters())}
    added = [
        {"id": 256 + n, "content": text, "special": True, "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False}
        for n, text in enumerate(SPECIAL)
    ]  # fmt: skip
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                  "use_regex": True}  # fmt: skip
    return {
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": vocabulary | {text: 256 + n for n, text in enumerate(SPECIAL)},
            "merges": [],
        },
    }


def byte_characters() -> list[str]:
    """Return the printable character that stands for each byte, as GPT-2's tokenizer has them."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))
