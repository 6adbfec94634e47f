"""The parts of an exported script that golfcore itself does not use: plain torch in place of the compiled core.

``golfcore.export.script`` binds them to the names of the modules that they replace.
"""
