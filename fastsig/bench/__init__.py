"""Speed, against everything that is installed: `python -m fastsig bench`.

`cases` says what is measured and what is right; `machine` and `startup` measure what the machine and a process's start
allow; `peers` is the registry of those who are compared; `results` holds what came of it; `suite` chooses cases; `runner`
measures them, in a process of its own. `tables`, `pictures`, `accuracy` and `page` show it all, `compare` holds two runs beside
each other, and `command` is the command.
"""
