from sottovoce.train.batches import LabelMix


def test_labels_are_chosen_as_often_as_asked_and_independently() -> None:
    mix = LabelMix(timestamp_probability=0.2, previous_text_probability=0.5)
    choices = [mix.choose(f"u{i}", seed=0, epoch=0) for i in range(2_000)]
    assert abs(sum(choice.timestamps for choice in choices) / 2_000 - 0.2) < 0.03
    assert abs(sum(choice.previous_text for choice in choices) / 2_000 - 0.5) < 0.04
    assert abs(sum(choice.timestamps and choice.previous_text for choice in choices) / 2_000 - 0.1) < 0.03


def test_the_choice_follows_from_seed_epoch_and_id_alone() -> None:
    mix = LabelMix(timestamp_probability=0.5, previous_text_probability=0.5)

    def draw(*, seed: int = 0, epoch: int = 0, prefix: str = "u") -> list[object]:
        return [mix.choose(f"{prefix}{i}", seed=seed, epoch=epoch) for i in range(64)]

    assert draw() == draw()
    assert draw() != draw(epoch=1)
    assert draw() != draw(seed=1)
    assert draw() != draw(prefix="v")


def test_never_and_always_are_certain() -> None:
    never, always = LabelMix(0.0, 0.0), LabelMix(1.0, 1.0)
    assert not any(never.choose(f"u{i}", seed=0, epoch=0).timestamps for i in range(100))
    assert all(always.choose(f"u{i}", seed=0, epoch=0).previous_text for i in range(100))
