"""How fast, against what: ``python -m tests.benchmarks`` from the checkout's root.

Each row holds a slow form and a fast one of the same result, measured in one process, in turns,
after a warm-up; their ratio is what carries over to another machine, their seconds do not.
Printed as a Markdown table, and written as JSON with the machine's name::

    python -m tests.benchmarks                      all, under 10 minutes on 2 cores
    python -m tests.benchmarks --quick              smaller, under 1 minute
    python -m tests.benchmarks --only search        one of them
    python -m tests.benchmarks --json FILE          where the JSON goes

No test asserts a time: machines are shared, and a test that fails at times teaches nobody.
"""
