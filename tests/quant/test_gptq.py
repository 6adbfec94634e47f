"""GPTQ: error feedback, column steps, the rate term, dead and singular inputs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from toys import layer

from golfcore.artifact.inspect import order0_bits
from golfcore.artifact.model_io import StoredTensor
from golfcore.bench.quant import plain_gptq, symbol_entropy
from golfcore.config import QuantConfig
from golfcore.errors import InputError, UsageError
from golfcore.model import Role
from golfcore.quant import codings, quantize_state
from golfcore.quant.gptq import Coding, column_steps, factorize, quantize_layers, quantize_together
from golfcore.quant.hessian import Hessians
from golfcore.quant.matrix import Quantized
from golfcore.quant.measure import hessian_error
from golfcore.quant.rtn import quantize_rows

SCALAR = Coding(trellis=0, columns=False, rate=0.0)


def stored(found: Quantized) -> StoredTensor:
    return StoredTensor("w", "q", found.symbols_OI, found.scale_O, 8, found.trellis, found.column_I)


def error(weight: torch.Tensor, hessian: torch.Tensor, coding: Coding) -> tuple[float, float]:
    """Hessian-weighted error in dB, and entropy of the symbols."""
    item = stored(quantize_together([weight], factorize(hessian, damping=0.01, name="w"), coding, ["w"])[0])
    return 10 * np.log10(hessian_error(weight, weight - item.dequantize(), hessian)), symbol_entropy(item)


def test_feedback_trellis_and_column_steps_each_lower_the_error() -> None:
    weight, hessian = layer(160, 192)
    rounded = quantize_rows(weight, bits=6, clip="sigma", k=12.85, scales="log8")
    rtn = 10 * np.log10(hessian_error(weight, weight - stored(rounded).dequantize(), hessian))
    scalar, bits = error(weight, hessian, SCALAR)
    trellis, trellis_bits = error(weight, hessian, SCALAR._replace(trellis=8))
    columns, column_bits = error(weight, hessian, SCALAR._replace(trellis=8, columns=True))
    assert scalar < rtn - 1
    assert trellis + 6.02 * trellis_bits < scalar + 6.02 * bits - 1.0  # at equal entropy: a bit is worth 6.02 dB
    # Entropy does not see that the columns' own steps make their symbols differ; the coders do.
    assert columns < trellis - 0.5 and column_bits < trellis_bits + 0.2


def test_rounding_is_gptq_as_its_authors_write_it() -> None:
    weight, hessian = layer(96, 300)
    coding = SCALAR._replace(scales="fp16", clipped=True)
    found = quantize_together([weight], factorize(hessian, damping=0.01, name="w"), coding, ["w"])[0]
    step_O = found.scale_O.float()
    other = plain_gptq(weight, hessian, step_O, 31)
    same = float((found.symbols_OI == other).float().mean())
    errors = [hessian_error(weight, weight - s.float() * step_O[:, None], hessian) for s in (found.symbols_OI, other)]
    assert same > 0.97 and errors[0] == pytest.approx(errors[1], rel=5e-3)


@pytest.mark.parametrize("columns", [50, 256, 600])
def test_the_factor_is_that_of_the_damped_hessian(columns: int) -> None:
    _, hessian = layer(1, columns)
    factor = factorize(hessian, damping=0.01, name="w")
    ordered = hessian[factor.order_I][:, factor.order_I].double()
    ordered += torch.eye(columns) * 0.01 * hessian.diagonal().mean()
    upper = factor.feedback_II.double() * factor.weight_I[factor.order_I].double()
    assert torch.allclose(upper @ upper.t(), ordered, rtol=1e-4, atol=1e-5 * float(ordered.diagonal().mean()))
    assert (factor.feedback_II.tril(-1) == 0).all() and (factor.weight_I > 0).all()
    assert (hessian.diagonal()[factor.order_I].diff() <= 0).all()


def test_feedback_is_that_of_the_inverse_in_double_precision() -> None:
    """GPTQ as published, U being the upper Cholesky factor of the inverse, column by column."""
    weight, hessian = layer(40, 60)
    found = quantize_together([weight], factorize(hessian, damping=0.01, name="w"), SCALAR, ["w"])[0]
    order = factorize(hessian, damping=0.01, name="w").order_I
    damped = (hessian + torch.eye(60) * 0.01 * hessian.diagonal().mean()).double()[order][:, order]
    upper = torch.linalg.cholesky(damped.inverse(), upper=True)
    w, step = weight.double()[:, order], found.scale_O.double()
    for j in range(60):
        symbol = (w[:, j] / step).round()
        assert (symbol == found.symbols_OI[:, order[j]]).float().mean() > 0.95
        symbol = found.symbols_OI[:, order[j]].double()  # a tie that fell otherwise must not change what follows
        w[:, j + 1 :] -= ((w[:, j] - symbol * step) / upper[j, j])[:, None] * upper[j, j + 1 :]


def test_dead_inputs_get_no_symbols_and_singular_hessians_are_damped() -> None:
    weight, hessian = layer(20, 40)
    hessian[7], hessian[:, 7] = 0, 0
    singular = hessian.clone()
    singular[3], singular[:, 3] = singular[4], singular[:, 4]  # two inputs that are always equal
    for h in (hessian, singular, torch.zeros(40, 40)):
        found = quantize_together([weight], factorize(h, damping=0.01, name="w"), Coding(), ["w"])[0]
        assert torch.isfinite(stored(found).dequantize()).all()
    assert (
        not quantize_together([weight], factorize(hessian, damping=0.01, name="w"), SCALAR, ["w"])[0]
        .symbols_OI[:, 7]
        .any()
    )


def test_a_hessian_that_is_not_positive_definite_is_named() -> None:
    _, hessian = layer(1, 10)
    hessian[2, 2] = 1.0
    hessian[2, 3] = hessian[3, 2] = 1e6
    with pytest.raises(InputError, match=r"blocks\.1\.q: its Hessian is not positive definite.*damping"):
        factorize(hessian, damping=0.01, name="blocks.1.q")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_weights_are_named(bad: float) -> None:
    weight, hessian = layer(4, 8)
    weight[1, 2] = bad
    factors = {"w": factorize(hessian, damping=0.01, name="w")}
    with pytest.raises(InputError, match="w: holds NaN or infinite"):
        quantize_layers({"w": weight}, factors, {"w": "w"}, {"w": Coding()})


def test_results_do_not_depend_on_the_number_of_workers() -> None:
    names = [f"w{i}" for i in range(5)]
    layers = {n: layer(64, 130, seed=i) for i, n in enumerate(names)}
    weights = {n: w for n, (w, _) in layers.items()}
    factors = {n: factorize(h, damping=0.01, name=n) for n, (_, h) in layers.items()}
    results = [
        quantize_layers(weights, factors, {n: n for n in names}, dict.fromkeys(names, Coding()), workers=w)
        for w in (1, 3)
    ]
    for name in names:
        assert torch.equal(results[0][name].symbols_OI, results[1][name].symbols_OI)


def test_stacked_matrices_are_quantized_as_if_alone() -> None:
    """q, k and v share a Hessian and are walked together; a trellis starts anew in each."""
    weight, hessian = layer(90, 64)
    factor = factorize(hessian, damping=0.01, name="w")
    pieces = [weight[:40], weight[40:]]
    together = quantize_together(pieces, factor, SCALAR._replace(trellis=3), ["a", "b"])
    for piece, found in zip(pieces, together, strict=True):
        alone = quantize_together([piece], factor, SCALAR._replace(trellis=3), ["a"])[0]
        assert torch.equal(alone.symbols_OI, found.symbols_OI)


def test_no_symbol_of_a_fine_column_leaves_its_range() -> None:
    weight, hessian = layer(64, 64)
    hessian *= torch.logspace(0, 6, 64)[:, None] * torch.logspace(0, 6, 64)
    for k in (4.0, 20.0):
        found = quantize_together([weight], factorize(hessian, damping=0.01, name="w"), Coding(k=k), ["w"])[0]
        item = stored(found)
        worst = (weight - item.dequantize()).abs() / (found.scale_O.float()[:, None] * found.column_I.float())  # type: ignore[union-attr]
        assert int(found.symbols_OI.abs().max()) <= 127
        assert float(worst.quantile(0.99)) < 8
    steps = column_steps(factorize(hessian, damping=0.01, name="w"), weight, found.scale_O.float())
    assert steps.dtype == torch.float16 and (steps > 0).all()


def test_the_rate_term_saves_more_bits_than_it_costs_error() -> None:
    weight, hessian = layer(200, 128)
    free, free_bits = error(weight, hessian, SCALAR._replace(trellis=8, k=45.0))
    taxed, taxed_bits = error(weight, hessian, SCALAR._replace(trellis=8, k=45.0, rate=0.05))
    assert taxed_bits < free_bits and taxed + 6.02 * taxed_bits < free + 6.02 * free_bits - 0.1


def test_k_goes_by_tensor_then_group_then_kind() -> None:
    roles = {"a.up": Role("matrix", "up"), "b.up": Role("matrix", "up"), "b.q": Role("matrix", "q")}
    config = QuantConfig(method="gptq", group_k=("up=9", "b.up=5.5"), states=16)
    found = codings(roles, config)
    assert [found[n].k for n in roles] == [9, 5.5, 12.85] and found["b.q"].trellis == 4
    with pytest.raises(UsageError, match=r"group_k names 'upp'.*did you mean 'up'"):
        codings(roles, dataclasses.replace(config, group_k=("upp=9",)))
    with pytest.raises(UsageError, match="GROUP=K"):
        QuantConfig(group_k=("up",))
    with pytest.raises(InputError, match=r"w1: its role 'router' is unknown.*expected one of matrix"):
        codings({"w1": Role("router", "r")}, QuantConfig())  # type: ignore[arg-type]


def test_gptq_needs_hessians_and_serves_tensors_without_one() -> None:
    weight, hessian = layer(16, 32)
    roles = {"w": Role("matrix", "up"), "v": Role("matrix", "up"), "c": Role("vector", "control")}
    state = {"w": weight, "v": weight.clone(), "c": torch.ones(3)}
    config = QuantConfig(method="gptq", states=8)
    with pytest.raises(InputError, match="needs the Hessians"):
        quantize_state(state, roles, config)
    items = quantize_state(state, roles, config, Hessians({"w": hessian}, {"w": "w"}, 10))
    assert [item.name for item in items] == ["w", "v", "c"]
    assert items[0].bits == items[1].bits and items[0].column_I is not None and items[1].column_I is None
    assert order0_bits(items[1].values.numpy()) > 2
