"""Ten plain questions about Python and the documentation topic that answers each.

Written before the first model of the quickstart was trained, and not changed since. No question
contains its topic's title, nor a word of it; the topics are keys of ``pydoc_data.topics``.
"""

QUESTIONS = (
    ("How do I leave a loop early, before it has gone through all the items?", "break"),
    ("How do I run clean-up code whether or not an error happened?", "try"),
    ("How can I write a small anonymous function in one line, without giving it a name?", "lambda"),
    ("How do I show a number with two decimals inside a piece of text?", "formatstrings"),
    ("Where does Python look for a module when my program loads it for the first time?", "import"),
    ("How do I step through my program line by line to find a bug?", "debugger"),
    ("How can a function change a variable that belongs to the whole module?", "global"),
    ("How do I remove a name or an item so that it no longer exists?", "del"),
    ("Which is computed first, plus or times, when there are no parentheses?", "operator-summary"),
    ("How does a generator hand one value at a time to its caller?", "yield"),
)
