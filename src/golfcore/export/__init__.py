"""Turn a run into an entry: a folder with one self-contained script, the packed model, and the papers of the contest.

``minify`` shortens a module; ``shake`` keeps what a program reaches of many modules; ``script`` makes ``train_gpt.py``;
``trial`` runs it without golfcore; ``folder`` writes the entry. ``runtime`` holds what stands in the script where
golfcore has compiled operations.
"""
