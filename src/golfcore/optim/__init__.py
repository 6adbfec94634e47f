"""Optimizers, their schedules, and their work shared over ranks."""
