import torch

from textocvp.modules.slot_attention import BackgroundRandom, Learned, LearnedRandom


def test_learned_gives_every_clip_the_same_slots_and_ignores_noise():
    initializer = Learned(3, 5)
    slots = initializer(torch.randn(4, 3, 5))
    assert slots.shape == (4, 3, 5)
    assert torch.equal(slots, initializer(torch.zeros(4, 3, 5)))
    assert torch.equal(slots[0], slots[3])


def test_learned_random_is_an_affine_map_of_the_noise():
    initializer, noise = LearnedRandom(3, 5), torch.randn(4, 3, 5)
    assert torch.equal(initializer(noise), initializer.mean + initializer.std * noise)


def test_background_slot_is_fixed_and_the_others_are_drawn():
    initializer, noise = BackgroundRandom(3, 5), torch.randn(4, 3, 5)
    slots = initializer(noise)
    assert torch.equal(slots[:, 0], initializer.background[0].expand(4, 5))
    assert torch.equal(slots[:, 1:], initializer.mean + initializer.std * noise[:, 1:])


def test_background_slot_alone():
    assert BackgroundRandom(1, 5)(torch.randn(4, 1, 5)).shape == (4, 1, 5)
