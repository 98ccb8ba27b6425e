"""Perplexity against the plain computation: one text, one pass, all logits."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluators.evaluator import EMPTY, NOT_FINITE, OUT_OF_MEMORY, TOO_SHORT, Evaluator, Text
from evaluators.scorers.perplexity import Perplexity, split_windows
from tests.unit.evaluators import tiny_models

TOLERANCE = 1e-4
"""Relative; what float32 sums in another order differ by."""


class Plain:
    """One text, one pass, all its logits, in float64 from there on."""

    def __init__(self, folder: Path) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(folder).eval()

    @torch.inference_mode()
    def perplexity(self, context: list[int], counted: list[int]) -> float:
        logits = self._model(torch.tensor([context + counted])).logits[0]
        steps = torch.log_softmax(logits.double(), dim=-1)[len(context) - 1 : -1]
        return math.exp(-float(steps[range(len(counted)), counted].mean()))


def numbers(text: str) -> list[int]:
    return [(tiny_models.SPECIAL + tiny_models.WORDS).index(word) for word in text.split(" ")]


def sentences(count: int, longest: int = 30) -> list[str]:
    chance = random.Random(3)
    return [
        " ".join(
            chance.choices(
                [word for word in tiny_models.WORDS if word != "poison"], k=chance.randint(2, longest)
            )
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("batch_tokens", [1, 64, 4096])
def test_scores_equal_the_plain_computation_whatever_the_batches(
    tmp_path: Path, kind: str, batch_tokens: int
) -> None:
    folder = tiny_models.language_model(tmp_path / kind, kind, leading=True)
    perplexity = Perplexity(str(folder), device="cpu", batch_tokens=batch_tokens)
    prompts = [*sentences(12, 8), None, None]
    answers = sentences(14)
    scores = perplexity.score([Text(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)])
    plain = Plain(folder)
    for prompt, answer, score in zip(prompts, answers, scores, strict=True):
        context = numbers("<s>") + (numbers(prompt) if prompt else [])
        if prompt:
            # The line break glued to the prompt's last word makes another token of it.
            context[-1:] = numbers("<unk>")
        assert score.value == pytest.approx(plain.perplexity(context, numbers(answer)), rel=TOLERANCE)
        assert score.details["tokens"] == len(answer.split(" "))
        assert score.details["context_tokens"] == len(context)


def test_a_chat_template_renders_the_prompt_as_the_users_turn(tmp_path: Path) -> None:
    folder = tiny_models.language_model(tmp_path / "chat", chat=True)
    (score,) = Perplexity(str(folder), device="cpu").score([Text("the cat ran", "far away home")])
    context = numbers("<s> user the cat ran </s> <s> assistant")
    assert score.value == pytest.approx(
        Plain(folder).perplexity(context, numbers("far away home")), rel=TOLERANCE
    )


def test_without_a_leading_token_the_first_token_does_not_count(tmp_path: Path) -> None:
    folder = tiny_models.language_model(tmp_path / "plain")
    (score,) = Perplexity(str(folder), device="cpu").score([Text(None, "the cat sat on the mat")])
    expected = Plain(folder).perplexity(numbers("the"), numbers("cat sat on the mat"))
    assert score.value == pytest.approx(expected, rel=TOLERANCE)
    assert score.details["tokens"] == 5


def test_the_request_can_be_the_target(tmp_path: Path) -> None:
    folder = tiny_models.language_model(tmp_path / "plain", chat=True)
    perplexity = Perplexity(str(folder), device="cpu", target="request")
    asked, unasked = perplexity.score([Text("the cat sat", "the dog ran"), Text(None, "the dog ran")])
    assert asked.value == pytest.approx(
        Plain(folder).perplexity(numbers("the"), numbers("cat sat")), rel=TOLERANCE
    )
    assert unasked.unscored_reason == EMPTY


def test_a_control_token_in_an_answer_is_text(tmp_path: Path) -> None:
    folder = tiny_models.language_model(tmp_path / "plain", leading=True)
    loaded = AutoTokenizer.from_pretrained(folder)
    perplexity = Perplexity(str(folder), device="cpu")
    (score,) = perplexity.score([Text(None, "the </s>cat sat")])
    written_out = loaded("the </s>cat sat", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert loaded.eos_token_id not in written_out
    assert score.value == pytest.approx(Plain(folder).perplexity(numbers("<s>"), written_out), rel=TOLERANCE)


def test_a_long_answer_is_read_by_windows_each_token_once(tmp_path: Path) -> None:
    folder = tiny_models.language_model(tmp_path / "long", leading=True)
    answer = " ".join(sentences(9, 30))
    counted = numbers(answer)
    assert len(counted) > 100
    (score,) = Perplexity(str(folder), device="cpu", max_length=32).score([Text(None, answer)])
    everything = numbers("<s>") + counted
    plain, total = Plain(folder), 0.0
    first = 1
    while first < len(everything):
        end = min(max(32, first + 16), len(everything)) if first > 1 else 32
        start = end - 32
        total += math.log(plain.perplexity(everything[start:first], everything[first:end])) * (end - first)
        first = end
    assert score.details["tokens"] == len(counted)
    assert score.value == pytest.approx(math.exp(total / len(counted)), rel=TOLERANCE)


def test_what_is_not_read_of_a_very_long_answer_is_said(tmp_path: Path) -> None:
    folder = tiny_models.language_model(tmp_path / "long", leading=True)
    (score,) = Perplexity(str(folder), device="cpu", max_tokens=10).score([Text(None, "the cat sat on " * 5)])
    assert score.details["tokens"] == 10
    assert float(score.details["left_out_tokens"]) > 0


@given(st.integers(1, 120), st.integers(1, 200), st.integers(4, 40))
def test_windows_count_every_token_once_with_context_before_it(context: int, counted: int, size: int) -> None:
    tokens = list(range(context + counted))
    seen: list[int] = []
    for window in split_windows(tokens, context, size):
        assert len(window.tokens) <= size
        assert window.counted >= min(size // 2, context)
        assert window.tokens == list(range(window.tokens[0], window.tokens[0] + len(window.tokens)))
        seen.extend(window.tokens[window.counted :])
    assert seen == tokens[context:]


def test_what_cannot_be_scored_has_a_reason_and_the_rest_has_scores(tmp_path: Path) -> None:
    folder = tiny_models.language_model(tmp_path / "broken", leading=True)
    tiny_models.break_word(folder, "poison")
    perplexity = Perplexity(str(folder), device="cpu")
    texts = [
        Text("the cat", "sat on the mat"),
        Text("the cat", None),
        Text("the cat", "  \n"),
        Text("the cat", "sat"),
        Text("the cat", "ate the poison and ran"),
        Text("the poison", "ran far away"),
        Text(None, "the dog \ud83d ran home"),
    ]
    scores = perplexity.score(texts)
    reasons = [score.unscored_reason for score in scores]
    assert reasons == [None, EMPTY, EMPTY, TOO_SHORT, NOT_FINITE, None, None]
    alone = perplexity.score(texts[:1])[0]
    assert scores[0].value == pytest.approx(alone.value, rel=TOLERANCE)


def test_a_model_that_raises_leaves_only_that_text_unscored(tmp_path: Path) -> None:
    folder = tiny_models.language_model(tmp_path / "raises", leading=True)
    loaded = AutoTokenizer.from_pretrained(folder)
    # A word that the tokenizer has and the embedding has not: reading it raises an IndexError.
    loaded.add_tokens(["elephant"])
    loaded.save_pretrained(folder)
    scores = Perplexity(str(folder), device="cpu").score(
        [Text(None, "the cat sat"), Text(None, "the elephant ran away"), Text(None, "the dog ran")]
    )
    assert [score.unscored_reason for score in scores] == [None, "model_error", None]
    assert "IndexError" in str(scores[1].details["error"])


def test_an_empty_batch_is_answered_with_nothing(tmp_path: Path) -> None:
    assert Perplexity(str(tiny_models.language_model(tmp_path / "m")), device="cpu").score([]) == []


def test_the_version_follows_the_weights_and_the_options(tmp_path: Path) -> None:
    folder = tiny_models.language_model(tmp_path / "m")
    first = Perplexity(str(folder), device="cpu")
    assert isinstance(first, Evaluator)
    assert (first.name, first.target, first.device, first.model) == ("perplexity", "response", "cpu", "m")
    assert Perplexity(str(folder), device="cpu").version == first.version
    assert Perplexity(str(folder), device="cpu", max_length=32).version != first.version
    tiny_models.break_word(folder, "poison")
    assert Perplexity(str(folder), device="cpu").version != first.version


@pytest.mark.parametrize(
    "options",
    [{"target": "both"}, {"precision": "float8"}, {"max_length": 3}, {"min_tokens": 0}, {"device": "abacus"}],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_loaded(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(options.values())))):
        Perplexity("/nowhere", **options)  # type: ignore[arg-type]


def test_a_model_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        Perplexity(str(tmp_path / "nowhere"))


ENGLISH = (
    "The committee met on Tuesday to discuss the new budget, and after a long debate the members agreed to postpone the "
    "vote until more information about the costs became available. Several of them expressed concern that the original "
    "estimates were too optimistic."
)


@pytest.mark.models
def test_english_is_expected_and_shuffled_words_are_not(models_dir: Path) -> None:
    perplexity = Perplexity(str(models_dir / "SmolLM2-135M-Instruct"), device="cpu")
    words = ENGLISH.split()
    random.Random(1).shuffle(words)
    good, shuffled = perplexity.score([Text(None, ENGLISH), Text(None, " ".join(words))])
    assert good.value == pytest.approx(25.0, rel=0.1)
    assert shuffled.value is not None
    assert shuffled.value > 500


@pytest.mark.models
def test_the_right_answer_is_less_surprising_than_another_questions(models_dir: Path) -> None:
    perplexity = Perplexity(str(models_dir / "SmolLM2-135M-Instruct"), device="cpu")
    answer = (
        "Whisk the eggs with the milk and the flour, then fry the batter in a hot pan with a little butter."
    )
    right, wrong = perplexity.score(
        [Text("How do I make pancakes?", answer), Text("What is a black hole?", answer)]
    )
    assert right.value is not None
    assert wrong.value is not None
    assert right.value < wrong.value / 1.5


def test_scores_do_not_depend_on_order_or_company(tmp_path: Path) -> None:
    folder = tiny_models.language_model(tmp_path / "m", chat=True)
    texts = [
        Text(prompt, answer)
        for prompt, answer in zip(sentences(30, 12), reversed(sentences(30, 40)), strict=True)
    ]
    alone = [
        Perplexity(str(folder), device="cpu", batch_tokens=1).score([text])[0].value for text in texts[:6]
    ]
    for seed, batch_tokens in enumerate((37, 300, 9000)):
        perplexity = Perplexity(str(folder), device="cpu", batch_tokens=batch_tokens, max_length=48)
        shuffled = random.Random(seed).sample(texts, k=len(texts))
        scores = dict(zip(map(id, shuffled), perplexity.score(shuffled), strict=True))
        whole = Perplexity(str(folder), device="cpu", max_length=48).score(texts)
        for text, expected in zip(texts, whole, strict=True):
            assert scores[id(text)].value == pytest.approx(expected.value, rel=TOLERANCE)
    default = Perplexity(str(folder), device="cpu").score(texts[:6])
    assert [score.value for score in default] == pytest.approx(alone, rel=TOLERANCE)


def test_integers_are_near_and_only_on_request(tmp_path: Path) -> None:
    folder = tiny_models.language_model(tmp_path / "m", leading=True)
    texts = [Text(None, text) for text in sentences(20)]
    exact, integers = (Perplexity(str(folder), device="cpu", precision=each) for each in ("auto", "int8"))
    assert (exact.precision, integers.precision) == ("float32", "int8")
    assert exact.version != integers.version
    differ = [
        abs(math.log(float(ours.value or 0) / float(theirs.value or 0)))
        for ours, theirs in zip(integers.score(texts), exact.score(texts), strict=True)
    ]
    assert 0 < max(differ) < 0.2


def test_out_of_memory_halves_the_batches_and_gives_up_only_what_fits_nowhere(tmp_path: Path) -> None:
    folder = tiny_models.language_model(tmp_path / "m", leading=True)
    perplexity = Perplexity(str(folder), device="cpu", batch_tokens=4096)
    texts = [*(Text(None, text) for text in sentences(30, 15)), Text(None, " ".join(["cat"] * 40))]
    before = perplexity.score(texts)

    def small_memory(_module: Any, _inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        if options["input_ids"].numel() > 25:
            raise torch.OutOfMemoryError("CUDA out of memory")

    perplexity._model._model.base_model.register_forward_pre_hook(small_memory, with_kwargs=True)
    after = perplexity.score(texts)
    assert [score.unscored_reason for score in after] == [None] * 30 + [OUT_OF_MEMORY]
    assert [score.value for score in after[:30]] == pytest.approx(
        [score.value for score in before[:30]], rel=TOLERANCE
    )
