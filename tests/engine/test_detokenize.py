"""Text told token by token is the text of all tokens at once, cut where the earliest stop text begins."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerBase

from app.engine.detokenize import TextStream, token_text
from tests.engine.tiny import EOS, PAD, make_tokenizer, tokenizer_of

CORPUS = (
    "the quarter's revenue didn't rise , it 's said . the margin of the firm fell while the board raised its goal !"
)
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
TEXTS = [
    CORPUS,
    "naïve café 😀👩‍👩‍👧 日本語 \u00a0 x",
    "  two  spaces\n\n\tand tabs ",
    "a� real replacement �� character",
    "",
]


def byte_fallback_tokenizer() -> PreTrainedTokenizerBase:
    """As SentencePiece models are converted: spaces are a mark, one is put first, what is unknown is spelt in bytes."""
    tokenizer = Tokenizer(BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    words = [word + end for word in CORPUS.split() for end in ("", "▁")]
    trainer = BpeTrainer(vocab_size=400, special_tokens=["<unk>", "<s>", "</s>", *BYTES], show_progress=False)
    tokenizer.train_from_iterator(["▁".join(words)], trainer)
    written = json.loads(tokenizer.to_str())
    written["added_tokens"] = written["added_tokens"][:3]  # the bytes are plain tokens
    plain = Tokenizer.from_str(json.dumps(written))
    return tokenizer_of(tokenizer_object=plain, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def metaspace_tokenizer() -> PreTrainedTokenizerBase:
    """A unigram model whose decoded text is cleaned up: no space before a dot."""
    pieces = ["<unk>", "<s>", "</s>", "▁", *sorted(set(CORPUS) - {" "}), "▁the", "▁'", "▁n't", "▁.", "▁'s", "re", "."]
    tokenizer = Tokenizer(Unigram([(piece, -float(rank)) for rank, piece in enumerate(dict.fromkeys(pieces))], 0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer_of(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", clean_up_tokenization_spaces=True
    )


TOKENIZERS = {
    "byte-level": make_tokenizer,
    "byte-fallback": byte_fallback_tokenizer,
    "metaspace": metaspace_tokenizer,
}


@pytest.fixture(scope="module", params=list(TOKENIZERS.values()), ids=list(TOKENIZERS))
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    make: Callable[[], PreTrainedTokenizerBase] = request.param
    return make()


def decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True))


def cut_by_definition(tokenizer: PreTrainedTokenizerBase, ids: list[int], stop: tuple[str, ...]) -> tuple[str, int]:
    """The text up to the earliest stop text, as soon as there is one; and how many tokens that took."""
    for count in range(1, len(ids) + 1):
        text = decode(tokenizer, ids[:count])
        if found := [text.find(each) for each in stop if each in text]:
            return text[: min(found)], count
    return decode(tokenizer, ids), len(ids)


def stream(tokenizer: PreTrainedTokenizerBase, ids: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], int]:
    """The pieces, and how many tokens were taken."""
    texts, taken = TextStream(tokenizer, stop), 0
    pieces = []
    for token in ids:
        pieces.append(texts.push(token))
        taken += 1
        if texts.stopped:
            break
    return [*pieces, texts.finish()], taken


def test_pieces_of_a_text_are_the_text(tokenizer: PreTrainedTokenizerBase) -> None:
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert "".join(stream(tokenizer, ids)[0]) == decode(tokenizer, ids)


def test_pieces_of_random_tokens_are_what_decoding_gives(tokenizer: PreTrainedTokenizerBase) -> None:
    """Broken characters, special tokens, doubled spaces, numbers beyond the vocabulary: whatever a model may write."""
    chance = random.Random(7)
    for _ in range(400):
        ids = [chance.randrange(len(tokenizer) + 3) for _ in range(chance.randrange(1, 30))]
        assert "".join(stream(tokenizer, ids)[0]) == decode(tokenizer, ids), ids


def test_stop_texts_cut_where_and_when_they_do_by_definition(tokenizer: PreTrainedTokenizerBase) -> None:
    chance = random.Random(8)
    num_stopped = 0
    for _ in range(400):
        words = [chance.choice(TEXTS[:3]) for _ in range(2)]
        ids = tokenizer("".join(words)[chance.randrange(60) :][:60], add_special_tokens=False)["input_ids"]
        ids = [chance.randrange(len(tokenizer)) if chance.random() < 0.1 else token for token in ids]
        text = decode(tokenizer, ids)
        starts = [chance.randrange(len(text) + 1) for _ in range(chance.randrange(1, 4))]
        stop = tuple(filter(None, (text[start : start + chance.randrange(1, 7)] for start in starts))) or ("zz",)
        pieces, taken = stream(tokenizer, ids, stop)
        assert ("".join(pieces), taken) == cut_by_definition(tokenizer, ids, stop), (ids, stop)
        num_stopped += taken < len(ids)
    assert num_stopped > 100


def test_half_a_character_is_never_told() -> None:
    tokenizer = make_tokenizer()
    ids = tokenizer("a😀b")["input_ids"]
    assert len(ids) == 6
    assert stream(tokenizer, ids)[0] == ["a", "", "", "", "😀", "b", ""]


def test_a_character_that_never_ends_is_told_at_the_end_as_decoding_does() -> None:
    tokenizer = make_tokenizer()
    ids = tokenizer("a😀")["input_ids"][:-1]
    assert stream(tokenizer, ids)[0] == ["a", "", "", "", "�"]


def test_what_may_begin_a_stop_text_waits_until_it_does_not() -> None:
    tokenizer = make_tokenizer()
    assert stream(tokenizer, list(tokenizer("x##y")["input_ids"]), ("##!",))[0] == ["x", "", "", "##y", ""]
    assert stream(tokenizer, list(tokenizer("x###!y")["input_ids"]), ("##!",))[0] == ["x", "", "", "#", "", ""]
    assert stream(tokenizer, list(tokenizer("x##")["input_ids"]), ("##!",))[0] == ["x", "", "", "##"]


def test_the_shorter_of_two_stop_texts_that_begin_alike_ends_first() -> None:
    tokenizer = make_tokenizer()
    ids = list(tokenizer("x##!")["input_ids"])
    assert stream(tokenizer, ids, ("##!", "##")) == (["x", "", "", ""], 3)


def test_nothing_follows_a_stop_text() -> None:
    tokenizer = make_tokenizer()
    texts = TextStream(tokenizer, ("stop",))
    told = [texts.push(token) for token in tokenizer("go stop and more")["input_ids"]]
    assert ("".join(told), texts.stopped, texts.finish()) == ("go ", True, "")


@pytest.mark.parametrize("last", ["a", "é", "\ufffd"])
def test_the_work_for_a_token_does_not_grow_with_the_answer(last: str) -> None:
    """Counted in tokens decoded, also for bytes that never make a character."""
    tokenizer = make_tokenizer()
    decoded: list[int] = []
    plain = tokenizer.decode

    def counting(ids: list[int], **options: bool) -> str:
        decoded.append(len(ids))
        return str(plain(ids, **options))

    token = tokenizer(last)["input_ids"][0]
    texts = TextStream(tokenizer, ("never",))
    tokenizer.decode = counting  # type: ignore[method-assign,assignment]
    pieces = [texts.push(token) for _ in range(600)]
    assert max(decoded) <= 80
    assert "".join([*pieces, texts.finish()]) == plain([token] * 600)


def test_a_long_run_of_bytes_is_told_on_the_way() -> None:
    tokenizer = byte_fallback_tokenizer()
    vocabulary = tokenizer.get_vocab()
    ids = [vocabulary[BYTES[byte]] for byte in "ሰላም".encode() * 40]
    pieces, _ = stream(tokenizer, ids)
    assert "".join(pieces) == "ሰላም" * 40
    assert max(map(len, pieces)) <= 12


def test_a_token_alone_keeps_its_leading_space() -> None:
    for make, mark in ((make_tokenizer, "Ġthe"), (byte_fallback_tokenizer, "▁the"), (metaspace_tokenizer, "▁the")):
        tokenizer = make()
        token = tokenizer.convert_tokens_to_ids(mark)
        token = token if isinstance(token, int) and token > EOS else tokenizer(" the")["input_ids"][0]
        assert token_text(tokenizer, token).startswith(" ")
    tokenizer = make_tokenizer()
    assert [token_text(tokenizer, token) for token in (PAD, EOS)] == ["<pad>", "</s>"]
    assert token_text(tokenizer, tokenizer("é")["input_ids"][0]) == "�"
