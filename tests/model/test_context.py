import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from sottovoce.errors import ContextError
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.context import TrimmedWhisper, set_audio_context


def _tiny_config() -> WhisperConfig:
    return WhisperConfig(
        d_model=32, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=64, decoder_ffn_dim=64,
    )  # fmt: skip


def _pair() -> tuple[TrimmedWhisper, WhisperForConditionalGeneration]:
    torch.manual_seed(0)
    ours = TrimmedWhisper(_tiny_config()).eval()
    stock = WhisperForConditionalGeneration(_tiny_config()).eval()
    stock.load_state_dict(ours.state_dict())
    return ours, stock


def test_padded_to_thirty_seconds_the_model_equals_hugging_face() -> None:
    ours, stock = _pair()
    inputs = {"input_features": torch.randn(2, 80, 3_000), "decoder_input_ids": torch.tensor([[50_258, 50_259]] * 2)}
    with torch.inference_mode():
        torch.testing.assert_close(ours(**inputs).logits, stock(**inputs).logits)


@pytest.mark.parametrize("num_frames", [2, 200, 600, 1_000])
def test_a_trimmed_context_has_half_as_many_positions(num_frames: int) -> None:
    ours, _ = _pair()
    with torch.inference_mode():
        encoded = ours.get_encoder()(torch.randn(1, 80, num_frames)).last_hidden_state
    assert encoded.shape == (1, num_frames // 2, 32)


def test_trimming_slices_the_positions_and_changes_nothing_else() -> None:
    ours, stock = _pair()
    features = torch.randn(1, 80, 600)
    stock.model.encoder.embed_positions = torch.nn.Embedding.from_pretrained(
        ours.model.encoder.embed_positions.weight[:300]
    )
    stock.config.max_source_positions = 300  # Hugging Face's own encoder, built for the short context
    with torch.inference_mode():
        expected = stock.get_encoder()(features).last_hidden_state
        torch.testing.assert_close(ours.get_encoder()(features).last_hidden_state, expected)


def test_gradient_checkpointing_does_not_change_the_gradients() -> None:
    ours, _ = _pair()
    inputs = {"input_features": torch.randn(1, 80, 200), "labels": torch.tensor([[50_259, 50_257]])}
    ours.train()(**inputs).loss.backward()
    expected = ours.model.encoder.conv1.weight.grad.clone()
    ours.zero_grad()
    ours.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    ours(**inputs).loss.backward()
    torch.testing.assert_close(ours.model.encoder.conv1.weight.grad, expected)


def test_a_context_is_the_next_half_second_within_the_range() -> None:
    context = AudioContext(2.0, 10.0)
    assert [context.seconds_for(seconds) for seconds in (0.3, 2.0, 2.01, 4.5, 9.9, 10.0)] == [2, 2, 2.5, 4.5, 10, 10]
    assert context.num_frames_for(2.2) == 250


def test_stock_whisper_is_always_padded_to_thirty_seconds() -> None:
    context = AudioContext.of(_tiny_config())
    assert context == AudioContext(30.0, 30.0)
    assert context.num_frames_for(1.0) == 3_000


def test_the_range_travels_in_the_config() -> None:
    config = _tiny_config()
    set_audio_context(config, AudioContext(2.0, 10.0))
    assert AudioContext.of(WhisperConfig.from_dict(config.to_dict())) == AudioContext(2.0, 10.0)


def test_a_range_without_a_padding_is_of_an_early_release_that_padded_sound() -> None:
    assert AudioContext.read({"audio_context_s": [2.0, 10.0]}) == AudioContext(2.0, 10.0, padding="sound")
    assert AudioContext.read({}).padding == "frames"


def test_a_margin_of_silence_follows_the_speech_as_far_as_the_range_reaches() -> None:
    context = AudioContext(2.0, 10.0, margin_s=0.5, padding="sound")
    assert [context.seconds_for(seconds) for seconds in (0.3, 1.5, 1.6, 4.5, 9.9, 10.0)] == [2, 2, 2.5, 5, 10, 10]
    config = _tiny_config()
    set_audio_context(config, context)
    assert AudioContext.of(WhisperConfig.from_dict(config.to_dict())) == context


def test_speech_longer_than_the_range_raises_context_error() -> None:
    with pytest.raises(ContextError, match="cut it into windows"):
        AudioContext(2.0, 10.0).seconds_for(10.1)
