"""Models: the families a recipe can name. Torch-free until a model is built (``golfcore.model.base`` imports torch)."""

from golfcore.model.registry import Family, Role, family_configs, get_family, register

__all__ = ["Family", "Role", "family_configs", "get_family", "register"]
