"""Packed models: write, load, inspect, compare and convert files of weights, tokenizer, code and manifest."""
