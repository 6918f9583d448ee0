"""Model folders as far as their names go: what finds models looks at files, and loads none."""

from pathlib import Path

from sottovoce.model.variants import VariantRecord, write_variant_record


def make_checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def make_export(folder: Path, *variants: str, refused: tuple[str, ...] = ()) -> Path:
    for variant in (*variants, *refused):
        (folder / variant / "onnx").mkdir(parents=True)
        suffix = "" if variant == "fp32" else f"_{variant}"
        (folder / variant / "onnx" / f"encoder_model{suffix}.onnx").write_bytes(b"graph")
        record = VariantRecord(
            variant=variant,
            wer=0.5 if variant in refused else 0.1,
            cer=0.1,
            rtfx=1.0,
            reference_wer=0.1,
            max_wer_rise=0.01,
            is_servable=variant not in refused,
            size_bytes=5,
            folder_bytes=5,
            num_utterances=3,
            versions={},
        )
        write_variant_record(record, folder / variant)
    return folder
