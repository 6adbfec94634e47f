"""Every parser of golfcore that reads what others may have written, with inputs to begin with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import zstandard

sys.path.insert(0, str(Path(__file__).parent))
import feeds
import fuzz_container
import samples
from guided import Parser

from golfcore.artifact import interchange
from golfcore.bench import store
from golfcore.run_folder import CONFIG, SCORE
from golfcore.tokenizer import Tokenizer


def words(text: str) -> tuple[bytes, ...]:
    return tuple(word.encode() for word in text.split())


JSON = words('{ } [ ] " : , null true NaN Infinity -1 1e999 "\\ud800" {} [[[[[[[[ {"":')
TOML = (
    *words('[ ] = nan inf -inf """ \' [[ { } 1979-05-27 0x10 true "all" 0-5'),
    b"\n[model]\n", b"\n[train]\n", b"\n[quant]\n", b"\n[optim]\n",
    b"[" * 3000, b"9" * 5000, b"\xef\xbb\xbf",
)  # fmt: skip
PICKLE = (
    b"cos\nsystem\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"ctorch\nDevice\n",
    b"ccollections\nOrderedDict\n", b"cbuiltins\neval\n", b"cnumpy.core.multiarray\n_reconstruct\n",
    b"q\x00", b"h\x00", b"h\x01", b"X\x04\x00\x00\x00", b"\x8a\x08", b"K\x02", b"\x81",
    *words("R b ( t } ] u s Q i o 0 2"),
)  # fmt: skip


def _behind(mode: int, **named: bytes) -> dict[str, bytes]:
    return {name: bytes((mode,)) + data for name, data in named.items()}


def _runs() -> dict[str, bytes]:
    files = samples.run_folder()
    return {name: bytes((i,)) + files[name] for i, name in enumerate(samples.RUN_FILES)}


def _recipes() -> dict[str, bytes]:
    toml = samples.run_folder()[CONFIG]
    short = (
        b'[model]\nnum_layers = 2\nxsa_layers = "all"\nloop_layers = "0-1"\nloop_starts = [0.5]\n'
        b'[quant]\ngroup_k = ["q=1.5"]\n[train]\nbatch_ramp = [8, 16]\nbatch_ramp_until = [0.1, 0.5]\n'
    )
    sets = {
        f"set{i}": b"\1" + text
        for i, text in enumerate(
            (
                b"train.seed=3",
                b'data.path="1.10"',
                b'quant.group_k=["q=12.0"]',
                b"train.batch_ramp=[8,16]",
                b"model.num_layers=1e2",
            )
        )
    }
    return _behind(0, whole=toml, short=short) | sets | _behind(2, lr=b"MATRIX_LR=0.03", tie=b"TIE_EMBEDDINGS=1")


def _model_seeds() -> dict[str, bytes]:
    manifest = json.dumps(samples.model()[1], sort_keys=True, separators=(",", ":")).encode()
    return _behind(0, file=samples.model_file()) | _behind(1, manifest=manifest)


def _torch_seeds(whole: bytes, state: object) -> dict[str, bytes]:
    return (
        _behind(0, file=whole)
        | _behind(1, summed=samples.torch_file(state))
        | _behind(2, pickle=samples.pickle_of(state))
    )


def _safetensors_seeds() -> dict[str, bytes]:
    whole = samples.safetensors_file()
    head = whole[8 : 8 + int.from_bytes(whole[:8], "little")]
    own = json.loads(head)["__metadata__"][interchange.KEY].encode()
    return _behind(0, file=whole) | _behind(1, own=own) | _behind(2, head=head)


def _bench_seeds() -> dict[str, bytes]:
    row = dict.fromkeys(store.COLUMNS, "1") | {"case": "norm", "dtype": "fp32", "shape": "8x8", "backend": "own"}
    return {"rows": (",".join(store.COLUMNS) + "\n" + ",".join(row.values()) + "\n").encode()}


PARSERS = {
    "container": Parser(lambda data, folder: fuzz_container.one_input(data), fuzz_container.seeds),
    "model": Parser(feeds.model, _model_seeds, JSON),
    "shards": Parser(feeds.shards, samples.shards),
    "tokenizer": Parser(
        feeds.tokenizer,
        lambda: (
            _behind(0, file=samples.tokenizer().to_bytes(), bytes=Tokenizer().to_bytes())
            | _behind(1, merges=samples.tokenizer().to_bytes()[16:-4])
        ),
    ),
    "sentencepiece": Parser(feeds.sentencepiece, lambda: {"model": samples.sentencepiece_model()}),
    "manifest": Parser(
        feeds.manifest, lambda: {"manifest": samples.prepared()["manifest.json"]}, (*JSON, b"/dev/zero", b"../")
    ),
    "val_text": Parser(
        feeds.val_text,
        lambda: (
            _behind(0, file=samples.val_text(samples.DOCUMENTS), none=samples.val_text([]))
            | _behind(1, plain=zstandard.decompress(samples.val_text(samples.DOCUMENTS)))
        ),
    ),
    "text": Parser(feeds.text, samples.texts, (*JSON, b"\xef\xbb\xbf", b"\xed\xa0\x80", b'{"text": "', b"\n\n")),
    "hub": Parser(
        feeds.hub_manifest, lambda: {"manifest": samples.hub_manifest()}, (*JSON, b"../", b"tokenizers/", b"/")
    ),
    "recipe": Parser(feeds.recipe, _recipes, TOML),
    "unpacked": Parser(
        feeds.unpacked,
        lambda: _behind(0, manifest=samples.unpacked()["manifest.json"]) | _behind(1, npy=samples.unpacked()["s.npy"]),
        (*JSON, b"'descr': '|O'", b"'fortran_order': True"),
    ),
    "safetensors": Parser(feeds.safetensors, _safetensors_seeds, (*JSON, b"F8_E4M3", b"BOOL", b"F64", b"I64")),
    "checkpoint": Parser(
        feeds.checkpoint, lambda: _torch_seeds(samples.checkpoint(), samples.checkpoint_state()), PICKLE
    ),
    "quantized": Parser(
        feeds.quantized,
        lambda: _torch_seeds(samples.torch_file(samples.quantized_state()), samples.quantized_state()),
        PICKLE,
    ),
    "run": Parser(feeds.run_files, _runs, (*JSON, *TOML)),
    "record": Parser(feeds.record, lambda: {"score": samples.run_folder()[SCORE]}, JSON),
    "report": Parser(feeds.report, _runs, (*JSON, *TOML)),
    "sweep": Parser(
        feeds.sweep,
        lambda: (
            _behind(
                0,
                values=b"optim.matrix_lr=0.02,0.03",
                range=b"optim.matrix_lr=0.01..0.1:log",
                lists=b"train.batch_ramp=[8,16],[]",
            )
            | _behind(1, journal=samples.journal())
            | _behind(2, spec=samples.sweep_spec().encode())
        ),
        (*JSON, b"..", b":log", b"train.seed="),
    ),
    "bench": Parser(feeds.bench, _bench_seeds, (b'"', b",", b"\n", b"\r", b"\0", b"nan")),
    "products": Parser(feeds.products_cache, lambda: {"one": b'{"cpu": {"fp32": 1.5, "onednn": 0, "bf16": 2}}'}, JSON),
    "library": Parser(
        feeds.library,
        lambda: {
            "elf": b"\x7fELF\2\1" + bytes(12) + b"\x3e\0",
            "mach": b"\xcf\xfa\xed\xfe\7\0\0\1",
            "pe": b"MZ" + bytes(58) + b"\x40\0\0\0PE\0\0\x64\x86",
        },
    ),
    "protocol": Parser(
        feeds.protocol, lambda: {"lines": b'{"rank": 1, "step": 3}\n{}\n', "cut": b'{"rank"'}, (*JSON, b"\n")
    ),
}
