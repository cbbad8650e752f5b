import torch
from torch.testing import assert_close

from textocvp.modules.slot_attention import BackgroundRandom, Learned, LearnedRandom, SlotAttention


def step_by_the_paper(module, slots, features):
    """One iteration as Locatello et al. 2020 write it: keys and values of all locations."""
    features_norm = module.norm_input(features)
    keys = features_norm @ module.to_k.weight.T + module.to_k.bias
    values = module.to_v(features_norm)
    logits = module.to_q(module.norm_slot(slots)) @ keys.transpose(1, 2) * module.scale
    attention = logits.softmax(dim=1)
    weights = (attention + 1e-8) / (attention + 1e-8).sum(dim=-1, keepdim=True)
    updates = weights @ values
    slots = torch.stack([module.gru(update, slot) for update, slot in zip(updates, slots)])
    return slots + module.mlp(module.norm_mlp(slots)), attention


def test_projecting_the_queries_instead_of_the_keys_changes_nothing():
    torch.manual_seed(0)
    module = SlotAttention(feature_dim=12, slot_dim=8, mlp_hidden=16)
    slots, features = torch.randn(2, 3, 8), torch.randn(2, 20, 12)
    expected = slots
    for _ in range(3):
        expected, attention = step_by_the_paper(module, expected, features)
    refined, refined_attention = module(slots, module.norm_input(features), num_iterations=3)
    assert_close(refined, expected, atol=1e-5, rtol=0)
    assert_close(refined_attention, attention, atol=1e-5, rtol=0)


def test_slots_compete_for_every_location_in_any_order():
    module = SlotAttention(feature_dim=6, slot_dim=6, mlp_hidden=8)
    _, attention = module(torch.randn(2, 4, 6), torch.randn(2, 9, 6), num_iterations=1)
    assert attention.shape == (2, 4, 9)
    assert_close(attention.sum(dim=1), torch.ones(2, 9))

    slots, features_norm = torch.randn(1, 3, 6), torch.randn(1, 9, 6)
    forward, _ = module(slots, features_norm, 2)
    backward, _ = module(slots.flip(1), features_norm, 2)
    assert_close(backward.flip(1), forward)


def test_learned_and_background_slots_are_fixed_and_the_others_an_affine_map_of_the_noise():
    initializer = Learned(3, 5)
    slots = initializer(torch.randn(4, 3, 5))
    assert slots.shape == (4, 3, 5)
    assert torch.equal(slots, initializer(torch.zeros(4, 3, 5)))
    assert torch.equal(slots[0], slots[3])

    initializer, noise = LearnedRandom(3, 5), torch.randn(4, 3, 5)
    assert torch.equal(initializer(noise), initializer.mean + initializer.std * noise)

    initializer, noise = BackgroundRandom(3, 5), torch.randn(4, 3, 5)
    slots = initializer(noise)
    assert torch.equal(slots[:, 0], initializer.background[0].expand(4, 5))
    assert torch.equal(slots[:, 1:], initializer.mean + initializer.std * noise[:, 1:])

    assert BackgroundRandom(1, 5)(torch.randn(4, 1, 5)).shape == (4, 1, 5)
