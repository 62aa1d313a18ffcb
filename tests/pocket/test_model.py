"""The packaged model: it loads like any other, knows how to solve, and prefers to guess."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import pretrain
from tinylora.evaluate.exam import Exam
from tinylora.models import Base, load_model
from tinylora.pocket import model_folder
from tinylora.policy import UntrainedPolicy
from tinylora.prompts import text_of
from tinylora.rollout.transformers import TransformersEngine
from tinylora.tasks import pocket as task
from tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def pocket() -> Base:
    return load_model("pocket")


def stop_at_3(tokens, pages, step):
    if step == 3:
        raise KeyboardInterrupt
    return tokens(pages, step)


def exam(base: Base, num_problems: int, samples: int = 1) -> Exam:
    made = task.make()
    return Exam(made, text_of(base), made.test[:num_problems], samples=samples)


def engine(base: Base) -> TransformersEngine:
    return TransformersEngine(UntrainedPolicy(base.model))


def test_auto_classes_load_it():
    model = AutoModelForCausalLM.from_pretrained(model_folder(), dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    assert model.config.model_type == "qwen2"
    turns = [{"role": "user", "content": "Tom has 12 pens."}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == "<|user|>Tom has 12 pens.<|assistant|>"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.convert_ids_to_tokens(ids)[3:6] == ["Ġ", "1", "2"]


def test_it_is_a_few_megabytes():
    assert sum(path.stat().st_size for path in model_folder().iterdir()) < 4e6


def test_any_text_has_tokens():
    tokenizer = build_tokenizer()
    assert tokenizer.decode(tokenizer("Größe: 5 €\n")["input_ids"]) == "Größe: 5 €\n"


def test_the_tokenizer_in_the_box_is_the_one_that_is_built():
    packaged, built = AutoTokenizer.from_pretrained(model_folder()), build_tokenizer()
    assert packaged.get_vocab() == built.get_vocab()
    problem = task.make().train[0]
    assert packaged(problem.prompt)["input_ids"] == built(problem.prompt)["input_ids"]


def test_greedy_guesses(pocket: Base):
    greedy = exam(pocket, 512).greedy(engine(pocket))
    assert greedy.accuracy <= 0.35
    assert greedy.by_label["guess"]["share"] > 0.9


@pytest.mark.slow
def test_sampled_it_is_right_a_third_of_the_time_and_careful_answers_are_right(pocket: Base):
    sampled = exam(pocket, 1024, 8).sampled(engine(pocket))
    assert 0.20 <= sampled.accuracy <= 0.40
    careful = sampled.by_label["careful"]
    assert careful["share"] * 1024 * 8 >= 2000  # so many answers decide the latent accuracy
    assert careful["accuracy"] >= 0.90


def test_pre_training_text_is_masked_to_answers():
    pages = pretrain.Pages(seed=0, batch=2, length=96)
    tokens = pages.tokens(step=0)
    kept = pages.is_answer(tokens)
    assert tokens.shape == (2, 96)
    text = pages.tokenizer.decode(tokens[0])
    answers = [part.split("<|user|>")[0] for part in text.split("<|assistant|>")[1:]]
    assert pages.tokenizer.decode(tokens[0][kept[0]]) == "".join(answers)
    assert torch.equal(tokens, pages.tokens(step=0))
    assert not torch.equal(tokens, pages.tokens(step=1))


def test_pre_training_goes_on_where_it_stopped(tmp_path, monkeypatch):
    options = ["--hidden", "64", "--intermediate", "64", "--layers", "1", "--batch", "2"]
    options += ["--length", "48", "--steps", "4", "--save-every", "2", "--log-every", "2"]

    def weights(name):
        args = pretrain.parse(["--out", str(tmp_path / name), *options])
        pretrain.train(args)
        return torch.load(tmp_path / name / "pretrain.pt", weights_only=True)["model"]

    whole = weights("whole")
    with monkeypatch.context() as patch:
        tokens = pretrain.Pages.tokens
        patch.setattr(pretrain.Pages, "tokens", lambda self, step: stop_at_3(tokens, self, step))
        with pytest.raises(KeyboardInterrupt):
            weights("parts")
    parts = weights("parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
