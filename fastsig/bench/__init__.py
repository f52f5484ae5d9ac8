"""Speed, against everything that is installed: `python -m fastsig bench`.

`cases` says what is measured and what is right; `moving` has loops that only move data, with which `sentinel` sees whether the
machine is calm and `limits` how fast it can be; `machine` says what it is, and `startup` measures what a process's start takes;
`peers` is the registry of those who are compared; `results` holds what came of it; `suite` chooses cases; `ahead` compiles what
they need, `worker` measures them in a process of its own, and `runner` attends to it. `tables`, `pictures`, `accuracy` and
`page` show it all, `compare` holds two runs beside each other, and `command` is the command.
"""
