"""The tokenizations of the contest's text, and the commands that download them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shlex import quote


@dataclass(frozen=True, slots=True)
class Variant:
    """Names of the dataset and folders that hold one tokenization of the contest's text."""

    repo: str
    dataset: str
    byte_counts: bool = False  # fineweb_val_bytes_*.bin beside the validation shards
    val_targets: int = 0  # scored tokens of the whole validation split in rows of VAL_ROW; 0 if not known


VAL_ROW = 1024  # of the counts below
VAL_DOCUMENTS = 50_000
VAL_BYTES = 151_080_000  # give or take a thousandth: normalizers differ in some spaces

VARIANTS = {
    "byte260": Variant("willdepueoai/parameter-golf", "fineweb10B_byte260", val_targets=151_130_112),
    "sp1024": Variant("willdepueoai/parameter-golf", "fineweb10B_sp1024", val_targets=62_021_632),
    "sp4096": Variant("kevclark/parameter-golf", "fineweb10B_sp4096"),
    "sp8192": Variant("kevclark/parameter-golf", "fineweb10B_sp8192", val_targets=40_538_112),
    "caseops": Variant(
        "romeerp/parameter-golf-caseops-v1", "fineweb10B_sp8192_lossless_caps_caseops_v1_reserved", byte_counts=True,
        val_targets=47_851_520,
    ),
}  # fmt: skip


def of_folder(folder: Path) -> Variant | None:
    """Return the variant whose dataset a folder is named after; None for any other folder."""
    return next((variant for variant in VARIANTS.values() if variant.dataset == folder.resolve().name), None)


def how_to_fetch(folder: Path) -> str:
    """Return the commands that download a folder of tokens that is named as the contest's; "" for any other folder."""
    output = folder.parent.parent
    for name, variant in VARIANTS.items():
        if folder.name == variant.dataset and folder.parent.name == "datasets":
            where = "" if output.absolute() == Path("data").absolute() else f" -o {quote(str(output))}"
            return (
                "fetch it with: pip install 'golfcore[hub,sentencepiece]' && "
                f"golfcore data get fineweb --variant {name}{where}"
            )
    return ""
