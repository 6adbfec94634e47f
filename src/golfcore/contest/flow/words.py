"""Names of functions of Python, numpy and torch, by what they do to the origin of values."""

from __future__ import annotations

LOSS = frozenset(  # cross entropies
    """
    cross_entropy fused_cross_entropy linear_cross_entropy nll_loss
    """.split()  # noqa: SIM905
)
MAKES = frozenset(  # make a tensor or container
    """
    BytesIO Counter OrderedDict StringIO arange array defaultdict deque dict empty empty_like full full_like
    ones ones_like rand randn randn_like zeros zeros_like
    """.split()  # noqa: SIM905
)
DICTS = frozenset(  # of these, make a dict
    """
    Counter OrderedDict defaultdict dict
    """.split()  # noqa: SIM905
)
READS = frozenset(  # read a file
    """
    a85decode b64decode b85decode from_buffer frombuffer fromfile load load_file loads loadtxt memmap open
    read_bytes unpackbits
    """.split()  # noqa: SIM905
)
STATISTICS = frozenset(  # count tokens
    """
    Counter bincount histc histogram unique unique_consecutive value_counts
    """.split()  # noqa: SIM905
)
BEST = frozenset(  # take the least or greatest
    """
    amax amin fmax fmin max maximum min minimum nanmin sorted
    """.split()  # noqa: SIM905
)
SAME = frozenset(  # give back what they are given
    """
    DataParallel DistributedDataParallel Path ScriptModule abspath autocast cache cast checkpoint compile cpu
    expanduser frozenset fspath inference_mode iter jit list lru_cache njit no_grad pin_memory prange reversed
    script set str tqdm trange tuple wraps
    """.split()  # noqa: SIM905
)
RUNS = frozenset(  # run a function that they are given
    """
    Process Thread Timer apply_along_axis apply_async checkpoint filter imap main map reduce run run_in_executor
    spawn starmap start_processes submit timeit vectorize vmap
    """.split()  # noqa: SIM905
)
SHAPES = frozenset(  # tell a size or a fact of the machine
    """
    callable current_device device_count get_rank get_world_size hasattr id is_available is_initialized
    is_tensor isinstance issubclass len numel perf_counter time type
    """.split()  # noqa: SIM905
)
POSITIONS = frozenset(  # tell positions, which are no tokens
    """
    argsort argwhere bisect bisect_left bisect_right flatnonzero nonzero searchsorted
    """.split()  # noqa: SIM905
)
HASH_OPERATIONS = frozenset(  # mix bits
    """
    bitwise_and bitwise_xor fmod logical_and_ mod remainder
    """.split()  # noqa: SIM905
)
PASSES = frozenset(  # keep true tokens true tokens
    """
    abs array as_tensor asarray ascontiguousarray broadcast_to cat chunk clamp clip clone concatenate deepcopy
    expand flatten flip float from_numpy hstack int int16 int32 int64 item long narrow pad permute ravel repeat
    reshape roll split squeeze stack tensor tile tolist transpose uint16 uint32 uint64 unbind unsqueeze vstack
    where
    """.split()  # noqa: SIM905
)
HASHES = frozenset(  # hash
    """
    adler32 blake2b crc32 fnv1a hash md5 murmur3 sha1 sha256 xxh32 xxh64
    """.split()  # noqa: SIM905
)
