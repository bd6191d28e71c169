"""The benchmark: which model for which task, with energy beside correctness.

`task` holds the nouns in Inspect's words, `suite` reads the tasks that ship in `tasks/`, `scoring` says by arithmetic
alone whether an answer is right, `sandbox` runs what has to be run for that in a process of its own (`cell` is its
program), and `marking` puts the two together.
"""
