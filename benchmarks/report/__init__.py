"""
One report of all that is measured: ``python -m benchmarks.report`` writes ``docs/benchmarks.md`` with its pictures.

`worker.py` and `load.py` run in processes of their own and measure; `plan.py` asks them in interleaved rounds;
`page.py` and `chart.py` write down what was found, from a file of raw results, and measure nothing.
"""
