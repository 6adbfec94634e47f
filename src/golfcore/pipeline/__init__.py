"""A run, stage by stage: text -> tokens -> checkpoint.pt -> quantised.pt -> model.golf -> score.json -> report.html.

``start`` resolves a recipe and prepares its tokens; ``train``, ``quantize``, ``pack`` and ``score`` are the stages,
each usable alone; ``whole`` runs them all; ``model`` loads what they made and lets it write. The command line,
``python/train_gpt.py`` and the Python API share them.
The package is not called ``run`` because ``golfcore.run`` is the public function.
"""
