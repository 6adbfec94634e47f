"""The coders of symbols and scales: exact, equal in both decoders, as small as they claim, safe on damaged streams."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golfcore.artifact.inspect import order0_bits
from golfcore.container import grid, plain_decoder, trellis
from golfcore.container.codecs import CODECS, CodecError, Layout, attempt, attempts
from golfcore.container.tensors import Kind

BITPACK, STATIC, ADAPTIVE, BASE3, LOGGRID, LZMA, BINARY = 1, 4, 5, 6, 7, 8, 9


def gaussian(shape: tuple[int, int], spread: float, bits: int = 6, seed: int = 0, columns: float = 0.0) -> np.ndarray:
    """Rounded normal symbols; ``columns``: standard deviation of the logarithm of a column's scale."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape) * spread * np.exp(columns * rng.normal(size=shape[1]))
    half = 1 << bits - 1
    return values.round().clip(-half, half - 1).astype(np.int8)


def both(codec: int, raw: bytes, layout: Layout, params: bytes) -> bytes:
    """What is coded, after both decoders gave ``raw`` back."""
    found = attempt(raw, layout, codec, params)
    assert found is not None
    coded = found[2]
    assert CODECS[codec].decode(coded, layout, params) == raw
    plain = plain_decoder.decode_chunk(codec, layout.kind.code, params, coded, list(layout.shapes), layout.kind.numpy)
    assert np.frombuffer(plain, np.uint8).tobytes() == raw
    return coded


@st.composite
def symbol_chunks(draw: st.DrawFn) -> tuple[Layout, bytes]:
    bits = draw(st.integers(1, 8))
    shapes = draw(
        st.lists(
            st.sampled_from([(), (1,), (7,), (300,), (1, 9), (9, 1), (16, 33), (3, 5, 8), (0, 4), (40, 24)]),
            min_size=1,
            max_size=4,
        )
    )
    n = sum(map(math.prod, shapes))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    half = 1 << bits - 1
    if draw(st.booleans()):
        symbols = rng.integers(-half, half, n)
    else:
        symbols = (rng.standard_t(2, n) * draw(st.floats(0, half))).round().clip(-half, half - 1)
    kind = Kind("i8", bits, draw(st.sampled_from([0, 2, 3, 4, 5, 6, 7, 8])))
    return Layout(kind, tuple(shapes)), symbols.astype(np.int8).tobytes()


@settings(max_examples=40, deadline=None)
@given(symbol_chunks(), st.data())
def test_symbols_come_back_from_both_decoders(chunk: tuple[Layout, bytes], data: st.DataObject) -> None:
    layout, raw = chunk
    for codec, params in attempts(layout, "smallest"):
        if attempt(raw, layout, codec, params) is not None:  # base 3 may decline
            both(codec, raw, layout, params)
    if not raw:
        return
    most = min(cols for _, cols in layout.matrices).bit_length() - 1 if layout.kind.trellis else 8
    lanes = data.draw(st.integers(0, min(8, most)))
    both(STATIC, raw, layout, bytes((lanes, data.draw(st.integers(0, 4)))))
    columns = data.draw(st.integers(0, 15)), data.draw(st.integers(0, 3))
    both(ADAPTIVE, raw, layout, bytes((lanes, *columns)))
    if layout.kind.bits > 1:
        both(BINARY, raw, layout, bytes((data.draw(st.integers(0, 8)), *columns)))


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("states", [0, 3])
def test_large_matrices_with_escapes_and_halved_counts(bits: int, states: int) -> None:
    symbols = gaussian((700, 512), 0.1 * 2**bits, bits)
    symbols[::101, ::97] = -(1 << bits - 1)  # what the first tables have no room for
    layout = Layout(Kind("i8", bits, states), (symbols.shape,))
    for codec, params in ((STATIC, b"\x08\x02"), (ADAPTIVE, b"\x08\x0f\x02"), (ADAPTIVE, b"\x05\x05\x00")):
        both(codec, symbols.tobytes(), layout, params)
    if bits > 1:
        both(BINARY, symbols[:200].tobytes(), Layout(layout.kind, ((200, 512),)), b"\x08\x0f\x02")


def coded_bits(codec: int, symbols: np.ndarray, bits: int, params: bytes) -> float:
    layout = Layout(Kind("i8", bits), (symbols.shape,))
    return 8 * len(both(codec, symbols.tobytes(), layout, params)) / symbols.size


def test_coded_size_is_the_entropy() -> None:
    symbols = gaussian((1024, 512), 2.4)
    entropy = order0_bits(symbols)
    assert coded_bits(STATIC, symbols, 6, b"\x04\x00") < entropy + 0.004
    assert coded_bits(ADAPTIVE, symbols, 6, b"\x04\x0f\x02") < entropy + 0.004
    assert coded_bits(BINARY, symbols, 6, b"\x04\x0f\x02") < entropy + 0.002


def test_columns_of_different_scale_are_worth_bits() -> None:
    symbols = gaussian((1024, 512), 2.4, columns=0.3)
    entropy = order0_bits(symbols)
    assert coded_bits(STATIC, symbols, 6, b"\x04\x02") < entropy - 0.04
    adaptive, binary = (coded_bits(codec, symbols, 6, b"\x02\x05\x00") for codec in (ADAPTIVE, BINARY))
    assert binary < adaptive < entropy - 0.05


def test_smallest_takes_the_binary_coder_and_fast_never_does() -> None:
    from golfcore.container import Container, Tensor, encode

    tensor = Tensor("w", "matrix", gaussian((512, 256), 2.4, columns=0.3), 6)
    fast, smallest = (encode([tensor], {}, coder=coder, threads=1) for coder in ("fast", "smallest"))
    assert len(smallest) < len(fast)
    assert encode([tensor], {}, coder="smallest", threads=4) == smallest
    for data, names in ((fast, {4, 5}), (smallest, {BINARY})):
        with Container.from_bytes(data) as container:
            assert container.chunks[0].codec in names
            assert (container.read("w") == tensor.array).all()


@pytest.mark.parametrize("codec", [BITPACK, STATIC, ADAPTIVE, BASE3, LOGGRID, LZMA, BINARY])
def test_damaged_streams_are_refused(codec: int) -> None:
    if codec == LOGGRID:
        layout = Layout(Kind("f16"), ((40,), (50,)))
        raw = grid.VALUES[np.random.default_rng(0).integers(60, 70, 90)].tobytes()
    elif codec == LZMA:
        layout = Layout(Kind("u8"), ((400,),))
        raw = b"def f(x): return x\n" * 21 + b"#"
    else:
        bits = 2 if codec == BASE3 else 5
        layout = Layout(Kind("i8", bits), ((12, 20), (7, 9)))
        symbols = gaussian((1, 303), 3, 5)
        raw = (symbols.clip(-1, 1) if codec == BASE3 else symbols).tobytes()
    params = b"\x01\x05\x00" if codec == BINARY else next(iter(CODECS[codec].params(layout)))
    coded = both(codec, raw, layout, params)
    for broken in (*(coded[:n] for n in range(len(coded))), coded + b"\0", b"\0" + coded, coded + coded):
        with pytest.raises(CodecError):
            CODECS[codec].decode(broken, layout, params)
    other = 0
    for i in range(len(coded)):
        for bit in range(8):
            broken = bytearray(coded)
            broken[i] ^= 1 << bit
            try:
                other += CODECS[codec].decode(bytes(broken), layout, params) != raw
            except CodecError:
                continue
    # Nothing protects packed symbols but the chunk's checksum; rANS notices nearly everything by its last states.
    assert other < (8 * len(coded) + 1 if codec in (BITPACK, BASE3) else 40)


@pytest.mark.parametrize(
    ("codec", "params"),
    [
        (STATIC, b""), (STATIC, b"\x09\x00"), (STATIC, b"\x00\x05"), (STATIC, b"\x00\x00\x00"), (STATIC, b"\x04\x00"),
        (ADAPTIVE, b"\x00\x05"), (ADAPTIVE, b"\x09\x05\x00"), (ADAPTIVE, b"\x00\x10\x00"), (ADAPTIVE, b"\x00\x05\x04"),
        (ADAPTIVE, b"\x04\x05\x00"), (BITPACK, b"\x00"), (BASE3, b"\x00"), (LOGGRID, b"\x00"), (LZMA, b"\x05"),
        (LZMA, b""), (BINARY, b""), (BINARY, b"\x09\x05\x00"), (BINARY, b"\x00\x10\x00"), (BINARY, b"\x00\x05\x04"),
    ],
)  # fmt: skip
def test_parameters_out_of_range_are_refused(codec: int, params: bytes) -> None:
    kinds = {LOGGRID: Kind("f16"), LZMA: Kind("u8"), BASE3: Kind("i8", 2)}
    layout = Layout(kinds.get(codec, Kind("i8", 4, 3)), ((20, 9),))  # nine columns: with a trellis at most 8 lanes
    with pytest.raises(CodecError):
        CODECS[codec].decode(bytes(60), layout, params)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("kind", [Kind("f16"), Kind("i64"), Kind("u8"), Kind("i8", 8), Kind("i8", 2), Kind("i8", 6, 3)])
def test_any_codec_refuses_noise_of_any_kind(codec: int, kind: Kind) -> None:
    rng = np.random.default_rng(codec)
    layout = Layout(kind, ((16, 9), (), (0, 2)))
    for n in range(40):
        try:
            raw = CODECS[codec].decode(rng.bytes(n), layout, rng.bytes(n % 4))
        except CodecError:
            continue
        assert len(raw) == layout.raw_len


def test_wide_matrices_are_left_to_bit_packing() -> None:
    layout = Layout(Kind("i8", 4), ((1, (1 << 20) + 1),))
    assert {codec for codec, _ in attempts(layout)} == {0, BITPACK}
    with pytest.raises(CodecError, match="out of range"):
        CODECS[ADAPTIVE].decode(bytes(100), layout, b"\x00\x05\x00")


def test_grid_is_an_eighth_of_an_octave_and_indices_are_exact() -> None:
    values = grid.VALUES.astype(np.float64)
    assert values[0] == 0 and (np.diff(values) > 0).all()
    octaves = np.log2(values[1:])
    np.testing.assert_allclose(octaves, -14 + np.arange(240) / 8, atol=1e-3)
    index = grid.to_index(grid.VALUES.view(np.uint16))
    assert index is not None and index.tolist() == list(range(241))
    assert (grid.from_index(index) == grid.VALUES.view(np.uint16)).all()
    for wrong in (1, 0x3C01, 0x7C00, 0x7E00, 0x8000, 0xBC00):  # subnormal, off the grid, infinite, NaN, negative
        assert grid.to_index(np.array([0x3C00, wrong], np.uint16)) is None


def test_nearest_scales() -> None:
    scale = np.float32([0, 1e-9, 2**-15.1, 2**-14.9, 1.0, 1.04, 1.05, 59999, 66000])
    down = grid.nearest(scale).tolist()
    assert down[:3] == [0, 0, 0] and down[3] == 2**-14 and down[4:6] == [1, 1] and down[6] == float(grid.VALUES[114])
    assert math.isinf(down[8]) and down[7] == float(grid.VALUES[-1])
    up = grid.nearest(scale, up=True)
    assert up[0] == 0 and (up.astype(np.float64) >= scale).all()
    assert up[1] == np.float16(2**-14) and up[4] == 1 and up[5] == grid.VALUES[114]
    random = np.exp(np.random.default_rng(0).normal(size=4000) * 2).astype(np.float32)
    ratio = grid.nearest(random).astype(np.float64) / random
    assert np.abs(np.log2(ratio)).max() < 1 / 16 + 1e-3


def test_scales_on_the_grid_take_few_bits() -> None:
    rng = np.random.default_rng(0)
    scale = grid.nearest(np.exp(rng.normal(-3, 0.15, 4000)).astype(np.float32))
    layout = Layout(Kind("f16"), ((2500,), (1500,)))
    coded = both(LOGGRID, scale.tobytes(), layout, b"\x00\x0f\x02")
    assert 8 * len(coded) / scale.size < 2.84 + 0.1  # the entropy of a normal of 0.15 * 8 / ln 2 = 1.73 steps, rounded
    assert attempt((scale * np.float16(1.01)).tobytes(), layout, LOGGRID, b"\x00\x0f\x02") is None


def viterbi(values: np.ndarray, step: float, bits: int) -> np.ndarray:
    """Symbols of a column with the least squared error to ``values``, by docs/reference/formats.md's states."""
    n_states, masks = 1 << bits, trellis.MASKS[bits]
    cost = np.full(n_states, np.inf)
    cost[0] = 0
    choice = np.zeros((len(values), n_states), np.int64)
    before = np.zeros((len(values), n_states), np.int64)
    states = np.arange(n_states)
    z = states & 1
    for t, value in enumerate(values):
        best = np.full(n_states, np.inf)
        for parity in (0, 1):  # of the symbol: which of the two cosets
            k = 2 * np.round((value / step - z / 2 - parity) / 2) + parity
            total = cost + (value - step * (k + z / 2)) ** 2
            to = states >> 1 ^ np.array(masks)[(2 * k.astype(np.int64) + z) & 3]
            for s in np.argsort(-total, kind="stable"):  # the cheapest writes last
                if total[s] <= best[to[s]]:
                    best[to[s]], choice[t, to[s]], before[t, to[s]] = total[s], k[s], s
        cost = best
    state, symbols = int(np.argmin(cost)), np.zeros(len(values), np.int64)
    for t in range(len(values) - 1, -1, -1):
        symbols[t], state = choice[t, state], before[t, state]
    return symbols


@pytest.mark.parametrize(("bits", "gain_db"), [(2, 0.8), (3, 0.9)])
def test_a_trellis_buys_a_decibel_at_equal_bits(bits: int, gain_db: float) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(1500, 4))
    step = 0.4145
    symbols = np.stack([viterbi(column, step, bits) for column in values.T], axis=1).astype(np.int8)
    error = np.mean((trellis.points(symbols, bits) * step / 2 - values) ** 2)
    plain = (values / step).round().astype(np.int8)
    plain_error = np.mean((plain * step - values) ** 2)
    z = trellis.points(symbols, bits) & 1
    rate = sum((z == b).mean() * order0_bits(symbols[z == b]) for b in (0, 1))
    assert rate == pytest.approx(order0_bits(plain), abs=0.05)
    assert 10 * math.log10(plain_error / error) > gain_db


def test_trellis_points_follow_the_states() -> None:
    symbols = np.array([[1, 0], [-2, 3], [0, 1], [5, -1]], np.int8)
    for bits, masks in trellis.MASKS.items():
        for column in range(2):
            state = 0
            for row in range(4):
                point = 2 * int(symbols[row, column]) + (state & 1)
                assert trellis.points(symbols, bits)[row, column] == point
                state = state >> 1 ^ masks[point & 3]
                assert state < 1 << bits
    assert (trellis.points(symbols[:, 0], 3) == trellis.points(symbols, 3)[:, 0]).all()


def test_the_trellis_bit_is_a_context() -> None:
    """Symbols whose distribution depends on the state's lowest bit take fewer bits than their plain entropy."""
    rng = np.random.default_rng(0)
    symbols, state = np.zeros((600, 64), np.int8), np.zeros(64, np.int64)
    masks = np.array(trellis.MASKS[3])
    for row in symbols:
        z = state & 1
        row[:] = np.where(z == 1, rng.integers(0, 2, 64) * 3, -1)
        state = state >> 1 ^ masks[(2 * row + z) & 3]
    layout = Layout(Kind("i8", 4, 3), (symbols.shape,))
    for codec, params in ((STATIC, b"\x05\x00"), (ADAPTIVE, b"\x05\x0f\x02"), (BINARY, b"\x05\x0f\x02")):
        bits = 8 * len(both(codec, symbols.tobytes(), layout, params)) / symbols.size
        assert bits < order0_bits(symbols) - 0.5


def test_size_does_not_depend_on_threads_or_runs() -> None:
    from golfcore.container import Tensor, encode

    stored: list[Any] = [
        Tensor("a", "q", gaussian((300, 128), 2.4), 6),
        Tensor("b", "v", gaussian((300, 128), 2.4, columns=0.5), 6),
        Tensor("c", "v", gaussian((300, 96), 2.4, seed=3), 6, trellis=3),
        Tensor("s", "scale", grid.nearest(np.geomspace(0.01, 0.02, 300).astype(np.float32))),
    ]
    assert encode(stored, {}, threads=1) == encode(stored, {}, threads=8) == encode(stored, {})
