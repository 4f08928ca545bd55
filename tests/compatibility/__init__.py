"""
The compatibility table: which framework keeps which scenario on which server, bare and guarded.

``make compatibility`` runs the whole and writes ``docs/compatibility.md``; `test_compatibility` runs a part of it.
"""
