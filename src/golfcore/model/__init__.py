"""Model families that a recipe can name. Nothing but ``interface`` imports torch before a model is built."""

from golfcore.model.gpt.family import GPT_FAMILY
from golfcore.model.registry import Family, family_configs, get_family, register
from golfcore.model.roles import Role

__all__ = ["Family", "Role", "family_configs", "get_family", "register"]

register(GPT_FAMILY)
