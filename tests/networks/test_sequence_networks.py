"""Sequence networks: published sizes, blocks against torch's own, and what the masked cross-entropy is."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from expost.config import ModelConfig
from expost.errors import UsageError
from expost.grammar.codec import CharacterCodec, GrammarCodec
from expost.grammar.grammars import EXPRESSIONS
from expost.models.autoencoder import build
from expost.models.reconstructions import MaskedCategorical
from expost.models.regularizers import GradientPenalty, Tikhonov
from expost.networks import NETWORKS
from expost.networks.sequence import ConvNeXtBlock, PositionwiseDecoder, RecurrentDecoder, TransformerBlock
from expost.registry import Part
from expost.types import LatentCode

SEQUENCE = ["gru-expressions", "gru-molecules", "convnext-1d", "transformer"]
POSITIONWISE = ["convnext-1d", "transformer"]
SHAPE = {"gru-expressions": (15, 12), "gru-molecules": (30, 9), "convnext-1d": (15, 12), "transformer": (15, 12)}


def one_hot(shape, batch=6, seed=0):
    symbols = torch.randint(shape[1], (batch, shape[0]), generator=torch.Generator().manual_seed(seed))
    return functional.one_hot(symbols, shape[1]).float()


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def gru_size(inputs, units):
    return 3 * units * (inputs + units + 2)


@pytest.mark.parametrize(
    ("name", "shape", "latent_dim", "width", "convolutions", "flat", "features"),
    [
        ("gru-expressions", (15, 12), 25, 100, [(2, 12, 2), (3, 2, 3), (4, 3, 4)], 9 * 4, 100),
        ("gru-molecules", (277, 76), 56, 501, [(9, 76, 9), (9, 9, 9), (10, 9, 11)], 251 * 10, 435),
    ],
)
def test_the_paper_networks_have_the_published_layers(name, shape, latent_dim, width, convolutions, flat, features):
    encoder, decoder = NETWORKS[name](shape, latent_dim, width, False)
    kernels = [tuple(module.weight.shape) for module in encoder.modules() if isinstance(module, nn.Conv1d)]
    assert kernels == convolutions
    assert sum(isinstance(module, nn.BatchNorm1d) for module in encoder.modules()) == 3 * (name == "gru-expressions")
    linear = [module.weight.shape for module in encoder.modules() if isinstance(module, nn.Linear)]
    assert linear == [(features, flat)]
    recurrent = gru_size(latent_dim, width) + 2 * gru_size(width, width)
    read, write = latent_dim * (latent_dim + 1), shape[1] * (width + 1)
    assert count(decoder) == read + recurrent + write


def test_the_recurrent_weights_are_orthogonal_and_the_biases_zero():
    torch.manual_seed(0)
    _, decoder = NETWORKS["gru-expressions"]((15, 12), 25, 20, False)
    assert isinstance(decoder, RecurrentDecoder)
    for name, parameter in decoder.gru.named_parameters():
        if name.startswith("weight_hh"):
            for gate in parameter.chunk(3):
                torch.testing.assert_close(gate @ gate.T, torch.eye(20), atol=1e-5, rtol=0)
        elif name.startswith("weight_ih"):
            for gate in parameter.chunk(3):
                limit = math.sqrt(6 / sum(gate.shape))
                assert 0.8 * limit < gate.abs().max() <= limit
        else:
            assert parameter.abs().max() == 0


def test_width_scales_the_published_sizes():
    encoder, decoder = NETWORKS["gru-molecules"]((277, 76), 56, 167, False)
    assert encoder(torch.zeros(1, 277, 76)).shape == (1, 145)  # 435 / 3
    assert isinstance(decoder, RecurrentDecoder)
    assert decoder.gru.hidden_size == 167


# --- what holds for each network


@pytest.mark.parametrize("name", SEQUENCE)
def test_a_network_maps_one_hot_symbols_to_features_and_codes_to_logits(name):
    torch.manual_seed(0)
    shape = SHAPE[name]
    encoder, decoder = NETWORKS[name](shape, 5, 24, False)
    x = one_hot(shape)
    features = encoder(x)
    assert features.dim() == 2
    assert features.std(0).max() > 0
    z = torch.randn(6, 5, requires_grad=True)
    logits = decoder(z)
    assert logits.shape == x.shape
    assert logits.dtype == torch.float32
    logits.square().sum().backward()
    assert (z.grad.abs().sum(0) > 0).all()
    features.square().sum().backward()
    for network in (encoder, decoder):
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", SEQUENCE)
def test_examples_do_not_see_each_other_in_evaluation(name):
    torch.manual_seed(0)
    shape = SHAPE[name]
    encoder, decoder = NETWORKS[name](shape, 5, 24, False)
    encoder.eval(), decoder.eval()
    x, z = one_hot(shape), torch.randn(6, 5)
    torch.testing.assert_close(encoder(x), torch.cat([encoder(row[None]) for row in x]))
    torch.testing.assert_close(decoder(z), torch.cat([decoder(row[None]) for row in z]))


@pytest.mark.parametrize("name", SEQUENCE)
def test_mixed_precision_is_close_and_gives_float32_logits(name):
    torch.manual_seed(0)
    shape = SHAPE[name]
    encoder, decoder = NETWORKS[name](shape, 5, 24, False)
    encoder.eval(), decoder.eval()
    x, z = one_hot(shape), torch.randn(6, 5)
    with torch.autocast("cpu", torch.bfloat16):
        features, logits = encoder(x), decoder(z)
        logits.sum().backward()
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, decoder(z), atol=0.1, rtol=0.1)
    torch.testing.assert_close(features.float(), encoder(x), atol=0.1, rtol=0.1)


@pytest.mark.parametrize("name", SEQUENCE)
def test_decoders_can_be_regularized(name):
    """The gradient penalty differentiates twice, forward and backward."""
    torch.manual_seed(0)
    length = {"gru-expressions": 7, "gru-molecules": 27}.get(name, 9)
    decoder = NETWORKS[name]((length, 3), 3, 8, False)[1].double()
    z = torch.randn(2, 3, dtype=torch.float64)
    code = LatentCode(z=z, mean=z)
    jacobians = [torch.autograd.functional.jacobian(decoder, row[None]) for row in z]
    expected = torch.stack([jacobian.square().sum() for jacobian in jacobians]).mean()
    exact = GradientPenalty("exact").penalty(decoder, code)
    torch.testing.assert_close(exact.double(), expected, rtol=1e-5, atol=0)
    weight = decoder.get_parameter("write.weight")
    for estimator in ("exact", "forward", "reverse"):

        def value(estimator=estimator):
            torch.manual_seed(7)  # the same projection each time
            return GradientPenalty(estimator).penalty(decoder, code)

        (gradient,) = torch.autograd.grad(value(), weight)
        with torch.no_grad():  # the penalty is quadratic in this layer: central differences are exact, but for float32
            weight[0, 0] += 0.5
            above = value().item()
            weight[0, 0] -= 1
            below = value().item()
            weight[0, 0] += 0.5
        assert gradient[0, 0].item() == pytest.approx(above - below, rel=1e-3, abs=1e-4)
    kernels = sum(p.square().sum() for p in decoder.parameters() if p.dim() > 1)
    torch.testing.assert_close(Tikhonov().penalty(decoder, code), kernels)


@pytest.mark.parametrize("name", SEQUENCE)
def test_positions_are_told_apart(name):
    torch.manual_seed(0)
    shape = SHAPE[name]
    encoder, decoder = NETWORKS[name](shape, 5, 24, False)
    encoder.eval()
    x = one_hot(shape)
    assert not torch.allclose(encoder(x), encoder(x.flip(1)), atol=1e-3)
    logits = decoder(torch.zeros(1, 5))[0]
    assert (logits[1:] - logits[:-1]).abs().sum(1).min() > (0 if name in POSITIONWISE else -1)
    decoded = decoder(torch.randn(1, 5))[0]
    assert not torch.allclose(decoded[0], decoded[-1], atol=1e-3)


@pytest.mark.parametrize("name", POSITIONWISE)
@pytest.mark.parametrize("shape", [(1, 2), (2, 3), (277, 77)])
@pytest.mark.parametrize("width", [1, 7, 48])
def test_positionwise_networks_take_any_length_and_width(name, shape, width):
    torch.manual_seed(0)
    encoder, decoder = NETWORKS[name](shape, 2, width, False)
    features = encoder(one_hot(shape, batch=2))
    assert features.shape == (2, shape[0] * max(4, width // 8))
    logits = decoder(torch.randn(2, 2))
    assert logits.shape == (2, *shape)
    assert logits.isfinite().all()


# --- the blocks


def test_the_convnext_block_is_a_depthwise_convolution_and_a_perceptron():
    torch.manual_seed(0)
    block = ConvNeXtBlock(8)
    h = torch.randn(3, 10, 8)
    mixed = block.mix(h.transpose(1, 2)).transpose(1, 2)  # torch's own one-dimensional convolution
    norm, up, _, down = block.layers
    assert isinstance(norm, nn.LayerNorm)
    expected = h + down(functional.relu(up(functional.layer_norm(mixed, (8,), norm.weight, norm.bias))))
    torch.testing.assert_close(block(h), expected)


@pytest.mark.parametrize(("width", "heads"), [(8, 1), (32, 2), (48, 3), (50, 2), (64, 4)])
def test_the_transformer_block_equals_torch_attention(width, heads):
    torch.manual_seed(0)
    block = TransformerBlock(width)
    assert block.heads == heads
    attention = nn.MultiheadAttention(width, heads, batch_first=True)
    with torch.no_grad():
        attention.in_proj_weight.copy_(torch.cat([m.weight for m in (block.queries, block.keys, block.values)]))
        attention.out_proj.weight.copy_(block.merge.weight)
    h = torch.randn(3, 10, width)
    normed = block.norm(h)
    middle = h + attention(normed, normed, normed, need_weights=False)[0]
    torch.testing.assert_close(block(h), middle + block.layers(middle), atol=1e-5, rtol=1e-5)


def test_each_position_reads_its_own_part_of_the_code():
    """Without the blocks in between a position's logits depend on its own share alone."""
    torch.manual_seed(0)
    decoder = PositionwiseDecoder((6, 5), 3, 16, lambda width: nn.Identity())
    z = torch.randn(4, 3)
    before = decoder(z)
    with torch.no_grad():
        decoder.get_parameter("read.0.weight")[8:12] = 0  # the third position's share of 4
    changed = (decoder(z) - before).abs().amax((0, 2)) > 0
    assert changed.tolist() == [False, False, True, False, False, False]


# --- what cannot work


@pytest.mark.parametrize("name", SEQUENCE)
def test_maps_and_images_are_refused(name):
    with pytest.raises(UsageError, match=f"network {name} has no feature map.*use residual, conv4 or conv5"):
        NETWORKS[name](SHAPE[name], 5, 24, True)
    with pytest.raises(UsageError, match=r"shape \(L, V\), got \(1, 28, 28\); use mlp, or conv4 for images"):
        NETWORKS[name]((1, 28, 28), 5, 24, False)
    with pytest.raises(UsageError, match=r"got \(0, 4\)"):
        NETWORKS[name]((0, 4), 5, 24, False)


@pytest.mark.parametrize(("name", "needed"), [("gru-expressions", 7), ("gru-molecules", 27)])
def test_the_paper_networks_need_some_length(name, needed):
    NETWORKS[name]((needed, 4), 2, 8, False)
    with pytest.raises(UsageError, match=f"at least {needed} symbols, got {needed - 1}; use network convnext-1d"):
        NETWORKS[name]((needed - 1, 4), 2, 8, False)


# --- training


def model_for(network, codec, width):
    return build(
        ModelConfig(
            name="rae",
            shape=(codec.length, codec.size),
            latent=Part("deterministic"),
            penalty=Part("half-norm"),
            regularizer=Part("none"),
            reconstruction=Part("masked-categorical", {"groups": codec.groups().tolist()}),
            prior=None,
            network=network,
            width=width,
            latent_dim=12,
            beta=1e-3,
            regularizer_weight=0.0,
        )
    )


def reconstructed(model, codec, strings, steps, lr):
    """Share of held-out strings that come back exactly after a short training."""
    x = functional.one_hot(codec.encode(strings).indices.long(), codec.size).float()
    train, held_out = x[:-200], x[-200:]
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(steps):
        loss = model.loss(train[torch.randint(len(train), (64,))]).total
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        decoded = codec.decode(codec.generate(model(held_out)))
    return sum(a == b for a, b in zip(decoded, strings[-200:], strict=True)) / 200


def test_at_fewer_parameters_the_parallel_networks_reconstruct_where_the_recurrent_one_does_not_yet():
    """Sums and products of four letters, and as many parameters as the recurrent network has, or fewer."""
    codec = GrammarCodec("S -> T '+' S | T '*' S | T\nT -> 'x' | '1' | '2' | '3'", length=8)
    generator = torch.Generator().manual_seed(0)
    choices = torch.randint(4, (1500, 7), generator=generator).tolist()
    strings = sorted({"".join("x123"[c] + "+*+*"[d] for c, d in zip(r[:4], r[3:], strict=True))[:-1] for r in choices})
    strings = [strings[i] for i in torch.randperm(len(strings), generator=generator).tolist()]
    shares, sizes = {}, {}
    for name, width, lr in [("gru-expressions", 60, 5e-3), ("convnext-1d", 32, 5e-3), ("transformer", 32, 5e-3)]:
        torch.manual_seed(0)
        model = model_for(name, codec, width)
        sizes[name] = count(model)
        shares[name] = reconstructed(model, codec, strings, 100, lr)
    for name in POSITIONWISE:
        assert sizes[name] < sizes["gru-expressions"]
        assert shares[name] > 0.5
        assert shares[name] > shares["gru-expressions"] + 0.2


# --- the masked cross-entropy


def by_subsets(x, logits, groups):
    """One position at a time: torch's cross-entropy among the symbols of the true one's group."""
    total = torch.zeros(())
    for example, outputs in zip(x, logits, strict=True):
        for row, output in zip(example, outputs, strict=True):
            true = int(row.argmax())
            members = [i for i, group in enumerate(groups) if group == groups[true]]
            total += functional.cross_entropy(output[members][None], torch.tensor([members.index(true)]))
    return total / len(x)


@pytest.mark.parametrize("groups", [[0, 0, 1, 1, 1, 2], [0, 1, 0, 1, 0, 1], [3] * 6, [0, 1, 2, 3, 4, 5]])
def test_the_masked_cross_entropy_is_that_of_the_competing_symbols(groups):
    x, logits = one_hot((7, 6)), torch.randn(6, 7, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(MaskedCategorical(groups)(x, logits), torch.as_tensor(by_subsets(x, logits, groups)))


def test_without_groups_it_is_the_cross_entropy():
    x, logits = one_hot((7, 6)), torch.randn(6, 7, 6, generator=torch.Generator().manual_seed(0))
    expected = functional.cross_entropy(logits.flatten(0, 1), x.argmax(2).flatten(), reduction="sum") / 6
    torch.testing.assert_close(MaskedCategorical()(x, logits), expected)
    torch.testing.assert_close(MaskedCategorical([5] * 6)(x, logits), expected)


def test_its_gradient_equals_finite_differences_and_spares_other_groups():
    groups = [0, 0, 1, 1, 1, 2]
    x = one_hot((4, 6), batch=2).double()
    logits = torch.randn(2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    term = MaskedCategorical(groups)
    assert torch.autograd.gradcheck(lambda output: term(x, output), (logits,))
    term(x, logits).backward()
    group = torch.tensor(groups)
    others = group[x.argmax(2)].unsqueeze(2) != group
    assert logits.grad[others].abs().max() == 0
    assert (logits.grad[~others & (x == 0)] > 0).all()


def test_it_is_finite_for_extreme_logits():
    groups = [0, 0, 1]
    x = functional.one_hot(torch.tensor([[0, 2]]), 3).float()
    values = [[[1e30, -1e30, math.inf], [-math.inf, math.inf, -1e30]]]  # infinite only where they do not compete
    logits = torch.tensor(values, requires_grad=True)
    loss = MaskedCategorical(groups)(x, logits)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().max() == 0
    wrong = torch.tensor([[[-1e4, 1e4, 0.0], [0.0, 0.0, 0.0]]], requires_grad=True)
    loss = MaskedCategorical(groups)(x, wrong)
    loss.backward()
    assert loss.item() == 2e4
    assert wrong.grad[0, 0].tolist() == [-1, 1, 0]


def test_padding_costs_nothing_for_a_grammar_and_something_for_characters():
    codec = GrammarCodec(EXPRESSIONS, 15)
    indices = codec.encode(["x", "1+x*sin(x)"]).indices
    x = functional.one_hot(indices.long(), codec.size).float()
    term = MaskedCategorical(codec.groups().tolist())
    # uniform logits: log 4 for each S, log 7 for each T
    productions = indices[indices != codec.grammar.pad].long()
    sums = int((productions < 4).sum())
    expected = (sums * math.log(4) + (len(productions) - sums) * math.log(7)) / 2
    assert term(x, torch.zeros(2, 15, codec.size)).item() == pytest.approx(expected, rel=1e-6)

    characters = CharacterCodec(["a", "b"], 5)
    x = functional.one_hot(characters.encode(["ab"]).indices.long(), 3).float()
    term = MaskedCategorical(characters.groups().tolist())
    assert term(x, torch.zeros(1, 5, 3)).item() == pytest.approx(5 * math.log(3), rel=1e-6)


def test_groups_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="empty list"):
        MaskedCategorical([])
    with pytest.raises(UsageError, match="groups for 2 symbols, the logits 3"):
        MaskedCategorical([0, 1])(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3))
