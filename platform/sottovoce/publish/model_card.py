"""Write the model card from a run's record: README.md of a checkpoint, with the front matter the Hub reads."""

from collections.abc import Sequence
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData, hf_hub_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from sottovoce.assets import MICRO_FOLDER
from sottovoce.checkpoints.run_state import EvaluationRow
from sottovoce.model.source import MICRO
from sottovoce.report.diagnosis.finding import Finding
from sottovoce.text.group_score import GroupScore
from sottovoce.train.config import TrainingConfig
from sottovoce.train.methods import METHODS, describe_weights
from sottovoce.train.record import TrainingRecord

CARD_FILE = "README.md"
_LICENSE_KEYS = ("license", "license_name", "license_link")


def write_model_card(
    record: TrainingRecord, folder: Path, *, name: str, is_merged: bool = False, findings: Sequence[Finding] = ()
) -> None:
    """Write the card into a checkpoint's folder.

    Args:
        record: the run's record.
        folder: the checkpoint's folder.
        name: the model's name in the card and its usage snippet.
        is_merged: whether the adapter that the run trained is merged into its base there.
        findings: the diagnosis of the run.
    """
    build_model_card(record, name=name, is_merged=is_merged, findings=findings).save(folder / CARD_FILE)


def build_model_card(
    record: TrainingRecord, *, name: str, is_merged: bool = False, findings: Sequence[Finding] = ()
) -> ModelCard:
    """Compose front matter and text. Facts that are unknown are left out."""
    is_adapter = record.training.trains_adapter and not is_merged
    license_fields = read_license(record.base)
    sections = (
        f"# {name}",
        _introduction(record, name),
        _usage(name, record.data.languages) + (_adapter_usage(record.base, name) if is_adapter else ""),
        "## Training data\n\n" + _bullets(_data_facts(record)),
        "## Training\n\n" + _bullets(_training_facts(record)),
        "## Evaluation\n\n" + _evaluation(record),
        *(["## What the run's metrics show\n\n" + _bullets([one.describe() for one in findings])] if findings else []),
        "## Versions\n\n" + _bullets([f"{package} {number}" for package, number in record.versions.items()]),
        "## Licence\n\n" + _describe_license(record.base, license_fields),
    )
    front_matter = _front_matter(record, license_fields, name=name, is_adapter=is_adapter).to_yaml()
    return ModelCard(f"---\n{front_matter}\n---\n\n" + "\n\n".join(sections) + "\n")


def read_license(base: str) -> dict[str, str]:
    """Read the licence of a base model from the front matter of its card, without the network.

    Args:
        base: a checkpoint folder, ``micro`` or a Hub id, whose card was fetched with its weights.

    Returns:
        The fields ``license``, ``license_name`` and ``license_link`` that the card has; empty if it names no licence.
    """
    try:
        data = ModelCard.load(_find_card(base), ignore_metadata_errors=True).data.to_dict()
    except (OSError, ValueError, HFValidationError, yaml.YAMLError):  # no card, or no YAML in its front matter
        return {}
    fields = {key: data[key] for key in _LICENSE_KEYS if isinstance(data.get(key), str)}
    return fields if "license" in fields else {}


def _find_card(base: str) -> Path:
    """Return the path of a base model's card.

    Raises:
        OSError: there is none on this machine.
        HFValidationError: neither a folder nor a Hub id.
    """
    folder = MICRO_FOLDER if base == MICRO else Path(base)
    if folder.is_absolute() or folder.is_dir():
        card = folder / CARD_FILE
        return card.resolve(strict=True)
    try:
        return Path(hf_hub_download(base, CARD_FILE, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise FileNotFoundError(f"{base} was fetched without {CARD_FILE}") from error


def _describe_license(base: str, fields: dict[str, str]) -> str:
    if not fields:
        return (
            f"The licence is the one of the base model, {_describe_base(base)}. No licence was found in the base "
            "model's card, so this card names none: look it up before you publish the model."
        )
    name = fields.get("license_name", fields["license"])
    return f"{name}, the licence of the base model, {_describe_base(base)}."


def _front_matter(
    record: TrainingRecord, license_fields: dict[str, str], *, name: str, is_adapter: bool
) -> ModelCardData:
    results = [
        EvalResult(
            task_type="automatic-speech-recognition",
            task_name="Automatic Speech Recognition",
            dataset_type="manifest",
            dataset_name="validation split of the training manifest",
            metric_type=metric,
            metric_name=metric.upper(),
            metric_value=round(value, 6),
        )
        for metric, value in (("wer", record.best.wer), ("cer", record.best.cer))
    ]
    return ModelCardData(
        language=list(record.data.languages),
        license=license_fields.get("license"),  # None leaves a field out
        license_name=license_fields.get("license_name"),
        license_link=license_fields.get("license_link"),
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag="automatic-speech-recognition",
        tags=["whisper", "sottovoce", "automatic-speech-recognition", *(["lora"] if is_adapter else [])],
        metrics=["wer", "cer"],
        model_name=name,
        eval_results=results,
        base_model=None if _is_local(record.base) else record.base,  # a folder has no id
    )


def _is_local(base: str) -> bool:
    return base == MICRO or Path(base).is_dir() or Path(base).is_absolute()


def _describe_base(base: str) -> str:
    if base == MICRO:
        return "micro, Sottovoce's embedded Whisper"
    return Path(base).name if _is_local(base) else f"[{base}](https://huggingface.co/{base})"


def _introduction(record: TrainingRecord, name: str) -> str:
    best, baseline = record.best, record.baseline
    shortest, longest = record.audio_context_s
    low, high = best.error_interval
    method = METHODS[record.training.method].card
    return (
        f"{name} is {_describe_base(record.base)}, fine-tuned {method} with Sottovoce. On the validation split its "
        f"{best.rate_name} is **{best.error_rate:.2%}** (95 % interval {low:.2%} to {high:.2%}), the base model's "
        f"{baseline.error_rate:.2%}. It reads {shortest:g} to {longest:g} s of audio at once."
    )


def _usage(name: str, languages: Sequence[str]) -> str:
    """Show how Sottovoce transcribes a file of any length, in the language the model was trained on."""
    named = languages[0] if len(languages) == 1 else None
    language = "" if named is None else f', language="{named}"'
    detection = (
        f" The language, one of {', '.join(languages)}, is detected; name it with `language=` if you know it."
        if named is None and languages
        else ""
    )
    return (
        "## Usage\n\n"
        "Sottovoce transcribes recordings of any length, and reads each part at its own length, without padding to "
        f"30 s.{detection}\n\n"
        "```python\n"
        "from sottovoce.recognize.load import load_recognizer\n\n"
        f'recognizer = load_recognizer("{name}")  # the folder or Hub id of this checkpoint\n'
        f'print(recognizer.transcribe("speech.wav"{language}).text)\n'
        "```"
    )


def _adapter_usage(base: str, name: str) -> str:
    """Show how peft loads an adapter without Sottovoce."""
    is_micro = base == MICRO
    imports = "from sottovoce.model.source import resolve_folder\n" if is_micro else ""
    source = f'resolve_folder("{base}")' if is_micro else f'"{base}"'
    return (
        "\n\nThe weights are an adapter for the base model. Sottovoce merges it while loading; "
        "`python -m jobs.merge_adapter` writes a merged model. peft loads it as well, for audio padded to 30 s:\n\n"
        "```python\n"
        f"from peft import PeftModel\n{imports}"
        "from transformers import WhisperForConditionalGeneration\n\n"
        f"base = WhisperForConditionalGeneration.from_pretrained({source})\n"
        f'model = PeftModel.from_pretrained(base, "{name}")\n'
        "```"
    )


def _method_facts(record: TrainingRecord) -> list[str]:
    """Describe how many parameters were trained, and the adapter."""
    facts = []
    if record.num_trained_parameters:
        share = record.num_trained_parameters / record.num_parameters
        facts.append(f"{record.num_trained_parameters:,} of {record.num_parameters:,} parameters trained ({share:.1%})")
    if record.training.trains_adapter:
        lora = record.training.lora
        part = "encoder and decoder" if lora.part == "both" else lora.part
        rows = ", and the embedding rows of the training texts' tokens" if lora.token_rows else ""
        facts.append(
            f"LoRA of rank {lora.rank}, alpha {lora.alpha}, dropout {lora.dropout:g} on {', '.join(lora.targets)} of "
            f"the {part}{rows}"
        )
    return facts


def _data_facts(record: TrainingRecord) -> list[str]:
    data = record.data
    facts = [
        f"training: {data.num_train} utterances, {_hours(data.train_hours)}",
        f"validation: {data.num_validation} utterances, {_hours(data.validation_hours)}",
        f"languages: {', '.join(data.languages)}",
    ]
    if data.num_speakers:
        facts.append(f"speakers in the training split: {data.num_speakers}")
    rejects = ", ".join(f"{reason} {number}" for reason, number in sorted(data.rejects.items()))
    facts.append(f"rejected recordings: {rejects or 'not one'}")
    return facts


def _hours(hours: float) -> str:
    return f"{hours:.2f} h" if hours >= 0.1 else f"{hours * 60:.2f} min"


def _training_facts(record: TrainingRecord) -> list[str]:
    training = record.training
    facts = [
        *_method_facts(record),
        f"{record.num_steps} steps in {record.seconds:.0f} s; the best checkpoint is that of step {record.best_step}",
        f"{_workers(training)} on {record.device}, precision {record.precision}, "
        f"{describe_weights(training.method, precision=record.precision)}",
        f"AdamW, betas 0.9 and 0.999, eps 1e-8, weight decay {training.weight_decay:g} on matrices",
        f"learning rate {training.peak_lr:g}, {training.warmup_steps} warm-up steps, then linear to zero",
        f"gradient norm at most {training.max_grad_norm:g}",
        f"{_count(training.num_microbatches, 'batch', 'batches')} per step",
        f"seed {training.seed}",
    ]
    optional = {"label smoothing": training.label_smoothing, "dropout": training.dropout}
    return facts + [f"{label} {value:g}" for label, value in optional.items() if value]


def _workers(training: TrainingConfig) -> str:
    fewest, most = training.worker_range
    counted = _count(most, "worker", "workers")
    return counted if fewest == most else f"{fewest} to {counted}"


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


def _evaluation(record: TrainingRecord) -> str:
    names = ("step", "epoch", "training loss", "validation loss", "WER", "CER", *record.best.metrics)
    header = f"| {' | '.join(names)} |\n{'|---' * len(names)}|\n"
    rows = "\n".join(_table_row(row, is_best=row.step == record.best_step) for row in record.rows)
    note = (
        f"\n\nStep 0 is the base model; the bold row is this checkpoint. Losses are per token; WER and CER are "
        f"micro-averaged over the validation split after the normalizer `{record.normalizer}`."
    )
    return header + rows + note + _groups(record.best.groups)


def _groups(groups: Sequence[GroupScore]) -> str:
    """Return the table of this checkpoint's scores by corpus and language, if there are several."""
    if not groups:
        return ""
    names = ("group", "name", "utterances", "words", "WER", "95 % interval", "CER", "normalizer")
    header = f"\n\n| {' | '.join(names)} |\n{'|---' * len(names)}|\n"
    return header + "\n".join(
        f"| {group.kind} | {group.name} | {group.num_utterances} | {group.num_words} | {group.wer:.2%} "
        f"| {group.wer_low:.2%} to {group.wer_high:.2%} | {group.cer:.2%} | `{group.normalizer}` |"
        for group in groups
    )


def _table_row(row: EvaluationRow, *, is_best: bool) -> str:
    training_loss = "before training" if row.training_loss is None else f"{row.training_loss:.4f}"
    cells = [f"{row.step}", f"{row.epoch:.2f}", training_loss, f"{row.validation_loss:.4f}"]
    cells += [f"{row.wer:.2%}", f"{row.cer:.2%}", *(f"{value:.4g}" for value in row.metrics.values())]
    return "| " + " | ".join(f"**{cell}**" if is_best else cell for cell in cells) + " |"


def _bullets(facts: list[str]) -> str:
    return "\n".join(f"- {fact}" for fact in facts)
