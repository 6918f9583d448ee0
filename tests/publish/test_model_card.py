import random
import re
from functools import partial
from pathlib import Path

import jiwer
import numpy as np
import pytest
import soundfile
from huggingface_hub import ModelCard

from sottovoce.checkpoints.run_state import EvaluationRow
from sottovoce.demo.grammar import load_grammar
from sottovoce.demo.pool import speak_sentence
from sottovoce.demo.speech import UNSEEN_VOICES
from sottovoce.model.adapter import LoraSettings
from sottovoce.publish import model_card
from sottovoce.publish.model_card import build_model_card, write_model_card
from sottovoce.report.diagnosis.diagnose import diagnose
from sottovoce.schema import SAMPLING_RATE
from sottovoce.text.group_score import GroupScore
from sottovoce.train.config import TrainingConfig, settle_rate
from sottovoce.train.methods import METHODS
from sottovoce.train.record import DataSummary, TrainingRecord

SMALL = 241_734_912  # weights of whisper-small


def evaluation(step: int, *, training_loss: float | None, wer: float) -> EvaluationRow:
    return EvaluationRow(
        step=step, epoch=step / 50, training_loss=training_loss, validation_loss=1.25, wer=wer, wer_low=wer - 0.02,
        wer_high=wer + 0.02, cer=wer / 2, seconds=10.0,
    )  # fmt: skip


def record_of(base: str = "openai/whisper-small") -> TrainingRecord:
    rows = (
        evaluation(0, training_loss=None, wer=0.746),
        evaluation(50, training_loss=0.9, wer=0.251),
        evaluation(100, training_loss=0.7, wer=0.3),
    )
    return TrainingRecord(
        base=base,
        training=TrainingConfig(
            base=base, method="frozen_encoder", label_smoothing=0.1, learning_rate=1e-4, num_workers=2
        ),
        device="cuda",
        precision="fp16",
        data=DataSummary(
            num_train=480, train_hours=0.5, num_validation=60, validation_hours=0.05, languages=("en",),
            num_speakers=12, rejects={"silent": 2, "too_long": 1},
        ),
        num_steps=100,
        rows=rows,
        best_step=50,
        normalizer="english",
        audio_context_s=(2.0, 10.0),
        seconds=100.0,
        audio_s=18_000.0,
        resumed_at=(),
        versions={"ray": "2.60.0", "torch": "2.13.0"},
    )  # fmt: skip


def table_rows(card: ModelCard) -> list[list[str]]:
    lines = [line for line in card.text.splitlines() if re.match(r"\| \**\d", line)]
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]


@pytest.fixture
def card(tmp_path: Path) -> ModelCard:
    write_model_card(record_of(), tmp_path, name="whisper-small-throat")
    return ModelCard.load(tmp_path / "README.md")


def test_the_front_matter_parses_and_names_model_base_and_language(card: ModelCard) -> None:
    assert card.data.model_name == "whisper-small-throat"
    assert card.data.base_model == "openai/whisper-small"
    assert card.data.language == ["en"]
    assert card.data.pipeline_tag == "automatic-speech-recognition"


def test_the_model_index_holds_the_best_checkpoints_scores(card: ModelCard) -> None:
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert results == {"wer": pytest.approx(0.251), "cer": pytest.approx(0.1255)}
    assert all(result.task_type == "automatic-speech-recognition" for result in card.data.eval_results)


def test_the_table_has_every_evaluation_as_it_was_measured(card: ModelCard) -> None:
    assert table_rows(card) == [
        ["0", "0.00", "before training", "1.2500", "74.60%", "37.30%"],
        ["50", "1.00", "0.9000", "1.2500", "25.10%", "12.55%"],
        ["100", "2.00", "0.7000", "1.2500", "30.00%", "15.00%"],
    ]


@pytest.mark.parametrize("base", ["openai/whisper-small", "micro"])
def test_no_fact_is_none_and_no_row_is_all_zeros(base: str) -> None:
    card = build_model_card(record_of(base), name="throat")
    assert "None" not in str(card)
    assert "null" not in str(card)
    assert "nan" not in str(card).lower().split()
    for row in table_rows(card):
        assert any(float(cell.strip("%")) > 0 for cell in row[3:])


def test_the_text_has_baseline_interval_data_and_rejects(card: ModelCard) -> None:
    for fact in ("**25.10%** (95 % interval 23.10% to 27.10%)", "74.60%", "480 utterances, 0.50 h", "3.00 min",
                 "silent 2, too_long 1", "encoder frozen", "label smoothing 0.1", "fp16", "ray 2.60.0"):  # fmt: skip
        assert fact in card.text


def snippet_of(record: TrainingRecord, *, name: str) -> str:
    (snippet,) = re.findall(r"```python\n(.*?)```", build_model_card(record, name=name).text, re.DOTALL)
    return snippet


def with_languages(*languages: str) -> TrainingRecord:
    record = record_of("micro")
    return record.model_copy(update={"data": record.data.model_copy(update={"languages": languages})})


def test_the_usage_snippet_transcribes_a_recording_longer_than_the_models_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # micro is a toy: of most joined sentences it writes 20 to 60 % of the words wrong, of these 6 %.
    generator, grammar = random.Random(9), load_grammar("sentences")
    spoken = [speak_sentence(grammar, generator, symbol="sentence", voices=UNSEEN_VOICES) for _ in range(5)]
    speech = np.concatenate([waveform for _, _, waveform in spoken])
    assert len(speech) > 11 * SAMPLING_RATE, "micro reads 10 s at once"
    soundfile.write(tmp_path / "speech.wav", speech, SAMPLING_RATE)
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet_of(with_languages("en"), name="micro"), "snippet", "exec"), {})
    wanted, printed = (re.sub(r"[^a-z' ]", " ", text.lower()).split() for text in (
        " ".join(text for text, _, _ in spoken), capsys.readouterr().out))  # fmt: skip
    assert jiwer.wer(" ".join(wanted), " ".join(printed)) < 0.2


def test_the_usage_snippet_names_the_models_only_language_and_detects_one_of_several() -> None:
    assert 'transcribe("speech.wav", language="de").text' in snippet_of(with_languages("de"), name="throat")
    several = with_languages("de", "fr")
    assert 'load_recognizer("throat")' in snippet_of(several, name="throat")
    assert 'transcribe("speech.wav").text' in snippet_of(several, name="throat")
    assert "one of de, fr, is detected" in build_model_card(several, name="throat").text


def base_with_card(folder: Path, front_matter: str | None) -> str:
    folder.mkdir()
    if front_matter is not None:
        (folder / "README.md").write_text(f"---\n{front_matter}\n---\n# base\n", encoding="utf-8")
    return str(folder)


def test_the_licence_is_the_base_models(tmp_path: Path) -> None:
    base = base_with_card(tmp_path / "base", "license: cc-by-nc-4.0\nlanguage: de")
    card = build_model_card(record_of(base), name="throat")
    assert card.data.license == "cc-by-nc-4.0"
    assert "cc-by-nc-4.0, the licence of the base model" in card.text
    assert build_model_card(record_of("micro"), name="throat").data.license == "apache-2.0"


def test_a_licence_with_a_name_of_its_own_keeps_name_and_link(tmp_path: Path) -> None:
    front_matter = "license: other\nlicense_name: our-terms\nlicense_link: https://example.org/terms"
    card = build_model_card(record_of(base_with_card(tmp_path / "base", front_matter)), name="throat")
    assert (card.data.license, card.data.license_name) == ("other", "our-terms")
    assert card.data.license_link == "https://example.org/terms"
    assert "our-terms, the licence of the base model" in card.text


@pytest.mark.parametrize("front_matter", [None, "language: de", "license: [unclosed"])
def test_a_licence_that_is_not_known_is_left_out_with_a_note(tmp_path: Path, front_matter: str | None) -> None:
    card = build_model_card(record_of(base_with_card(tmp_path / "base", front_matter)), name="throat")
    assert "license" not in card.data.to_dict()
    assert "this card names none: look it up" in card.text


def test_a_hub_models_licence_is_read_from_the_card_that_was_fetched_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = tmp_path / "README.md"
    fetched.write_text("---\nlicense: mit\n---\n", encoding="utf-8")

    def find(repo: str, file: str, *, local_files_only: bool) -> str:
        assert (repo, file, local_files_only) == ("openai/whisper-small", "README.md", True)
        return str(fetched)

    monkeypatch.setattr(model_card, "hf_hub_download", find)
    assert build_model_card(record_of(), name="throat").data.license == "mit"


def test_a_hub_model_that_was_fetched_without_its_card_has_no_licence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = partial(model_card.hf_hub_download, cache_dir=tmp_path)
    monkeypatch.setattr(model_card, "hf_hub_download", find)
    assert "license" not in build_model_card(record_of(), name="throat").data.to_dict()


def test_a_base_that_is_no_hub_id_is_not_claimed_to_be_one() -> None:
    card = build_model_card(record_of("micro"), name="dictation")
    assert "base_model" not in card.data.to_dict()
    assert "micro, Sottovoce's embedded Whisper" in card.text


def test_corpora_and_languages_are_listed_if_there_are_several(card: ModelCard) -> None:
    group = GroupScore(
        kind="language", name="de", num_utterances=7, num_words=70, wer=0.2, wer_low=0.1, wer_high=0.3, cer=0.1,
        normalizer="basic",
    )  # fmt: skip
    record = record_of()
    rows = tuple(row.model_copy(update={"groups": (group,)}) for row in record.rows)
    text = build_model_card(record.model_copy(update={"rows": rows}), name="throat").text
    assert "| language | de | 7 | 70 | 20.00% | 10.00% to 30.00% | 10.00% | `basic` |" in text
    assert "| language |" not in card.text


@pytest.mark.parametrize("base", ["openai/whisper-small", "micro"])
def test_the_card_of_an_adapter_says_what_was_trained_and_how_peft_loads_it(base: str) -> None:
    lora = LoraSettings(rank=8, alpha=16, part="decoder", targets=("q_proj", "v_proj"))
    training = settle_rate(TrainingConfig(base=base, method="lora", lora=lora, num_workers=2), SMALL)
    counts = {"num_parameters": SMALL, "num_trained_parameters": 1_769_472}
    card = build_model_card(record_of(base).model_copy(update={"training": training} | counts), name="throat")
    assert card.data.library_name == "peft"
    assert "fine-tuned by a LoRA adapter" in card.text
    assert "1,769,472 of 241,734,912 parameters trained (0.7%)" in card.text
    assert "LoRA of rank 8, alpha 16, dropout 0 on q_proj, v_proj of the decoder" in card.text
    _, snippet = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    assert 'PeftModel.from_pretrained(base, "throat")' in snippet
    assert ('resolve_folder("micro")' if base == "micro" else f'from_pretrained("{base}")') in snippet
    compile(snippet, "snippet", "exec")


def facts_of(training: TrainingConfig, **changes: object) -> str:
    training = training.model_copy(update={"num_workers": training.num_workers or 2})
    return build_model_card(
        record_of().model_copy(update={"training": settle_rate(training, SMALL)} | changes), name="throat"
    ).text


def test_the_card_counts_workers_and_the_batches_of_a_step() -> None:
    assert "- 1 worker on cuda" in facts_of(TrainingConfig(num_workers=1))
    assert "- 1 batch per step" in facts_of(TrainingConfig(num_workers=1))
    elastic = facts_of(TrainingConfig(num_workers=(1, 4), accumulation_steps=2))
    assert "- 1 to 4 workers on cuda" in elastic
    assert "- 8 batches per step" in elastic


def test_the_card_names_the_type_of_the_weights() -> None:
    base = "openai/whisper-small"
    lora, qlora = (TrainingConfig.model_validate({"base": base, "method": method}) for method in ("lora", "qlora"))
    assert "precision fp16, weights in fp32" in facts_of(TrainingConfig(base=base))
    assert "precision fp16, the base's matrices in fp16, the adapter's weights in fp32" in facts_of(lora)
    assert "precision fp32, weights in fp32" in facts_of(lora, precision="fp32")
    assert "precision bf16, the base's matrices in 4 bits (NF4)" in facts_of(qlora, precision="bf16")


def test_every_method_has_its_words() -> None:
    for name, method in METHODS.items():
        assert f"fine-tuned {method.card} with Sottovoce" in facts_of(TrainingConfig(method=name))


def test_findings_have_a_section_of_their_own_and_none_without_findings() -> None:
    record = record_of()
    findings = diagnose(record, ())
    assert findings
    text = build_model_card(record, name="throat", findings=findings).text
    assert f"## What the run's metrics show\n\n- {findings[0].describe()}" in text
    assert "metrics show" not in build_model_card(record, name="throat").text
