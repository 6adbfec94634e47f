"""Choose the bits and the clip of each parameter, by its kind, or by its group if the recipe says so."""

from __future__ import annotations

from collections.abc import Mapping

from golfcore.config import QuantConfig, parse_group_k
from golfcore.errors import InputError, UsageError
from golfcore.model import Role
from golfcore.quant.gptq import Coding
from golfcore.suggest import nearest

KINDS = ("matrix", "embedding", "head", "vector")


def bits_and_clip(kind: str, config: QuantConfig, name: str) -> tuple[int, str, float]:
    """Return ``(bits, clip, k)`` of a parameter of this kind; bits 0 means fp16 or fp8. ``name`` is for the error.

    Raises:
        InputError: a kind that the quantizer does not know.
    """
    if kind not in KINDS:
        raise InputError(
            f"{name}: its role {kind!r} is unknown to the quantizer; expected one of {', '.join(KINDS)}, as "
            "parameter_roles() says"
        )
    if kind == "matrix":
        return config.matrix_bits, config.matrix_clip, config.matrix_k
    if kind == "vector" or (config.format != "int" and config.rest == "fp8"):
        return 0, "", 0.0
    return config.embed_bits, config.embed_clip, config.embed_k


def codings(roles: Mapping[str, Role], config: QuantConfig) -> dict[str, Coding]:
    """Return the coding of each tensor that is not stored in fp16; a k in ``quant.group_k`` replaces that of the kind.

    Raises:
        UsageError: ``quant.group_k`` names a group that the model does not have.
    """
    of_group = dict(map(parse_group_k, config.group_k))
    known = {role.group for role in roles.values()}
    for group in of_group:
        if group not in known and group not in roles:
            raise UsageError(
                f"quant.group_k names {group!r}, expected one of {', '.join(sorted(known))}, or a tensor"
                f"{nearest(group, [*known, *roles])}"
            )
    found = {}
    for name, role in roles.items():
        bits, clip, k = bits_and_clip(role.kind, config, name)
        if bits:
            trellis = config.states.bit_length() - 1 if config.states else 0
            k = of_group.get(name, of_group.get(role.group, k))
            found[name] = Coding(bits, clip, k, trellis, config.columns, config.rate, config.scales)
    return found
